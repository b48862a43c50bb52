"""Keeps a node's Node object and Lease: registers, renews each 10 s, writes the Node's status when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from core.api import quantity
from core.api.kinds import LEASE, NODE
from core.api.meta import Document
from core.client.rest import Client
from core.clock import wall
from core.errors import AlreadyExists, ApiError, NotFound
from core.node.machine import Observed, Pressure, pressures
from core.node.registration import (
    LEASE_NAMESPACE,
    NodeSpec,
    lease_document,
    node_document,
    node_labels,
    node_status,
)
from core.node.runtime.base import Runtime, RuntimeFailure, RuntimeInfo
from core.tasks import ended

__all__ = ["PERIOD", "Heartbeat", "allocatable"]

log = logging.getLogger(__name__)

PERIOD = 10.0
SHUTTING_DOWN = "node is shutting down"
STATUS_PERIOD = 300.0
"""Seconds after which the status is written though nothing changed, as the kubelet does."""


def allocatable(spec: NodeSpec) -> dict[str, str]:
    """Capacity without what is reserved for the node itself."""
    found = dict(spec.capacity)
    for name, value in spec.reserved.items():
        if name == "cpu" and name in found:
            found[name] = f"{max(quantity.milli(found[name]) - quantity.milli(value), 0)}m"
        elif name in found:
            found[name] = str(max(quantity.whole(found[name]) - quantity.whole(value), 0))
    return found


class Heartbeat:
    """`restart` is awaited while the runtime is out of reach: it connects anew, raising `RuntimeFailure` where that fails.
    `observe` says what the machine has left, raising OSError where it can't."""

    def __init__(
        self,
        client: Client,
        spec: NodeSpec,
        runtime: Runtime,
        restart: Callable[[], Awaitable[None]],
        observe: Callable[[], Observed],
    ) -> None:
        self.spec = spec
        self.uid = ""
        self.trouble = ""
        self._leaving = False
        self._client = client
        self._runtime = runtime
        self._restart = restart
        self._observe = observe
        self._short: dict[str, float] = {}
        self._conditions: list[Document] = []
        self._written: Document | None = None
        self._written_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self, port: int) -> None:
        """Register and go on beating; the first beat is made at once, and again until the API takes it."""
        self.spec = replace(self.spec, port=port)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"heartbeat of {self.spec.name}")

    async def stop(self) -> None:
        await ended(self._task)
        self._task = None

    async def shut_down(self, now: float) -> None:
        """Say that the node goes, so that nothing new is scheduled to it. Raises `ApiError`."""
        self._leaving = True
        await self.beat(now)

    async def _run(self) -> None:
        delay = 0.1
        while True:
            try:
                await self.beat(wall())
                delay = PERIOD
            except ApiError as error:
                log.warning("node %s: the heartbeat failed: %s", self.spec.name, error.message)
                delay = min(delay * 2, PERIOD)
            except Exception:
                log.exception("node %s: the heartbeat failed", self.spec.name)
                delay = PERIOD
            await asyncio.sleep(delay)

    async def beat(self, now: float) -> None:
        """One heartbeat. Raises `ApiError`."""
        info = await self._runtime_info()
        if not self.uid:
            await self._register(info)
        await self._renew(now)
        await self._write_status(info, now)

    async def _runtime_info(self) -> RuntimeInfo | None:
        try:
            if self.trouble:
                await self._restart()
            info = await self._runtime.info()
        except RuntimeFailure as error:
            self.trouble = f"container runtime is down: {error}"
            return None
        self.trouble = ""
        return info

    async def _register(self, info: RuntimeInfo | None) -> None:
        document = node_document(self.spec, info)
        try:
            found = await self._client.create(NODE, document)
        except AlreadyExists:
            # Taints and Pod CIDR belong to others once the node is known; labels and annotations are said again.
            metadata: Mapping[str, object] = {
                "labels": node_labels(self.spec, info),
                "annotations": document["metadata"]["annotations"],
            }
            found = await self._client.patch(NODE, self.spec.name, "", {"metadata": metadata})
        self.uid = found["metadata"]["uid"]
        self._conditions = list(found.get("status", {}).get("conditions") or ())
        self._written = None

    async def _renew(self, now: float) -> None:
        document = lease_document(self.spec.name, self.uid, now)
        try:
            await self._client.patch(LEASE, self.spec.name, LEASE_NAMESPACE, {"spec": document["spec"]})
        except NotFound:
            await self._client.create(LEASE, document, LEASE_NAMESPACE)

    def _pressures(self, now: float) -> list[Pressure]:
        """What the machine runs short of; nothing is said of it, and the conditions stay, where it can't be read."""
        try:
            found = pressures(self._observe(), self._short, now)
        except OSError as error:
            log.warning("node %s: what the machine has left can't be read: %s", self.spec.name, error)
            return []
        self._short = {each.type: each.since for each in found if each.since}
        return found

    async def _write_status(self, info: RuntimeInfo | None, now: float) -> None:
        images = []
        if not self.trouble:
            try:
                images = [(each.name, each.size) for each in await self._runtime.images()]
            except RuntimeFailure as error:
                log.warning("node %s: its images can't be listed: %s", self.spec.name, error)
        pressed = self._pressures(now)
        trouble = self.trouble or (SHUTTING_DOWN if self._leaving else "")
        status = node_status(self.spec, info, allocatable(self.spec), images, self._conditions, pressed, trouble, now)
        same = self._written is not None and _without_times(status) == _without_times(self._written)
        if same and now - self._written_at < STATUS_PERIOD:
            return
        try:
            await self._client.patch(NODE, self.spec.name, "", {"status": status}, subresource="status")
        except NotFound:
            log.warning("node %s is gone from the API, registering again", self.spec.name)
            self.uid = ""
            await self._register(info)
            await self._client.patch(NODE, self.spec.name, "", {"status": status}, subresource="status")
        self._conditions, self._written, self._written_at = status["conditions"], status, now


def _without_times(status: Document) -> Document:
    conditions = [
        {key: value for key, value in each.items() if key != "lastHeartbeatTime"} for each in status["conditions"]
    ]
    return {**status, "conditions": conditions}
