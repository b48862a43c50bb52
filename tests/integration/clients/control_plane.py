"""A control plane in a process of its own, over TLS: the API server, the controllers, the scheduler and a node whose runtime is in memory.

`python control_plane.py FOLDER`: writes `FOLDER/kubeconfig`, says `ready` on standard output, ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.informer import Informers
from core.client.rest import Client
from core.controllers.manager import Controllers
from core.node.agent import Agent
from core.node.runtime.base import ContainerSpec
from core.node.runtime.fake import Behaviour, FakeRuntime
from core.scheduler.scheduler import Scheduler
from core.serving import AsgiServer
from core.store.memory import MemoryStore
from faaslite.launch.pki import Pki

ADMIN = User("admin", ("system:masters",))


def behave(spec: ContainerSpec) -> Behaviour:
    """Containers run until they are told to end, but those that are named for ending."""
    return Behaviour(exit_after=0.05) if spec.name.startswith("brief") else Behaviour()


def write_kubeconfig(folder: Path, url: str, pki: Pki) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(pki.ca_file)}}],
        "users": [{"name": "admin", "user": {"token": pki.token("admin")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))


async def main(folder: Path) -> None:
    (folder / "pki").mkdir(mode=0o700)
    pki = Pki(folder / "pki")
    pki.prepare(["127.0.0.1"], [])
    tokens = {token: User(who["user"], tuple(who["groups"])) for token, who in pki.users([]).items()}
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:

        async def run(component: Any) -> None:
            await component.start()
            stack.push_async_callback(component.stop)

        store = MemoryStore()
        stack.push_async_callback(store.close)
        api = ApiServer(store, tokens=tokens)
        await run(api)
        client = Client(api.local(User("system:kube-controller-manager", ("system:masters",))))
        informers = Informers(client)
        await run(informers)
        await run(Controllers(client, informers, ca=pki.ca_file.read_text()))
        await run(Scheduler(client, informers))
        node = Client(api.local(User("system:node:n1", ("system:nodes",))))
        await run(
            Agent(
                node,
                "n1",
                FakeRuntime(behave),
                data_dir=folder / "n1",
                log_root=folder / "logs",
                address="127.0.0.1",
                pod_cidr="127.70.0.0/16",
                capacity={"cpu": "8", "memory": "16Gi", "pods": "200"},
            )
        )
        await run(AsgiServer(api, listener, pki.server_context("apiserver")))
        write_kubeconfig(folder, url, pki)
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.add_reader(sys.stdin, lambda: os.read(0, 1) or over.done() or over.set_result(None))
        await over
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
