"""Watch events to many clients: encoded and framed once for all watches that ask for the same, written to each without waking its task.

A commit may be told to thousands of watches. Were each to wake a task, that would cost more than sending does; so a watch that only waits is put
in line here instead, and the line is served some watches a turn of the event loop: the first clients read while the last are written to, and
requests get their turn in between. While a Pod is on its way that a caller waits for, only its node is told of each step (`urgent`); the others are
told some milliseconds later, of all steps at once. A client that doesn't keep up, and all that isn't an event (the beginning, bookmarks, the end), is its task's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakValueDictionary

from core.apiserver.events import line
from core.apiserver.request import WatchStream
from core.apiserver.watch import Change
from core.lull import LULL
from core.serving import Chunks, framed
from core.store.base import Event

__all__ = ["Fanout", "Feed"]

SLICE = 64
"""Watches served in a turn of the event loop."""


HOLD = 0.006
"""Seconds in which a Pod is made and bound, about."""


class _Shared:
    """What the watches of one selection of a collection in one form share: the newest batch of events, as a chunk."""

    __slots__ = ("__weakref__", "at", "chunk")

    def __init__(self) -> None:
        self.at = (0, 0)
        self.chunk = b""


class Fanout:
    """The line of watches that have something to send."""

    def __init__(self) -> None:
        self._line: deque[Feed] = deque()
        self._serving = False
        self._held: list[Feed] = []
        self._shared: WeakValueDictionary[tuple[object, ...], _Shared] = WeakValueDictionary()

    def shared(self, stream: WatchStream) -> _Shared:
        watcher, form, registry = stream
        at = (watcher.selection, watcher.prefix, registry, form)
        found = self._shared.get(at)
        if found is None:
            found = self._shared[at] = _Shared()
        return found

    def add(self, feed: Feed) -> None:
        """In line, or (it isn't urgent, and a Pod is on its way) in line some milliseconds later."""
        if feed.urgent or (not self._held and LULL.since() >= HOLD):
            self._line.append(feed)
            if not self._serving:
                self._begin()
            return
        if not self._held:
            asyncio.get_running_loop().call_later(HOLD, self._release)
        self._held.append(feed)

    def _release(self) -> None:
        self._line += self._held
        self._held.clear()
        if not self._serving:
            self._begin()

    def _begin(self) -> None:
        self._serving = True
        asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        waiting = self._line
        for _ in range(min(SLICE, len(waiting))):
            waiting.popleft().deliver()
        if waiting:
            asyncio.get_running_loop().call_soon(self._serve)
        else:
            self._serving = False


class Feed:
    """One watch on its way to its client. `chunks` is None where the server can't be written to but by ASGI: its task then sends everything.
    `urgent`: somebody may wait for what the client does next.
    """

    __slots__ = ("_again", "_chunks", "_fanout", "_first", "_in_line", "_shared", "_stream", "_watcher", "urgent")

    def __init__(self, fanout: Fanout, stream: WatchStream, chunks: Chunks | None, urgent: bool = False) -> None:
        self.urgent = urgent
        self._fanout = fanout
        self._stream = stream
        self._watcher = stream.watcher
        self._shared = fanout.shared(stream)
        self._first = True
        self._in_line = self._again = False
        self._chunks = chunks
        if chunks is not None:
            self._watcher.told = self._told

    def encoded(self, changes: list[Change]) -> bytes:
        """Lines to send. The first event of a watch of Tables brings the columns."""
        _, form, registry = self._stream
        lines = []
        for change in changes:
            lines.append(line(registry, change, form, self._first))
            self._first = self._first and change.type == "BOOKMARK"
        return b"".join(lines)

    def _told(self) -> None:
        if self._in_line:
            self._again = True
        else:
            self._in_line = True
            self._fanout.add(self)

    def deliver(self) -> None:
        """Write what has come; leave it to the watch's task where the client isn't ready for it."""
        again, self._in_line, self._again = self._again, False, False
        chunks, watcher = self._chunks, self._watcher
        assert chunks is not None
        try:
            if not chunks.ready():
                watcher.wake()
                return
            while batch := watcher.take():
                if chunk := self._chunk(batch):
                    chunks.write(chunk)
                if not again:
                    return
                # It was told more than once: of more events, or of the end behind them, which only shows when it is looked for.
        except Exception as error:
            watcher.fail(error)

    def _chunk(self, batch: list[Event]) -> bytes:
        # The same selection of the same collection between the same revisions is the same events.
        at, shared = (batch[0].revision, batch[-1].revision), self._shared
        if self._first and self._stream.form.name:
            return self._framed(batch)
        if shared.at != at:
            shared.chunk = self._framed(batch)
            shared.at = at
        return shared.chunk

    def _framed(self, batch: list[Event]) -> bytes:
        lines = self.encoded(self._watcher.select(batch))
        return framed(lines) if lines else b""
