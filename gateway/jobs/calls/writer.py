"""One SQLite connection, written on the event loop and flushed by a thread: commits in groups.

What was submitted while the last commit ran goes into the next one: no timer, so a lone write waits for nothing and a crowd
shares the disk's flush. Only what blocks is done in the thread, which is the commit. Statements take microseconds each, and a thread would
ask for the interpreter after every one of them, and get it from a busy event loop once in a switch interval.

Each operation has a savepoint of its own: one that fails takes nothing of the others' with it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from gateway.jobs.calls.base import CallsClosed, CallsUnavailable

__all__ = ["Writer"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
SLICE = 0.004
"""Seconds of statements that go into one commit, about: other work of the event loop waits no longer."""


class _Job:
    __slots__ = ("error", "future", "operation", "result", "single", "slow")

    def __init__(self, operation: Operation, future: asyncio.Future[Any], single: bool, slow: bool) -> None:
        self.operation = operation
        self.future = future
        self.single = single
        self.slow = slow
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs operations on `connection`, each exactly once, in order of submission, durable before they are answered."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, "calls-commit")
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def run(self, operation: Callable[[sqlite3.Connection], T], *, single: bool = False, slow: bool = False) -> T:
        """The operation's answer, once what it wrote is durable. Its own exceptions are raised here and undo it alone.

        `single`: it is one statement, which SQLite itself undoes where it fails. `slow`: it may take long, and is done in the thread.
        """
        if self._closing:
            raise CallsClosed("the queue of calls was closed")
        job = _Job(operation, self._loop.create_future(), single, slow)
        self._jobs.append(job)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._begin)
        result: T = await job.future  # a caller that is cancelled doesn't undo what was submitted
        return result

    async def close(self) -> None:
        """What was submitted is done first."""
        self._closing = True
        await self._idle.wait()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    def _begin(self) -> None:
        """One group, from its first statement to where its commit is handed over."""
        group: list[_Job] = []
        if self._jobs[0].slow:
            group.append(self._jobs.popleft())
            commit = self._thread.submit(self._write, group)
        else:
            until = monotonic() + SLICE
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                while self._jobs and not self._jobs[0].slow and (not group or monotonic() < until):
                    group.append(self._jobs.popleft())
                    self._apply(group[-1])
            except sqlite3.Error as error:
                group = group or [self._jobs.popleft()]
                self._failed(group, error)
                self._end(group)
                return
            commit = self._thread.submit(self._commit, group)
        commit.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._end, group))

    def _end(self, group: list[_Job]) -> None:
        """What was written is durable (or undone): the answers, and the next group."""
        if self._jobs:
            self._loop.call_soon(self._begin)
        else:
            self._busy = False
            self._idle.set()
        for job in group:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

    def _write(self, group: list[_Job]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in group:
                self._apply(job)
        except sqlite3.Error as error:
            self._failed(group, error)
            return
        self._commit(group)

    def _commit(self, group: list[_Job]) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(group, error)

    def _failed(self, group: list[_Job], error: sqlite3.Error) -> None:
        log.error("a commit of %d operations failed: %s", len(group), error)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        for job in group:
            job.error = CallsUnavailable(f"the calls database can't be written: {error}")

    def _apply(self, job: _Job) -> None:
        if not job.single:
            self._connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(self._connection)
        except sqlite3.OperationalError:
            raise  # the disk, not the operation: nothing of this group can be trusted to be written
        except Exception as error:
            job.error = error
            if not job.single:
                self._connection.execute("ROLLBACK TO operation")
        if not job.single:
            self._connection.execute("RELEASE operation")
