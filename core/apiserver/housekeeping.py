"""What the server does on its own: forgets old revisions, and Events that are older than an hour."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.api.kinds import EVENT
from core.apiserver.registry.deletion import DeleteOptions
from core.apiserver.registry.generic import Registry
from core.apiserver.served import Served
from core.clock import parse_time, wall
from core.errors import FaasliteError, NotFound
from core.store.base import Store
from core.tasks import ended

__all__ = ["Housekeeping"]

log = logging.getLogger(__name__)

PERIOD = 300.0
EVENT_LIFETIME = 3600.0


class Housekeeping:
    """Every `PERIOD` seconds: revisions older than the previous round are compacted, so a watch can be that far behind."""

    def __init__(self, store: Store, served: Served, clock: Callable[[], float] = wall) -> None:
        self._store = store
        self._served = served
        self._clock = clock
        self._keep_from = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._keep_from = self._store.revision
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    async def stop(self) -> None:
        await ended(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.round(self._clock())
            except FaasliteError:
                log.exception("housekeeping failed, trying again in %d s", PERIOD)

    async def round(self, now: float) -> None:
        """One iteration. `now` in seconds since the epoch."""
        registry = self._served.find(EVENT.group, EVENT.version, EVENT.plural)
        if registry is not None:
            await expire_events(registry, now)
        old, self._keep_from = self._keep_from, self._store.revision
        if old > 0:
            await self._store.compact(old)


async def expire_events(registry: Registry, now: float) -> int:
    """Delete Events that nobody has repeated for an hour; returns how many."""
    gone = 0
    for entry in (await registry.store.list(registry.prefix())).entries:
        document = registry.cache.document(entry)
        seen = document.get("lastTimestamp") or document.get("eventTime") or document["metadata"]["creationTimestamp"]
        if parse_time(seen) + EVENT_LIFETIME > now:
            continue
        try:
            await registry.delete(document["metadata"]["namespace"], document["metadata"]["name"], DeleteOptions())
        except NotFound:
            continue
        gone += 1
    return gone
