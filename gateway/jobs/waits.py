"""Requests that wait for the end of a call (long polling): told by the queue, whichever process ended it."""

from __future__ import annotations

import asyncio

from gateway.jobs.calls.base import QUEUED, RUNNING, CallRecord, Calls

__all__ = ["Waits"]


class Waits:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: dict[str, set[asyncio.Event]] = {}
        calls.listen(self._heard)

    async def ended(self, call: str, timeout: float) -> CallRecord | None:
        """The record once the call has ended, or as it is after `timeout` seconds; None where there is no such call."""
        told = asyncio.Event()
        self._waiting.setdefault(call, set()).add(told)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    told.clear()
                    record = await self._calls.get(call)
                    if record is None or record.status not in (QUEUED, RUNNING):
                        return record
                    await told.wait()
        except TimeoutError:
            return await self._calls.get(call)
        finally:
            events = self._waiting[call]
            events.discard(told)
            if not events:
                del self._waiting[call]

    def _heard(self, kind: str, call: str) -> None:
        if kind == "ended":
            for each in self._waiting.get(call, ()):
                each.set()
        elif kind == "changed":
            for events in self._waiting.values():
                for each in events:
                    each.set()
