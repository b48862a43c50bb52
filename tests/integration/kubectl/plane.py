"""A whole control plane in one process, for kubectl: API server over TLS, controllers, scheduler, two nodes that run nothing real.

    python plane.py FOLDER

It prints the API's port when it serves and ends with its standard input. A container whose image is `job:N` exits with code N,
one of `busy:N` uses N thousandths of a core, every other one runs on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from pathlib import Path

import uvicorn

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.streams.log import KubeletConnector
from core.client.informer import Informers
from core.client.rest import Client
from core.controllers.manager import Controllers
from core.node.agent import Agent
from core.node.runtime.base import ContainerSpec
from core.node.runtime.fake import Behaviour, FakeRuntime
from core.node.server import Serving
from core.scheduler.scheduler import Scheduler
from core.store.factory import open_store
from faaslite.launch.pki import Pki

NODES = ("node-1", "node-2")
ADMIN = User("kubernetes-admin", ("system:masters",), "u-1")
HALF = 0.5
"""kubectl rounds thousandths of a core up: what is used lies half a one below, however exact the clock is."""
CONTROLLERS = User("system:kube-controller-manager", ("system:masters",))


def behave(spec: ContainerSpec) -> Behaviour:
    name, _, tag = spec.image.partition(":")
    if name == "job":
        return Behaviour(ready_after=None, exit_after=0.0, exit_code=int(tag), output="done")
    if name == "busy":
        return Behaviour(cpu=(int(tag) - HALF) / 1000, memory=64 << 20)
    return Behaviour(cpu=HALF / 1000, output=f"hello from {spec.name}\nready")


async def main(folder: Path) -> None:
    pki = Pki(folder / "pki")
    pki.folder.mkdir()
    pki.prepare(["127.0.0.1"], NODES)
    store = open_store(f"sqlite://{folder}/state.db")
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listener.getsockname()[1]
    api = ApiServer(
        store,
        tokens={"admin-token": ADMIN, "dev-token": User("dev", ("developers",))},
        kubelet=KubeletConnector(pki.client_context("apiserver-kubelet-client")),
        advertise=("127.0.0.1", port),
    )
    certificate, key = pki.files("apiserver")
    config = uvicorn.Config(
        api, ssl_certfile=str(certificate), ssl_keyfile=str(key), log_level="warning", access_log=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    client = Client(api.local(CONTROLLERS))
    informers = Informers(client)
    components = [
        api,
        informers,
        Controllers(client, informers, ca=pki.ca_file.read_text()),
        Scheduler(client, informers),
        *(_node(folder, pki, api, number) for number, _ in enumerate(NODES)),
    ]
    for each in components:
        await each.start()
    serving = asyncio.create_task(server._serve([listener]))
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for each in reversed(components):
        await each.stop()
    server.should_exit = True
    await serving
    await store.close()


def _node(folder: Path, pki: Pki, api: ApiServer, number: int) -> Agent:
    name = NODES[number]
    certificate, key = pki.files(f"node-{name}")
    return Agent(
        Client(api.local(User(f"system:node:{name}", ("system:nodes",)))),
        name,
        FakeRuntime(behave),
        data_dir=folder / name,
        log_root=folder / "logs",
        address="127.0.0.1",
        pod_cidr=f"127.{64 + number}.0.0/16",
        capacity={"cpu": "8", "memory": "16Gi", "pods": "110"},
        serving=Serving("127.0.0.1", 0, certificate, key, pki.ca_file),
    )


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(main(Path(sys.argv[1])))
