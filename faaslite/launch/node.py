"""The processes of a node: its agent, and on process nodes the sandboxer beside it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Sequence

from core.api import quantity
from core.client.readiness import HintSender
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
from faaslite.launch.home import Home
from faaslite.launch.packages import PackageFetcher
from faaslite.launch.process import ProcessSpec

__all__ = ["capacity", "node_process", "sandboxer_process", "sandboxer_spec"]

_PODS = {"process": 1100, "docker": 250}
_WARM_IMAGES = ("faaslite/python",)
"""Of which Docker nodes keep started containers before the first Pod asks for one."""


def sandboxer_process(cluster: Cluster, name: str) -> ProcessSpec:
    """The parent of the node's Pods: it outlives the agent."""
    settings = SandboxerSettings(idle=cluster.settings.zygote_idle)
    return sandboxer_spec(
        f"sandboxer-{name.removeprefix('node-')}", cluster.home, name, settings, cluster.close_listeners
    )


def sandboxer_spec(
    process: str, home: Home, name: str, settings: SandboxerSettings, before: Callable[[], None]
) -> ProcessSpec:
    """The process `process`, which holds the Pods of the node `name`. `before` runs first, in the child."""
    socket_path, folder = home.sandboxer_socket(name), home.node(name) / "sandboxer"

    def main(report: int) -> None:
        before()
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

    return ProcessSpec(process, main, grace=15.0)


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
        capacity=capacity(cluster.runtime, cluster.settings.nodes),
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


def capacity(runtime: str, share: int = 1) -> dict[str, str]:
    """This machine's, shared out among `share` nodes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{(os.cpu_count() or 1) * 1000 // share}m",
        "memory": f"{memory // share // 1024}Ki",
        "pods": str(_PODS[runtime]),
    }
