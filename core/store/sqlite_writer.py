"""The writer thread of the SQLite store: commits all that arrived while the last commit ran, and compacts in between.

There is no timer and no window: the time that a commit takes is what gathers the next batch. The event loop hears of a
commit by one `call_soon_threadsafe`, however many writes were in it.

A few writes on a quiet store don't take that way: between two threads of Python each step waits for the interpreter, which costs more
than such a commit does. The event loop then commits by itself, as long as the disk is fast and the thread has nothing to do.

A commit begins a few turns of the event loop after the last write, not in the very next one: a write of a controller makes the next controller
write (scale, Pod, binding), and such a cascade is on the disk with one commit instead of one each. A turn of a loop with nothing to do
takes microseconds; one that is busy doesn't put a commit off for long, as the time is bounded too.

Soft writes alone are in no hurry: nobody waits for them, as watches hear of them before. They go with the next hard write, or when somebody
asks for them to be durable, or some hundredths of a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Protocol

from core.clock import monotonic
from core.store.base import Event
from core.store.sqlite_log import SqliteLog

__all__ = ["LogWriter", "Outcome"]

log = logging.getLogger(__name__)

HERE_MOST = 4
"""Writes that the event loop commits by itself, soft ones not counted."""
HERE_ROWS = 32
"""And so many, soft ones counted as well: more than these are long in the writing."""
HERE_SECONDS = 0.001
SLOW_COMMITS = 16
"""After a commit that took longer, the next ones are the thread's, until so many were quick: the disk may be a slow one."""
QUIET_TURNS = 4
"""Turns of the event loop without a write that end a cascade: between a write and the one that it leads to there are up to three."""
GATHER_SECONDS = 0.005
"""So long a commit is put off at most, counted from the first write that waits for it."""
SOFT_SECONDS = 0.05
"""So long soft writes wait for a hard one to go with."""


class Outcome(Protocol):
    """What the writer tells; each is called on the event loop."""

    def committed(self, events: list[Event]) -> None: ...

    def compacted(self, floor: int) -> None: ...

    def failed(self, error: Exception) -> None:
        """Nothing is written any more, nothing that wasn't told as committed may be relied on."""

    def closed(self, error: Exception | None) -> None:
        """The file is released; `error` where it wasn't left as it should be."""


class LogWriter:
    """Owns `log` from `start` on. `submit`, `compact` and `close` are called on the event loop and don't wait."""

    def __init__(self, log: SqliteLog, outcome: Outcome) -> None:
        self._log = log
        self._outcome = outcome
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pending: list[Event] = []
        self._hard = 0
        """How many of what is pending aren't soft."""
        self._compact_to = 0
        self._closing = False
        self._revision = 0
        self._database = threading.Lock()
        self._taken = 0
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._seen = self._quiet = 0
        self._slow = 0
        self._broken: Exception | None = None

    @property
    def reserved(self) -> int:
        """Revisions up to this one may be handed out."""
        return self._log.reserved

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Begin; what there is to tell goes to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, event: Event, *, soft: bool = False) -> None:
        with self._lock:
            self._pending.append(event)
            self._hard += not soft
        if not soft:
            self.hurry()
        elif self._turn is None and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(SOFT_SECONDS, self.hurry)

    def hurry(self) -> None:
        """Commit what is pending, soft writes too: somebody waits for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._turn is None and self._loop is not None:
            self._since, self._seen, self._quiet = monotonic(), 0, 0
            self._turn = self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Once per turn of the event loop while something waits: commit it when the cascade that it belongs to is over."""
        waiting = len(self._pending)
        if waiting != self._seen:
            self._seen, self._quiet = waiting, 0
        else:
            self._quiet += 1
        if (
            self._hard <= HERE_MOST
            and self._quiet < QUIET_TURNS
            and monotonic() - self._since < GATHER_SECONDS
            and self._loop is not None
        ):
            self._turn = self._loop.call_soon(self._gather)
            return
        self._turn = None
        if not self._commit_here() and not self._wake.is_set():
            self._wake.set()

    def _commit_here(self) -> bool:
        """Commit what is pending on the event loop; False where the thread is to do it.

        Commits are told in their order: not while the thread has one that the event loop hasn't heard of yet.
        """
        if self._slow:
            return False
        if (
            self._hard > HERE_MOST
            or len(self._pending) > HERE_ROWS
            or self._closing
            or not self._database.acquire(blocking=False)
        ):
            return False
        try:
            with self._lock:
                if self._taken or self._broken is not None:
                    return False
                events, self._pending, self._hard = self._pending, [], 0
            if not events:
                return True
            began = monotonic()
            try:
                self._log.commit(events)
            except Exception as error:
                self._broken = error  # the thread has the store fail, as where its own commit does
                return False
            if monotonic() - began > HERE_SECONDS:
                self._slow = SLOW_COMMITS
        finally:
            self._database.release()
        self._outcome.committed(events)
        return True

    def _heard(self, events: list[Event], seconds: float) -> None:
        self._taken -= 1
        if self._slow:
            self._slow = self._slow - 1 if seconds <= HERE_SECONDS else SLOW_COMMITS
        self._outcome.committed(events)

    def compact(self, upto: int) -> None:
        with self._lock:
            self._compact_to = max(self._compact_to, upto)
        self._wake.set()

    def close(self, revision: int) -> None:
        """Commit what is pending, release the file, end the thread. `revision` is the last that was handed out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            self._closing = True
            self._revision = revision
        self._wake.set()

    def join(self) -> None:
        """Wait for the thread, after `closed` was told."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            while self._round():
                pass
        except Exception as error:
            failure = error
            log.exception("%s: the log can't be written", self._log.path)
            self._tell(self._outcome.failed, error)
            self._wait_for_close()
        try:
            self._log.close(None if failure is not None else self._revision)
        except (sqlite3.Error, OSError) as error:
            failure = failure or error
        self._tell(self._outcome.closed, failure)

    def _round(self) -> bool:
        """Write what is there to write; False when there will be no more."""
        self._wake.wait()
        with self._lock:
            self._wake.clear()
            events, self._pending, self._hard = self._pending, [], 0
            self._taken += bool(events)
            closing, compact_to = self._closing, self._compact_to
        if self._broken is not None:
            raise self._broken
        if events:
            began = monotonic()
            with self._database:
                self._log.commit(events)
            self._tell(self._heard, events, monotonic() - began)
        if closing:
            return False
        # A window of it at a time, so that the next commit waits little.
        if compact_to > self._log.floor:
            with self._database:
                more = self._log.forget(compact_to)
            if more:
                self._wake.set()
            self._tell(self._outcome.compacted, self._log.floor)
        return True

    def _wait_for_close(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._wake.clear()

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        # A loop that was closed with the store open has nobody left to hear it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)
