"""The audit log's file: lines are gathered for a moment and written by a thread of their own, so that no request waits for a disk.

A crash of the process loses what was gathered in the last `DELAY` seconds; a crash of the machine also what the kernel hadn't written yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.apiserver.audit.events import Record, render
from core.clock import monotonic

__all__ = ["AuditLog"]

log = logging.getLogger(__name__)

DELAY = 0.2
"""Seconds that a line waits for others."""
BATCH = 500
"""Lines that are written without waiting longer."""
BOUND = 50_000
"""Lines that may wait for a disk which takes none; what comes then is lost, and counted."""
_COMPLAIN = 60.0


class AuditLog:
    """Appends to `path` (mode 0600). At `size` bytes the file becomes `path.1`, the one before `path.2`, and so on: `backups` of them are kept."""

    def __init__(self, path: Path, *, size: int = 64 << 20, backups: int = 8) -> None:
        self.lost = 0
        self._path = path
        self._limit, self._backups = size, backups
        self._waiting: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "audit")
        self._stopped = False
        self._descriptor = -1
        self._size = 0
        self._complained = 0.0

    def start(self) -> None:
        """Raises OSError where the file can't be written."""
        self._open()

    def add(self, record: Record) -> None:
        waiting = self._waiting
        if len(waiting) >= BOUND or self._stopped:
            self.lost += 1
            return
        waiting.append(record)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._flush)
        elif len(waiting) == BATCH:
            self._timer.cancel()
            self._flush()

    async def stop(self) -> None:
        """Write what waits and close the file; what comes later is lost."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        while self._writing is not None:
            await asyncio.wait((self._writing,))
        if self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _flush(self) -> None:
        """Hand over what waits; while a batch is being written the next one gathers."""
        self._timer = None
        if self._writing is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
        self._writing.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing = None
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("lines of the audit log are lost", exc_info=error)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._flush)

    # In the thread

    def _write(self, batch: Sequence[Record]) -> None:
        data = b"".join(map(render, batch))
        try:
            if self._descriptor < 0:
                self._open()
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            view = memoryview(data)
            while view:
                count = os.write(self._descriptor, view)
                self._size += count
                view = view[count:]
        except OSError as error:
            self.lost += len(batch)
            if monotonic() - self._complained > _COMPLAIN or not self._complained:
                self._complained = monotonic()
                log.error("%d lines of the audit log %s are lost: %s", self.lost, self._path, error.strerror or error)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(self._descriptor, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _rotate(self) -> None:
        self._close()
        for number in range(self._backups - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        if self._backups:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        else:
            self._path.unlink(missing_ok=True)
        self._open()
