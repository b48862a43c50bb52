"""A started API server over a memory store, and a small client that speaks to it in its own process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.transport import JSON, RawEvent
from core.store.memory import MemoryStore

Document = dict[str, Any]
CORE = "/api/v1/namespaces/default"
ADMIN = User("admin", ("system:masters",))


class Caller:
    """Requests as one user: documents in, documents out."""

    def __init__(self, api: ApiServer, user: User = ADMIN) -> None:
        self.api = api
        self.transport = api.local(user)

    async def call(self, method: str, path: str, body: Any = None, content_type: str = JSON, **query: str) -> Document:
        data = b"" if body is None else json.dumps(body).encode()
        found: Document = json.loads(await self.transport.request(method, path, query, data, content_type))
        return found

    async def get(self, path: str, **query: str) -> Document:
        return await self.call("GET", path, **query)

    async def post(self, path: str, body: Any, **query: str) -> Document:
        return await self.call("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: str) -> Document:
        return await self.call("PUT", path, body, **query)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch", **query: str) -> Document:
        return await self.call("PATCH", path, body, f"application/{kind}+json", **query)

    async def delete(self, path: str, body: Any = None, **query: str) -> Document:
        return await self.call("DELETE", path, body, **query)

    async def events(self, path: str, count: int, **query: str) -> list[tuple[str, Document]]:
        """The first `count` events of a watch."""
        found: list[RawEvent] = []
        async with aclosing(self.transport.watch(path, query)) as watch:
            async for batch in watch:
                found += batch
                if len(found) >= count:
                    break
        return [(each.type, json.loads(each.object)) for each in found[:count]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def api(store: MemoryStore) -> AsyncIterator[ApiServer]:
    server = ApiServer(store, tokens={"secret": User("alice", ("devs",), "u-7")}, service_cidr="127.32.0.0/28")
    await server.start()
    yield server
    await server.stop()
    await store.close()


@pytest.fixture
def admin(api: ApiServer) -> Caller:
    return Caller(api)


@pytest.fixture
def caller(api: ApiServer) -> Any:
    """Makes callers of other users."""
    return lambda user: Caller(api, user)


@pytest.fixture
def pod() -> Any:
    """Makes small Pods."""

    def make(name: str = "a", **spec: Any) -> Document:
        return {
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}], **spec},
        }

    return make
