"""The store in memory: a true implementation without a disk, for tests and throw-away clusters. Durable means applied."""

from __future__ import annotations

from core.store.base import Event, StoreClosed
from core.store.embedded import WATCH_BOUND, EmbeddedStore
from core.store.state import State

__all__ = ["MemoryStore"]


class MemoryStore(EmbeddedStore):
    """`watch_bound`: events that may wait for a slow watcher; `log_events`: how many events are kept to replay."""

    def __init__(self, *, watch_bound: int = WATCH_BOUND, log_events: int = 50_000) -> None:
        super().__init__(watch_bound)
        self._state = State(self._wrote, events=log_events)

    async def durable(self, revision: int) -> None:
        self._check_reached(revision)

    async def close(self) -> None:
        self._finish(StoreClosed("the store was closed"))

    @property
    def _told_revision(self) -> int:
        return self._state.revision

    async def _settle(self, revision: int, durable: bool) -> None:
        return

    def _wrote(self, event: Event) -> None:
        self._applied_watches.publish(event)
        self._durable_watches.publish(event)
