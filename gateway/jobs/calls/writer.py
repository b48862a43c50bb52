"""A thread that owns one SQLite connection and commits in groups.

What was submitted while the last commit ran goes into the next one: no timer, so a lone write waits for nothing and a crowd
shares the disk's flush. Each operation has a savepoint of its own: one that fails takes nothing of the others' with it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.jobs.calls.base import CallsClosed, CallsUnavailable

__all__ = ["Writer"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
LARGEST_GROUP = 512


class _Job:
    __slots__ = ("error", "future", "operation", "result")

    def __init__(self, operation: Operation, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs operations on `connection`, each exactly once, in order of submission, durable before they are answered."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="calls-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """The operation's answer, once what it wrote is durable. Its own exceptions are raised here and undo it alone."""
        job = _Job(operation, self._loop.create_future())
        with self._wake:
            if self._closing:
                raise CallsClosed("the queue of calls was closed")
            self._jobs.append(job)
            self._wake.notify()
        # A caller that is cancelled doesn't undo what was submitted.
        result: T = await asyncio.shield(job.future)
        return result

    async def close(self) -> None:
        """What was submitted is done first."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._closing:
                    self._wake.wait()
                group = [self._jobs.popleft() for _ in range(min(len(self._jobs), LARGEST_GROUP))]
            if not group:
                break
            self._commit(group)
            self._loop.call_soon_threadsafe(_answer, group)
        self._connection.close()

    def _commit(self, group: list[_Job]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in group:
                self._apply(job)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("a commit of %d operations failed: %s", len(group), error)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for job in group:
                job.error = CallsUnavailable(f"the calls database can't be written: {error}")

    def _apply(self, job: _Job) -> None:
        self._connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(self._connection)
        except sqlite3.OperationalError:
            raise  # the disk, not the operation: nothing of this group can be trusted to be written
        except Exception as error:
            job.error = error
            self._connection.execute("ROLLBACK TO operation")
        self._connection.execute("RELEASE operation")


def _answer(group: list[_Job]) -> None:
    for job in group:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
