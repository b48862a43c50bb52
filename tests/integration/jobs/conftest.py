"""Jobs over its Unix socket, with the real API server in the process and a real HTTP server that stands for the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION, NAMESPACE
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.informer import Informers
from core.client.rest import Client
from core.errors import AlreadyExists
from core.store.memory import MemoryStore
from faaslite.api.crd import function_definition
from faaslite.api.names import FUNCTION, SYSTEM_NAMESPACE
from gateway.jobs.app import Jobs

TIMEOUT = 10.0
ADMIN, NODE, NOBODY, BUILDER = "admin-token", "node-token", "nobody-token", "builder-token"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """As under launch."""
    return {"uvloop": uvloop.new_event_loop}


class Cluster:
    """The API server; `admin` may do everything, `jobs` is a client of the jobs user."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        tokens = {
            ADMIN: User("admin", ("system:masters", "system:authenticated")),
            NODE: User("system:node:n1", ("system:nodes", "system:authenticated")),
            NOBODY: User("nobody", ("system:authenticated",)),
            BUILDER: User("system:serviceaccount:team:layer-builder", ("system:authenticated",)),
        }
        self.server = ApiServer(self.store, tokens=tokens)
        self.admin = Client(self.server.local(tokens[ADMIN]))

    def jobs_client(self) -> Client:
        name = f"system:serviceaccount:{SYSTEM_NAMESPACE}:jobs"
        return Client(self.server.local(User(name, ("system:serviceaccounts", "system:authenticated"))))

    async def start(self) -> None:
        await self.server.start()
        await self.admin.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
        for name in (SYSTEM_NAMESPACE, "team"):
            try:
                await self.admin.create(NAMESPACE, {"metadata": {"name": name}})
            except AlreadyExists:
                continue

    async def stop(self) -> None:
        await self.server.stop()
        await self.store.close()

    async def function(self, name: str, namespace: str = "default", **spec: Any) -> None:
        document = {"apiVersion": FUNCTION.api_version, "kind": FUNCTION.kind, "metadata": {"name": name}, "spec": spec}
        await self.admin.create(FUNCTION, document, namespace)


class Gateway:
    """Keeps what it saw, and answers by `answer`."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, str, Any, bytes]] = []
        self.answer: Callable[[web.Request], Any] | None = None
        self._more = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, request.headers, await request.read()))
        self._more.set()
        if self.answer is not None:
            return await self.answer(request)
        return web.json_response({"hello": "world"})

    async def until(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()


class Process:
    """What one jobs process is, and a session to its socket."""

    def __init__(self, cluster: Cluster, gateway: Gateway, folder: Path) -> None:
        self.client = cluster.jobs_client()
        self.informers = Informers(self.client)
        self.path = folder / "jobs.sock"
        self.jobs = Jobs(self.client, self.informers, socket_path=self.path, data_dir=folder, gateway_url=gateway.url)
        self.session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        await self.jobs.start()
        await self.informers.start()
        await self.informers.wait_synced()
        self.session = aiohttp.ClientSession(
            "http://jobs", connector=aiohttp.UnixConnector(str(self.path)), timeout=aiohttp.ClientTimeout(TIMEOUT)
        )

    async def stop(self) -> None:
        if self.session is not None:
            await self.session.close()
            self.session = None
        await self.jobs.stop()
        await self.informers.stop()

    async def request(self, method: str, path: str, token: str | None = ADMIN, **options: Any) -> tuple[int, Any, Any]:
        """Status, body (decoded where it is JSON), headers."""
        assert self.session is not None
        headers = {**options.pop("headers", {})}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, path, headers=headers, **options) as reply:
            is_json = reply.content_type == "application/json" and method != "HEAD"
            return reply.status, await (reply.json() if is_json else reply.read()), reply.headers

    async def call(self, identity: str, *statuses: str) -> dict[str, Any]:
        """The record of a call once it has one of these statuses."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                status, record, _ = await self.request("GET", f"/system/calls/{identity}")
                assert status == 200, record
                if record["status"] in statuses:
                    return record
                await asyncio.sleep(0.01)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    found = Gateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def process(cluster: Cluster, gateway: Gateway, tmp_path: Path) -> AsyncIterator[Process]:
    found = Process(cluster, gateway, tmp_path)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def another(cluster: Cluster, gateway: Gateway) -> Callable[[Path], Process]:
    """Another jobs process, not started, over a data folder."""
    return lambda folder: Process(cluster, gateway, folder)
