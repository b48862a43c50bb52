"""The processes of a node: its agent, and on process nodes the sandboxer beside it."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from core.api import quantity
from core.client.readiness import HintSender
from core.errors import NotFound, ServiceUnavailable
from core.node.agent import Agent
from core.node.runtime.base import ContainerSpec, Mount, Runtime
from core.node.runtime.process import ProcessRuntime
from core.node.runtime.sandboxer import main as sandboxer
from core.node.runtime.sandboxer.node import Settings as SandboxerSettings
from core.node.server import Serving
from core.node.volumes.archive import ArchiveVolumes
from faaslite.api.names import LABEL_FUNCTION, PACKAGE_DRIVER, PROCESS_TAINT
from faaslite.controllers.resources import TMP, TMP_SIZE, USER
from faaslite.launch import slices
from faaslite.launch.bootstrap import Closing
from faaslite.launch.child import Component, run_components
from faaslite.launch.cluster import Cluster
from faaslite.launch.process import ProcessSpec

__all__ = ["node_process", "sandboxer_process"]

_PODS = {"process": 1100, "docker": 250}
_CHUNK = 256 * 1024
_WARM_IMAGES = ("faaslite/python",)
"""Of which Docker nodes keep started containers before the first Pod asks for one."""


def sandboxer_process(cluster: Cluster, name: str) -> ProcessSpec:
    """The parent of the node's Pods: it outlives the agent."""
    socket_path, folder = cluster.home.sandboxer_socket(name), cluster.home.node(name) / "sandboxer"
    settings = SandboxerSettings(idle=cluster.settings.zygote_idle)

    def main(report: int) -> None:
        cluster.close_listeners()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepared = sandboxer.prepare(folder, settings.without)

        async def serve() -> None:
            stop, ready = asyncio.Event(), asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            serving = asyncio.get_running_loop().create_task(
                sandboxer.main(socket_path, folder, settings=settings, prepared=prepared, stop=stop, on_ready=ready)
            )
            waiting = asyncio.get_running_loop().create_task(ready.wait())
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                gc.collect()
                gc.freeze()
                os.write(report, b"R")
            else:
                waiting.cancel()
            await serving

        asyncio.run(serve())  # not uvloop: it keeps SIGCHLD to itself

    return ProcessSpec(f"sandboxer-{name.removeprefix('node-')}", main, grace=15.0)


def node_process(cluster: Cluster, name: str) -> ProcessSpec:
    """The node's agent."""
    number = int(name.removeprefix("node-"))

    def main(report: int) -> None:
        cluster.close_listeners()
        run_components(lambda: _build(cluster, name, number), report)

    before = [f"sandboxer-{number}"] if cluster.runtime == "process" else []
    return ProcessSpec(name, main, after=["core", *before], grace=20.0)


async def _build(cluster: Cluster, name: str, number: int) -> Sequence[Component]:
    client = cluster.client(f"node/{name}")
    home = cluster.home.node(name)
    fetcher = PackageFetcher(cluster.home.jobs_socket, cluster.pki.token(f"node/{name}"))
    certificate, key = cluster.pki.files(f"node-{name}")
    process = cluster.runtime == "process"
    agent = Agent(
        client,
        name,
        _runtime(cluster, name, number),
        data_dir=home,
        log_root=cluster.home.pod_logs,
        address="127.0.0.1",
        pod_cidr=pod_cidr(cluster, number),
        capacity=_capacity(cluster),
        taints=[{"key": PROCESS_TAINT, "effect": "NoSchedule"}] if process else [],
        csi={PACKAGE_DRIVER: ArchiveVolumes(PACKAGE_DRIVER, fetcher.fetch, fetcher.check, home / "packages")},
        serving=Serving("127.0.0.1", 0, certificate, key, cluster.pki.ca_file),
        templates=LABEL_FUNCTION,
        hints=HintSender(cluster.home.run),
    )
    return [Closing(client), Closing(fetcher), agent]


def pod_cidr(cluster: Cluster, number: int) -> str:
    """The range of addresses that a node gives to Pods: part of 127/8 for processes, a bridge's subnet for Docker."""
    if cluster.engine is not None:
        return cluster.engine.pod_cidr(number)
    return slices.cidr(cluster.settings.slices[number - 1])


def _runtime(cluster: Cluster, name: str, number: int) -> Runtime:
    if cluster.engine is None:
        return ProcessRuntime(cluster.home.sandboxer_socket(name))
    from core.node.runtime.docker import DockerRuntime
    from core.node.runtime.docker_fit import Shape
    from core.node.runtime.docker_warm import WarmSettings

    engine, settings = cluster.engine, cluster.settings
    shapes = [Shape.of(_function_container(each)) for each in _WARM_IMAGES]
    return DockerRuntime(
        engine.node(name),
        state_dir=cluster.home.node(name) / "docker",
        pod_cidr=engine.pod_cidr(number),
        base_url=engine.url,
        cluster=engine.cluster,
        supernet=engine.supernet if settings.nodes > 1 else "",
        warm=WarmSettings(settings.warm, settings.warm_memory << 20, shapes),
    )


def _function_container(image: str) -> ContainerSpec:
    """What every function of that image has in common, as the function controller renders it."""
    tmp = Mount("", TMP, scratch=quantity.whole(TMP_SIZE))
    return ContainerSpec(
        "", image, user=USER, group=USER, read_only_root=True, no_capabilities=True, mounts=(tmp,)
    )  # fmt: skip


def _capacity(cluster: Cluster) -> dict[str, str]:
    """This machine's, shared out among its nodes."""
    share = cluster.settings.nodes
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{(os.cpu_count() or 1) * 1000 // share}m",
        "memory": f"{memory // share // 1024}Ki",
        "pods": str(_PODS[cluster.runtime]),
    }


class PackageFetcher:
    """Brings packages from the package store over its Unix socket."""

    def __init__(self, socket_path: Path, token: str) -> None:
        self._path = socket_path
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": f"faaslite-node ({platform.node()})"}
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, digest: str, namespace: str) -> AsyncGenerator[bytes, None]:
        """The archive's bytes. Raises NotFound, ServiceUnavailable."""
        async with self._asked("GET", digest, namespace) as response:
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk

    async def check(self, digest: str, namespace: str) -> None:
        """Nothing where the namespace has that package. Raises NotFound, ServiceUnavailable."""
        async with self._asked("HEAD", digest, namespace):
            return

    @asynccontextmanager
    async def _asked(self, method: str, digest: str, namespace: str) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._path))
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=30.0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        try:
            url, query = f"http://jobs/system/packages/{digest}", {"namespace": namespace}
            async with self._session.request(method, url, params=query, headers=self._headers) as response:
                if response.status == 404:
                    raise NotFound(f"the package store has no {digest} of {namespace}; deploy the function again")
                if response.status != 200:
                    raise ServiceUnavailable(f"the package store answered {response.status} for {digest}")
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceUnavailable(f"the package store doesn't answer: {error or type(error).__name__}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
