"""Watches of embedded stores: events handed to the watchers of their prefixes, in bounded queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from core.store.base import Compacted, Event, StoreError

__all__ = ["Hub", "QueueWatch"]


class QueueWatch:
    """One watcher's queue. What is put in while it isn't being read comes out as one batch.

    Where more than `bound` events wait it is dropped: the queue is emptied and the reader gets `Compacted`. The events
    that the watch began with don't count, as the log that holds them is bounded itself.
    """

    def __init__(self, hub: Hub, prefix: str, since: int, backlog: list[Event], bound: int) -> None:
        self.prefix = prefix
        self._hub = hub
        self._since = since
        self._events = backlog
        self._bound = bound + len(backlog)
        self._waiter: asyncio.Future[None] | None = None
        self._end: Exception | None = None
        self._told: Callable[[], None] | None = None

    def __aiter__(self) -> QueueWatch:
        return self

    async def __anext__(self) -> list[Event]:
        while not self._events:
            if self._end is not None:
                raise self._end
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._events = self._events, []
        return events

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        if not events and self._end is not None:
            raise self._end
        return events

    def notify(self, wake: Callable[[], None]) -> None:
        self._told = wake
        if self._events or self._end is not None:
            wake()

    async def aclose(self) -> None:
        self._events = []
        self.end(StopAsyncIteration())

    def push(self, event: Event) -> None:
        # A watch of durable events may begin after events that are applied and become durable only now.
        if event.revision <= self._since:
            return
        self._events.append(event)
        if len(self._events) > self._bound:
            self._events = []
            self.end(Compacted(f"the watch of {self.prefix} fell more than {self._bound} events behind"))
        elif self._told is not None:
            self._told()
        else:
            self._wake()

    def end(self, error: Exception) -> None:
        """No more events; the reader gets what is queued, then `error`."""
        if self._end is None:
            self._end = error
        self._hub.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._told is not None:
            self._told()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """The watchers of one kind of events (applied, or durable) by prefix."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._watches: dict[str, dict[QueueWatch, None]] = {}

    def add(self, prefix: str, since: int, backlog: Iterable[Event]) -> QueueWatch:
        """A watch that begins with the events of `backlog` under `prefix`."""
        matching = [event for event in backlog if event.key.startswith(prefix)]
        watch = QueueWatch(self, prefix, since, matching, self._bound)
        self._watches.setdefault(prefix, {})[watch] = None
        return watch

    def remove(self, watch: QueueWatch) -> None:
        watches = self._watches.get(watch.prefix)
        if watches is not None:
            watches.pop(watch, None)
            if not watches:
                del self._watches[watch.prefix]

    def publish(self, event: Event) -> None:
        """Hand the event to the watchers of each prefix of its key."""
        key, by_prefix = event.key, self._watches
        if not by_prefix:
            return
        slash = key.find("/")
        while slash >= 0:
            watches = by_prefix.get(key[: slash + 1])
            if watches:
                for watch in tuple(watches):
                    watch.push(event)
            slash = key.find("/", slash + 1)

    def end(self, error: StoreError) -> None:
        """End every watch."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.end(error)
