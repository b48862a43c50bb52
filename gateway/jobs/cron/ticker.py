"""The cron loop: sleeps to the next firing, claims what is due by inserting it, and tells the dispatcher.

To claim an instant *is* to insert its call record, under (namespace, function, cron, instant), in one transaction with the trigger's
mark: a crash before it leaves the instant due, a crash after it leaves the call queued, and a second claim finds it there.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable

import msgspec

from core import clock as clocks
from gateway.jobs.calls.base import CRON, Calls, CallsError, CronKey, Mark, NewCall, Request
from gateway.jobs.cron.planner import Due, Plan, next_fire, plan
from gateway.jobs.functions import CronTrigger

__all__ = ["Ticker"]

log = logging.getLogger(__name__)

LONGEST_SLEEP = 60.0
"""Seconds: the wall clock may be set, or the machine suspended, while the timer counts on."""
TROUBLE = 1.0

_encode = msgspec.json.Encoder().encode


class Ticker:
    """Fires the triggers that it was told of. `started` hears of calls that were inserted, `canceled` of those they replaced.

    `clock` gives seconds since the epoch. Functions are told of by `set` and `remove`, and counted only from `start` on.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        inserted: Callable[[], None],
        canceled: Callable[[Iterable[str]], None],
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        self._calls = calls
        self._inserted = inserted
        self._canceled = canceled
        self._clock = clock
        self._triggers: dict[CronKey, CronTrigger] = {}
        self._marks: dict[CronKey, Mark] = {}
        self._fires: dict[CronKey, float] = {}
        self._changed: set[CronKey] = set()
        self._gone: set[CronKey] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.load()
        self._task = asyncio.create_task(self._run(), name="cron")

    async def load(self) -> None:
        """Read the marks. Those of Functions that are gone stay until their names are used again: they cost a row."""
        self._marks = await self._calls.marks()
        self._changed |= self._triggers.keys()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def set(self, namespace: str, function: str, triggers: Iterable[CronTrigger]) -> None:
        """These are all the triggers of that Function now."""
        new = {each.key: each for each in triggers}
        for key in [each for each in self._triggers if each[:2] == (namespace, function) and each not in new]:
            self._drop(key)
        for key, trigger in new.items():
            if self._triggers.get(key) != trigger:
                self._triggers[key] = trigger
                self._gone.discard(key)
                self._changed.add(key)
        self._wake.set()

    def remove(self, namespace: str, function: str) -> None:
        """That Function is gone."""
        self.set(namespace, function, ())

    def _drop(self, key: CronKey) -> None:
        del self._triggers[key]
        self._fires.pop(key, None)
        self._changed.discard(key)
        self._gone.add(key)

    @property
    def count(self) -> int:
        return len(self._triggers)

    def upcoming(self) -> list[tuple[CronTrigger, float | None]]:
        """Every trigger and when it fires next (None: paused, or never again)."""
        found = []
        for key, trigger in sorted(self._triggers.items()):
            mark = self._marks.get(key)
            found.append((trigger, next_fire(trigger, max(self._clock(), mark.through if mark else 0.0))))
        return found

    async def step(self) -> float | None:
        """Claim what is due now; returns when the next trigger fires. Raises `CallsError` with nothing claimed."""
        now = self._clock()
        if self._gone:
            gone = list(self._gone)
            await self._calls.forget(gone)
            self._gone.difference_update(gone)
            for key in gone:
                self._marks.pop(key, None)
        keys = self._changed | {key for key, at in self._fires.items() if at <= now}
        planned = {key: self._triggers[key] for key in sorted(keys)}
        found = plan(planned.values(), self._marks, now)
        # From here on an edit of these triggers counts as new, or it would be lost while the insert runs.
        self._changed -= keys
        if found.due or found.marks:
            try:
                await self._claim(found, now)
            except BaseException:
                self._changed |= keys & self._triggers.keys()
                raise
        for key, trigger in planned.items():
            if self._triggers.get(key) is trigger:
                self._fires.pop(key, None)
                if key in found.fires:
                    self._fires[key] = found.fires[key]
        if self._changed or self._gone:
            return now
        return min(self._fires.values(), default=None)

    async def _claim(self, found: Plan, now: float) -> None:
        answers = await self._calls.insert([_call(due, now) for due in found.due], found.marks)
        self._marks.update(found.marks)
        if canceled := [each for answer in answers for each in answer.canceled]:
            self._canceled(canceled)
        if answers:
            self._inserted()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                wake = await self.step()
            except CallsError as error:
                log.warning("cron could not claim what is due: %s", error)
                wake = self._clock() + TROUBLE
            except Exception:
                log.exception("cron failed")
                wake = self._clock() + TROUBLE
            timer = None
            if wake is not None:
                timer = loop.call_later(min(max(wake - self._clock(), 0.0), LONGEST_SLEEP), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()


def _call(due: Due, now: float) -> NewCall:
    trigger = due.trigger
    has_payload = trigger.payload is not None
    path, _, query = trigger.path.partition("?")
    return NewCall(
        id=uuid.uuid4().hex,
        namespace=trigger.namespace,
        function=trigger.function,
        trigger=CRON,
        cron=trigger.name,
        scheduled_at=due.instant,
        accepted_at=now,
        overlap=trigger.overlap,
        skip=due.skip,
        request=Request(
            trigger.method,
            path,
            query,
            (("Content-Type", "application/json"),) if has_payload else (),
            _encode(trigger.payload) if has_payload else b"",
        ),
    )
