"""Inserts, handed to the queue together: what is accepted while one insert is written goes into the next.

A lone call waits for nothing; a crowd shares a commit (or a round trip), and the work on the event loop that each costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from gateway.jobs.calls.base import CallsError, Inserted, NewCall

__all__ = ["Batch", "Done"]

LARGEST = 512

Done = Callable[[Inserted | Exception], None]
"""What is told once a call is durable, or why it isn't."""


class Batch:
    """`insert` is the queue's: all or nothing, an answer for each."""

    def __init__(self, insert: Callable[[Sequence[NewCall]], Awaitable[list[Inserted]]]) -> None:
        self._insert_all = insert
        self._waiting: list[tuple[NewCall, Done]] = []
        self._task: asyncio.Task[None] | None = None

    async def insert(self, call: NewCall) -> Inserted:
        """As the queue's insert of this call alone."""
        answer: asyncio.Future[Inserted] = asyncio.get_running_loop().create_future()

        def done(found: Inserted | Exception) -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self.add([(call, done)])
        return await answer

    def add(self, calls: Iterable[tuple[NewCall, Done]]) -> None:
        """Insert these with what else comes now; each is told alone."""
        self._waiting += calls
        if self._task is None and self._waiting:
            self._task = asyncio.create_task(self._run(), name="accepting calls")

    async def stop(self) -> None:
        """What was handed in is answered first."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
                await self._insert(group)
        finally:
            self._task = None

    async def _insert(self, group: list[tuple[NewCall, Done]]) -> None:
        answers: Sequence[Inserted | Exception]
        try:
            answers = await self._insert_all([call for call, _ in group])
        except CallsError as error:
            if len(group) > 1:
                for each in group:  # one of them is at fault, or all will be told
                    await self._insert([each])
                return
            answers = [error]
        except Exception as error:
            answers = [error] * len(group)
        for (_, done), answer in zip(group, answers, strict=True):
            done(answer)
