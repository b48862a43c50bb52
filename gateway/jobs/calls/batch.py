"""Single inserts, handed to the queue together: what is accepted while one insert is written goes into the next.

A lone call waits for nothing; a crowd shares a commit (or a round trip), and the work on the event loop that each costs.
"""

from __future__ import annotations

import asyncio

from gateway.jobs.calls.base import Calls, CallsError, Inserted, NewCall

__all__ = ["Batch"]

LARGEST = 256


class Batch:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: list[tuple[NewCall, asyncio.Future[Inserted]]] = []
        self._task: asyncio.Task[None] | None = None

    async def insert(self, call: NewCall) -> Inserted:
        """As `Calls.insert` of this call alone."""
        answer: asyncio.Future[Inserted] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="accepting calls")
        return await answer

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

    async def _insert(self, group: list[tuple[NewCall, asyncio.Future[Inserted]]]) -> None:
        try:
            answers = await self._calls.insert([call for call, _ in group])
        except CallsError as error:
            if len(group) == 1:
                _fail(group[0][1], error)
                return
            for each in group:  # one of them is at fault, or all will be told
                await self._insert([each])
        except Exception as error:
            for _, future in group:
                _fail(future, error)
        else:
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(future: asyncio.Future[Inserted], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
