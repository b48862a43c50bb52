"""The writer thread of the SQLite store: commits all that arrived while the last commit ran, and compacts in between.

There is no timer and no window: the time that a commit takes is what gathers the next batch. The event loop hears of a
commit by one `call_soon_threadsafe`, however many writes were in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Protocol

from core.store.base import Event
from core.store.sqlite_log import SqliteLog

__all__ = ["LogWriter", "Outcome"]

log = logging.getLogger(__name__)


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
        self._compact_to = 0
        self._closing = False
        self._revision = 0

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

    def submit(self, event: Event) -> None:
        with self._lock:
            self._pending.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def compact(self, upto: int) -> None:
        with self._lock:
            self._compact_to = max(self._compact_to, upto)
        self._wake.set()

    def close(self, revision: int) -> None:
        """Commit what is pending, release the file, end the thread. `revision` is the last that was handed out."""
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
            events, self._pending = self._pending, []
            closing, compact_to = self._closing, self._compact_to
        if events:
            self._log.commit(events)
            self._tell(self._outcome.committed, events)
        if closing:
            return False
        # A window of it at a time, so that the next commit waits little.
        if compact_to > self._log.floor:
            if self._log.forget(compact_to):
                self._wake.set()
            self._tell(self._outcome.compacted, self._log.floor)
        return True

    def _wait_for_close(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._wake.clear()

    def _tell(self, what: Callable[..., None], argument: object) -> None:
        assert self._loop is not None
        # A loop that was closed with the store open has nobody left to hear it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, argument)
