"""Watches: a store's events as changes of one selection, with initial objects, bookmarks and an end.

Order: the state is read first, at some revision, and the store's events after that revision follow, so nothing is lost or
seen twice. A bookmark says a revision only when every event up to it has been passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from core.apiserver.selection import Selection
from core.apiserver.status import from_store
from core.errors import Expired, ServiceUnavailable
from core.store.base import Compacted, Entry, Event, Store, StoreClosed, StoreError, Watch

__all__ = ["BOOKMARK_PERIOD", "Change", "WatchOptions", "Watcher"]

BOOKMARK_PERIOD = 60.0


class Change(NamedTuple):
    """`ADDED MODIFIED DELETED` with the object as it is (or last was), or `BOOKMARK` with a revision alone."""

    type: str
    entry: Entry
    initial_end: bool = False


class WatchOptions(NamedTuple):
    """`since` -1 starts with ADDED events for what exists, and so does `initial`, which a bookmark ends. Times in seconds."""

    since: int = -1
    initial: bool = False
    bookmarks: bool = False
    timeout: float = 1800.0
    applied: bool = False
    period: float = BOOKMARK_PERIOD


class _Signal:
    """An event for one waiter, which takes it: cheaper than `asyncio.Event`, as a watch waits at every event."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        if self._waiter is None:
            self._set = True
        elif not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        if not self._set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._set = False


class Watcher:
    """One watch. `changes()` runs it; `stop()` ends it from outside, at the next turn of the event loop.

    Thousands of watches that wait for the same event needn't each wake their task for it: `told`, where it is set, is called instead while the
    task only waits, and may `take` what has come. What it doesn't take is the task's after `wake`, in the same order.
    """

    def __init__(self, store: Store, prefix: str, selection: Selection, options: WatchOptions) -> None:
        self._store = store
        self.prefix = prefix
        self.selection = selection
        self._options = options
        self._wake = _Signal()
        self._stopped = False
        self._bookmark_due = False
        self._bookmark_timer: asyncio.TimerHandle | None = None
        self._watch: Watch | None = None
        self._since = options.since
        self._waits = False
        self._failed: Exception | None = None
        self.told: Callable[[], None] | None = None
        self.begun: Callable[[], None] | None = None
        """Called once what the watch begins with has been passed on."""

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def wake(self) -> None:
        """Have the task look for what has come."""
        self._wake.set()

    def take(self) -> list[Event]:
        """What has come while the task waits, never to be seen by it; nothing where the task is at work, or has something to do first."""
        if not self._waits or self._watch is None:
            return []
        try:
            batch = self._watch.take()
        except Exception:
            self._wake.set()  # it will find the same
            return []
        if batch:
            self._since = batch[-1].revision
        return batch

    def fail(self, error: Exception) -> None:
        """End with an error: what was taken couldn't be passed on."""
        self._failed = error
        self._wake.set()

    def _come(self) -> None:
        if self._waits and self.told is not None:
            self.told()
        else:
            self._wake.set()

    async def changes(self) -> AsyncGenerator[list[Change], None]:
        """Batches, never empty. Raises `Expired` where the revision is gone or the watcher fell behind."""
        options, loop = self._options, asyncio.get_running_loop()
        since = self._since
        if since < 0 or options.initial:
            page = await self._store.list(self.prefix)
            since = self._since = page.revision
            if not options.applied:
                await self._store.durable(since)
            found = [Change("ADDED", each) for each in page.entries if self.selection.matches(each)]
            if options.initial and options.bookmarks:
                found.append(Change("BOOKMARK", Entry("", b"", since, 0), True))
            if found:
                yield found
        if self.begun is not None:
            self.begun()
        try:
            watch = self._watch = self._store.watch(self.prefix, since, applied=options.applied)
        except StoreError as error:
            raise _failure(error, since) from error
        watch.notify(self._come)
        end = loop.call_later(options.timeout, self.stop)
        if options.bookmarks:
            self._bookmark_timer = loop.call_later(options.period, self._due)
        reached, last = None, False
        try:
            while True:
                if self._failed is not None:
                    raise self._failed
                # What isn't taken waits in the store's bounded buffer: a slow watcher is dropped there.
                try:
                    batch = watch.take()
                except StopAsyncIteration:
                    return
                except Exception as error:
                    raise _failure(error, self._since) from error
                if batch:
                    changes, self._since = self.select(batch), batch[-1].revision
                    if self._bookmark_due:
                        changes.append(self._bookmark(self._since))
                    if changes:
                        yield changes
                elif reached is not None:
                    # Everything up to there had come before it was found that nothing is left to take.
                    self._since, reached = max(self._since, reached), None
                    yield [self._bookmark(self._since)]
                    if last:
                        return
                elif self._bookmark_due or (self._stopped and options.bookmarks):
                    last, reached = self._stopped, await self._newest(self._since)
                elif self._stopped:
                    return
                else:
                    self._waits = True
                    try:
                        await self._wake.wait()
                    finally:
                        self._waits = False
        finally:
            end.cancel()
            if self._bookmark_timer is not None:
                self._bookmark_timer.cancel()
            await watch.aclose()

    def _due(self) -> None:
        self._bookmark_due = True
        self._wake.set()

    def _bookmark(self, revision: int) -> Change:
        """And the time until the next one begins."""
        self._bookmark_due = False
        if self._bookmark_timer is not None:
            self._bookmark_timer.cancel()
        self._bookmark_timer = asyncio.get_running_loop().call_later(self._options.period, self._due)
        return Change("BOOKMARK", Entry("", b"", revision, 0))

    async def _newest(self, since: int) -> int:
        """The newest revision, when everything up to it has been handed to this watch."""
        revision = self._store.revision
        if not self._options.applied:
            try:
                await self._store.durable(revision)
            except StoreError as error:
                raise _failure(error, since) from error
        return revision

    def select(self, batch: list[Event]) -> list[Change]:
        """What a batch of the store's events is to this watch."""
        found = []
        every, matches = self.selection.everything, self.selection.matches
        for key, value, revision, previous in batch:
            new = None if value is None else Entry(key, value, revision, previous.created if previous else revision)
            is_in = new is not None and (every or matches(new))
            was_in = previous is not None and (every or matches(previous))
            if is_in and new is not None:
                found.append(Change("MODIFIED" if was_in else "ADDED", new))
            elif was_in and previous is not None:
                found.append(Change("DELETED", Entry(key, previous.value, revision, previous.created)))
        return found


def _failure(error: Exception, since: int) -> Exception:
    if isinstance(error, Compacted):
        return Expired(f"too old resource version: {since}")
    if isinstance(error, StoreClosed):
        return ServiceUnavailable("the store is closing")
    return from_store(error) if isinstance(error, StoreError) else error
