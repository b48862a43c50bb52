"""What the stores that keep their state in this process have in common: all but how a write becomes durable."""

from __future__ import annotations

from core.store.base import Entry, Event, FutureRevision, Page, StoreClosed, StoreError
from core.store.state import State
from core.store.watching import Hub, QueueWatch

__all__ = ["EmbeddedStore"]

WATCH_BOUND = 10_000


class EmbeddedStore:
    """A store over a `State`. A subclass says how a write becomes durable: `_wrote`, `_settle`, `durable`, `close`."""

    _state: State

    def __init__(self, watch_bound: int = WATCH_BOUND) -> None:
        self._applied_watches = Hub(watch_bound)
        self._durable_watches = Hub(watch_bound)
        self._end: StoreError | None = None
        self._soft = False
        """Whether the write that is being applied is a soft one."""

    @property
    def revision(self) -> int:
        return self._state.revision

    async def get(self, key: str) -> Entry | None:
        self._check()
        return self._state.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after: str = "", revision: int = 0) -> Page:
        self._check()
        _check_prefix(prefix)
        return self._state.list(prefix, limit, after, revision)

    async def create(self, key: str, value: bytes, *, durable: bool = True, soft: bool = False) -> Entry:
        self._check_write()
        self._soft = soft
        entry = self._state.create(key, value)
        await self._settle(entry.revision, durable)
        return entry

    async def update(self, key: str, value: bytes, expected: int, *, durable: bool = True, soft: bool = False) -> Entry:
        self._check_write()
        self._soft = soft
        entry = self._state.update(key, value, expected)
        await self._settle(entry.revision, durable)
        return entry

    async def delete(self, key: str, expected: int, *, durable: bool = True) -> Entry:
        self._check_write()
        self._soft = False
        entry = self._state.delete(key, expected)
        await self._settle(entry.revision, durable)
        return entry

    def watch(self, prefix: str, since: int, *, applied: bool = False) -> QueueWatch:
        """Raises `Compacted` and `FutureRevision` at once."""
        self._check()
        _check_prefix(prefix)
        # Reading the log and joining the hub are one step of the event loop: nothing is missed, nothing comes twice.
        if applied:
            return self._applied_watches.add(prefix, since, self._state.since(since, self._state.revision))
        return self._durable_watches.add(prefix, since, self._state.since(since, self._told_revision))

    async def compact(self, revision: int) -> None:
        self._check()
        self._state.compact(revision)

    @property
    def _told_revision(self) -> int:
        """The revision of the last event that watches were told of."""
        raise NotImplementedError

    async def _settle(self, revision: int, durable: bool) -> None:
        """Wait as a write of that revision has to before it returns."""
        raise NotImplementedError

    def _wrote(self, event: Event) -> None:
        """An event was applied."""
        raise NotImplementedError

    def _check(self) -> None:
        if self._end is not None:
            # A new instance each time: one that is raised again and again would gather tracebacks.
            raise type(self._end)(*self._end.args)

    def _check_write(self) -> None:
        self._check()

    def _check_reached(self, revision: int) -> None:
        self._check()
        if revision > self._state.revision:
            raise FutureRevision(revision, self._state.revision)

    def _finish(self, error: StoreError) -> None:
        """Every call and watch gets `error` from now on. A store that failed stays failed until it is closed."""
        if self._end is None or isinstance(error, StoreClosed):
            self._end = error
        self._applied_watches.end(error)
        self._durable_watches.end(error)


def _check_prefix(prefix: str) -> None:
    if not prefix.endswith("/"):
        raise ValueError(f"a prefix ends with '/', got {prefix!r}")
