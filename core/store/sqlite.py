"""The embedded default: state in memory, its log in a SQLite file, one writer thread.

**Failure.** Where a commit fails (disk full, I/O error), writes that wait for it get `StoreUnavailable`; whether they are
on the disk is not known. The store has then *failed*: the state in memory holds writes that may be lost, so it is shown
to nobody any more. Every call and every watch gets `StoreUnavailable` until the store is closed and opened again, which
brings back what is durable, at a revision above all that were handed out.

**Soft writes** are told to watches in the order of the log like all others, but don't wait for the disk themselves: where nothing
before them waits for it they are told within the call that writes them.

**Pressure.** Writes with `durable=False` wait like the others while the disk is more than `MAX_BACKLOG` writes behind,
and a write is refused with `StoreUnavailable` where the revisions set aside have run out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from core.store.base import Event, StoreClosed, StoreUnavailable
from core.store.embedded import WATCH_BOUND, EmbeddedStore
from core.store.sqlite_log import SqliteLog
from core.store.sqlite_writer import LogWriter
from core.store.state import State

__all__ = ["MAX_BACKLOG", "SqliteStore"]

MAX_BACKLOG = 5_000
_COMPACT_EVERY = 5_000
_TOLD_IN_TURN = 2
"""Of those who wait for a commit: how many are told in a turn of the event loop."""


class SqliteStore(EmbeddedStore):
    """Opens `path` (its folder must exist) and reads the state; the first call on an event loop binds it to that loop.

    `watch_bound`: events that may wait for a slow watcher; `log_events`: how many events are kept to replay.
    Raises `StoreUnavailable` where another process has the file open, `StoreError` where it can't be used.
    """

    def __init__(self, path: Path, *, watch_bound: int = WATCH_BOUND, log_events: int = 50_000) -> None:
        super().__init__(watch_bound)
        log = SqliteLog(path)
        try:
            loaded = log.load()
        except BaseException:
            log.close(None)
            raise
        self._path = path
        self._state = State(
            self._wrote,
            revision=loaded.revision,
            floor=loaded.floor,
            entries=loaded.entries,
            log=loaded.events,
            events=log_events,
        )
        self._durable = self._told = loaded.revision
        self._untold: deque[tuple[Event, bool]] = deque()
        """Events that watches are to hear of, oldest first, each with whether it is soft."""
        self._compacted = self._compacting = log.floor
        self._writer = LogWriter(log, self)
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Who waits for a revision to be durable, in the order in which they came."""
        self._release: asyncio.Handle | None = None
        self._compactions: list[tuple[int, asyncio.Future[None]]] = []
        self._released: asyncio.Future[None] | None = None
        self._failed_before = False

    async def durable(self, revision: int) -> None:
        self._check_reached(revision)
        await self._until_durable(revision)

    async def compact(self, revision: int) -> None:
        """As `Store.compact`; returns when the rows are gone from the file."""
        await super().compact(revision)
        if revision <= self._compacted:
            return
        self._start()
        await self._until_durable(revision)
        done = asyncio.get_running_loop().create_future()
        self._compactions.append((revision, done))
        self._compacting = max(self._compacting, revision)
        self._writer.compact(self._compacting)
        await done

    async def close(self) -> None:
        """As `Store.close`. Raises `StoreUnavailable` where what was applied could not be made durable only now."""
        if self._released is None:
            self._start()
            self._released = asyncio.get_running_loop().create_future()
            self._failed_before = self._end is not None
            self._end = StoreClosed("the store was closed")
            self._writer.close(self._state.revision)
        try:
            await asyncio.shield(self._released)
        finally:
            if self._released.done():
                self._writer.join()

    def committed(self, events: list[Event]) -> None:
        """A batch is on the disk."""
        self._durable = events[-1].revision
        self._tell()
        if self._release is None:
            self._tell_waiting()
        if self._state.floor - self._compacting > _COMPACT_EVERY:
            # No further than what is written: rows that come after their compaction would stay for ever.
            self._compacting = min(self._state.floor, self._durable)
            self._writer.compact(self._compacting)

    def compacted(self, floor: int) -> None:
        self._compacted = floor
        self._compactions = _resolve(self._compactions, floor)

    def failed(self, error: Exception) -> None:
        failure = StoreUnavailable(f"{self._path} can't be written, open the store again: {error}")
        self._fail_waiting(failure)
        self._finish(failure)

    def closed(self, error: Exception | None) -> None:
        self._fail_waiting(StoreClosed("the store was closed"))
        self._finish(StoreClosed("the store was closed"))
        if self._released is None or self._released.done():
            return
        if error is None or self._failed_before:
            self._released.set_result(None)
        else:
            self._released.set_exception(StoreUnavailable(f"{self._path} was not written to its end: {error}"))

    @property
    def _told_revision(self) -> int:
        return self._told

    async def _settle(self, revision: int, durable: bool) -> None:
        if durable or revision - self._durable > MAX_BACKLOG:
            await self._until_durable(revision)

    def _wrote(self, event: Event) -> None:
        self._writer.submit(event, soft=self._soft)
        self._untold.append((event, self._soft))
        if self._soft:
            self._tell()  # before those in this process: who is outside has further to go
        self._applied_watches.publish(event)

    def _tell(self) -> None:
        """Publish what is durable, and what is soft with nothing before it that isn't either."""
        untold, durable, publish = self._untold, self._durable, self._durable_watches.publish
        while untold and (untold[0][1] or untold[0][0].revision <= durable):
            event, _ = untold.popleft()
            self._told = event.revision
            publish(event)

    def _check_write(self) -> None:
        self._check()
        self._start()
        if self._state.revision >= self._writer.reserved:
            raise StoreUnavailable(f"{self._path}: the disk is too far behind")

    def _start(self) -> None:
        if not self._writer.started:
            self._writer.start()

    async def _until_durable(self, revision: int) -> None:
        if revision > self._durable:
            self._writer.hurry()
            done = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, done))
            await done

    def _tell_waiting(self) -> None:
        """Tell those whose revision is durable, a few in each turn of the event loop: each then has a reply to make, and who
        wants something else isn't to wait for all of those."""
        self._release = None
        told, waiting = 0, self._waiting
        left: list[tuple[int, asyncio.Future[None]]] = []
        while waiting and told < _TOLD_IN_TURN:
            revision, done = each = waiting.popleft()
            if done.done():
                continue
            if revision <= self._durable:
                done.set_result(None)
                told += 1
            else:
                left.append(each)
        waiting.extendleft(reversed(left))
        if told == _TOLD_IN_TURN:
            self._release = asyncio.get_running_loop().call_soon(self._tell_waiting)

    def _fail_waiting(self, error: Exception) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None
        self._waiting = deque(_resolve(list(self._waiting), self._durable))
        waiting = [*self._waiting, *self._compactions]
        self._waiting.clear()
        self._compactions = []
        for _, done in waiting:
            if not done.done():
                done.set_exception(error)


def _resolve(waiting: list[tuple[int, asyncio.Future[None]]], reached: int) -> list[tuple[int, asyncio.Future[None]]]:
    """Those that wait for more than `reached`; the others are told."""
    left = []
    for each in waiting:
        if each[0] > reached:
            left.append(each)
        elif not each[1].done():
            each[1].set_result(None)
    return left
