"""A control plane in the test's own event loop: the real API server over the store in memory, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from core.api.kinds import NODE, POD, Kind
from core.api.meta import Document
from core.api.views import ObjectView
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.informer import Informer, Informers
from core.client.rest import Client
from core.client.transport import STRATEGIC_PATCH
from core.clock import timestamp
from core.store.memory import MemoryStore

PATIENCE = 30.0


class ControlPlane:
    """`informers` are for the components under test; `see` watches for the test itself."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self.client = Client(api.local(User("admin", ("system:masters",))))
        self.informers = Informers(self.client)
        self._own = Informers(self.client)
        self._changed = asyncio.Event()
        self._components: list[Any] = []

    async def run(self, *components: Any) -> None:
        """Start components; they are stopped when the test ends."""
        await self.informers.start()
        for each in components:
            self._components.append(each)
            await asyncio.wait_for(each.start(), PATIENCE)

    async def synced(self) -> None:
        """Start the informers alone, for tests that call `sync` themselves."""
        await self.informers.start()
        await asyncio.wait_for(self.informers.wait_synced(), PATIENCE)

    async def see(self, kind: Kind, view: type[Any] = ObjectView, namespace: str = "") -> Informer[Any]:
        informer = self._own.watch(kind, view, namespace=namespace)
        informer.add_handler(lambda old, new: self._changed.set())
        await self._own.start()
        await asyncio.wait_for(informer.wait_synced(), PATIENCE)
        return informer

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait, from one event of what the test sees to the next, until `holds()` is true; what it returned."""
        async with asyncio.timeout(PATIENCE):
            while not (found := holds()):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def settle(self) -> None:
        """Let everything that has been set off come to rest: components react within loop steps, there is nothing to wait for."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def node(self, name: str, ready: str = "True", **spec: Any) -> Document:
        amounts = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        await self.client.create(NODE, {"metadata": {"name": name}, "spec": spec})
        status = {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": ready, "reason": "Test", "lastTransitionTime": timestamp()}],
        }
        return await self.client.patch(NODE, name, "", {"status": status}, subresource="status")

    async def pod_ready(
        self, name: str, namespace: str = "default", ready: bool = True, ip: str = "", **status: Any
    ) -> None:
        """What a node agent would write."""
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": timestamp()}
        found: Document = {"phase": "Running", "conditions": [condition], **status}
        if ip:
            found |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        await self.client.patch(
            POD, name, namespace, {"status": found}, patch_type=STRATEGIC_PATCH, subresource="status"
        )

    async def close(self) -> None:
        for each in reversed(self._components):
            await each.stop()
        await self.informers.stop()
        await self._own.stop()
        await self.client.close()


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    store = MemoryStore()
    api = ApiServer(store, tokens={})
    await api.start()
    plane = ControlPlane(api)
    try:
        yield plane
    finally:
        await plane.close()
        await api.stop()
        await store.close()
