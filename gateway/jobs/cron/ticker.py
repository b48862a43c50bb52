"""The cron loop: sleeps to the next firing, claims what is due by inserting it, and tells the dispatcher.

To claim an instant *is* to insert its call record, under (namespace, function, cron, instant), in one transaction with the trigger's
mark: a crash before it leaves the instant due, a crash after it leaves the call queued, and a second claim finds it there.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from core import clock as clocks
from gateway.jobs.calls.base import CRON, Calls, CallsError, CronKey, Inserted, Mark, NewCall, Options, Request
from gateway.jobs.calls.sender import Gate
from gateway.jobs.cron.alarm import Alarm
from gateway.jobs.cron.planner import GRACE, Due, Plan, next_fire, offset, plan
from gateway.jobs.functions import CronTrigger
from gateway.jobs.histogram import Histogram

__all__ = ["Ticker", "call_of"]

log = logging.getLogger(__name__)

TROUBLE = 1.0
ARMED = 1.0
"""Seconds before its instant that a call is recorded, where nothing stands in its way, and its request made ready."""
AHEAD = 20
"""Triggers whose coming instants are worked out between two turns of the event loop."""

_encode = msgspec.json.Encoder().encode


Insert = Callable[[Sequence[NewCall], Mapping[CronKey, Mark]], Awaitable[list[Inserted]]]
Arm = Callable[[Sequence[tuple[NewCall, CronKey, Mark]], Gate], Awaitable[set[str]]]


class Ticker:
    """Fires the triggers that it was told of. `inserted` hears that calls were inserted, `canceled` of those they replaced.

    `insert` (of `calls`, where it isn't given) records them, `arm` records some of them ahead of time. `clock` gives seconds since the epoch. Functions are told of by `set` and
    `remove`, and counted only from `start` on. What a trigger fires next, and when it fires after that, is worked out ahead of time: at the
    instant nothing is left to do but to write.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        inserted: Callable[[], None],
        canceled: Callable[[Iterable[str]], None],
        clock: Callable[[], float] = clocks.wall,
        insert: Insert | None = None,
        arm: Arm | None = None,
    ) -> None:
        self._calls = calls
        self._insert = insert
        self._arm = arm
        self._armed: dict[CronKey, tuple[Gate, str]] = {}
        """Triggers whose next call is recorded already: it goes when the gate opens."""
        self._tried: dict[CronKey, float] = {}
        """The instants that could not be armed."""
        self._inserted = inserted
        self._canceled = canceled
        self._clock = clock
        self._triggers: dict[CronKey, CronTrigger] = {}
        self._marks: dict[CronKey, Mark] = {}
        self._fires: dict[CronKey, float] = {}
        self._ahead: dict[CronKey, tuple[float, float]] = {}
        """The next instant of a trigger, and when the one after it fires."""
        self._changed: set[CronKey] = set()
        self._gone: set[CronKey] = set()
        self._wake = asyncio.Event()
        self.fired: Counter[str] = Counter()
        """Instants that were recorded, by the status that their record began with."""
        self.lateness = Histogram()
        """Seconds from when an instant was to fire to its durable record."""
        self._task: asyncio.Task[None] | None = None
        self._alarm: Alarm | None = None

    async def start(self) -> None:
        await self.load()
        self._armed.clear()
        self._alarm = Alarm(self._wake.set)
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
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def set(self, namespace: str, function: str, triggers: Iterable[CronTrigger]) -> None:
        """These are all the triggers of that Function now."""
        new = {each.key: each for each in triggers}
        for key in [each for each in self._triggers if each[:2] == (namespace, function) and each not in new]:
            self._drop(key)
        for key, trigger in new.items():
            if self._triggers.get(key) != trigger:
                self._triggers[key] = trigger
                self._ahead.pop(key, None)
                self._gone.discard(key)
                self._changed.add(key)
        self._wake.set()

    def remove(self, namespace: str, function: str) -> None:
        """That Function is gone."""
        self.set(namespace, function, ())

    def _drop(self, key: CronKey) -> None:
        del self._triggers[key]
        self._fires.pop(key, None)
        self._ahead.pop(key, None)
        self._changed.discard(key)
        self._gone.add(key)

    def trigger(self, key: CronKey) -> CronTrigger | None:
        return self._triggers.get(key)

    @property
    def count(self) -> int:
        return len(self._triggers)

    def upcoming(self) -> list[tuple[CronTrigger, float | None]]:
        """Every trigger and when it fires next (None: paused, or never again)."""
        found: list[tuple[CronTrigger, float | None]] = []
        for key, trigger in sorted(self._triggers.items()):
            if key in self._armed:
                found.append((trigger, self._armed[key][0].at))
                continue
            mark = self._marks.get(key)
            found.append((trigger, next_fire(trigger, max(self._clock(), mark.through if mark else 0.0))))
        return found

    async def step(self) -> float | None:
        """Claim what is due now; returns when the next trigger fires. Raises `CallsError` with nothing claimed."""
        now = self._clock()
        self._open_gates(now)
        await self._withdraw()
        if self._gone:
            gone = list(self._gone)
            await self._calls.forget(gone)
            self._gone.difference_update(gone)
            for key in gone:
                self._marks.pop(key, None)
        keys = self._changed | {key for key, at in self._fires.items() if at <= now}
        planned = {key: self._triggers[key] for key in sorted(keys)}
        found = self._plan(planned, now)
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
        return min((*self._fires.values(), *(each.at for each, _ in self._armed.values())), default=None)

    def _open_gates(self, now: float) -> None:
        for key, (gate, _) in list(self._armed.items()):
            if gate.at <= now:
                gate.open()
                del self._armed[key]

    async def _withdraw(self) -> None:
        """Calls that were recorded ahead, of triggers that were deleted or have another schedule now."""
        for key, (_, call) in list(self._armed.items()):
            trigger, mark = self._triggers.get(key), self._marks.get(key)
            if trigger is None or mark is None or (mark.uid, mark.fingerprint) != (trigger.uid, trigger.fingerprint):
                del self._armed[key]
                await self._calls.cancel(call, "its trigger was changed before its instant", self._clock())
                self._canceled([call])

    async def arm(self) -> float | None:
        """Record what fires within `ARMED` seconds ahead of time; returns when to do so again."""
        if self._arm is None:
            return None
        now = self._clock()
        soon: dict[float, list[tuple[NewCall, CronKey, Mark]]] = {}
        later: float | None = None
        for key, fires in self._fires.items():
            if key in self._changed or key in self._armed or key not in self._ahead or self._tried.get(key) == fires:
                continue
            mark = self._marks.get(key)
            if mark is None or fires <= now:
                continue
            if fires - ARMED > now:
                later = min(later or fires - ARMED, fires - ARMED)
                continue
            instant = self._ahead[key][0]
            call = call_of(Due(self._triggers[key], instant), fires)
            soon.setdefault(fires, []).append((call, key, mark._replace(through=instant)))
        for fires, calls in soon.items():
            gate = Gate(fires)
            armed = await self._arm(calls, gate)
            for call, key, mark in calls:
                if call.id not in armed:
                    self._tried[key] = fires
                    continue
                self._marks[key] = mark
                self._armed[key] = (gate, call.id)
                self.fired["Queued"] += 1
                self._tried.pop(key, None)
                ahead = self._ahead.pop(key, None)
                if self._fires.get(key) == fires and ahead is not None:
                    self._fires[key] = ahead[1]
        return later

    def _plan(self, triggers: Mapping[CronKey, CronTrigger], now: float) -> Plan:
        """As the planner's, without its work for triggers whose one due instant was worked out ahead."""
        rest: list[CronTrigger] = []
        quick = Plan([], {}, {})
        for key, trigger in triggers.items():
            ahead, mark = self._ahead.pop(key, None), self._marks.get(key)
            if ahead is None or mark is None or key in self._changed or not mark.through < ahead[0]:
                rest.append(trigger)
                continue
            instant, following = ahead
            if not now - GRACE < instant + offset(trigger) <= now < following:
                rest.append(trigger)
                continue
            quick.due.append(Due(trigger, instant))
            quick.marks[key] = mark._replace(through=instant)
            quick.fires[key] = following
        if not rest:
            return quick
        slow = plan(rest, self._marks, now)
        due = sorted((*quick.due, *slow.due), key=lambda each: each.instant)
        return Plan(due, quick.marks | slow.marks, quick.fires | slow.fires)

    async def _prepare(self, wake: float | None) -> None:
        """What can be done before the alarm rings. It is not cancelled in the middle of recording: `_run` waits for it."""
        assert self._alarm is not None
        await self._look_ahead()
        try:
            again = await self.arm()
        except CallsError as error:
            log.info("cron could not work ahead, it will be on time: %s", error)
            return
        times = [
            each
            for each in (wake, again, *self._fires.values(), *(gate.at for gate, _ in self._armed.values()))
            if each is not None
        ]
        self._alarm.set(min(times, default=None))

    async def _look_ahead(self) -> None:
        """Work out what isn't yet, a few triggers at a time."""
        missing = [key for key in self._fires if key not in self._ahead]
        for at in range(0, len(missing), AHEAD):
            for key in missing[at : at + AHEAD]:
                trigger, fires = self._triggers.get(key), self._fires.get(key)
                if trigger is None or fires is None or key in self._changed:
                    continue
                instant = fires - offset(trigger)
                following = next_fire(trigger, instant)
                if following is not None:
                    self._ahead[key] = (instant, following)
            if self._wake.is_set():
                return
            await asyncio.sleep(0.001 if len(missing) > AHEAD else 0)

    async def _claim(self, found: Plan, now: float) -> None:
        insert = self._insert or self._calls.insert
        answers = await insert([call_of(due, now) for due in found.due], found.marks)
        self._marks.update(found.marks)
        done = self._clock()
        for due, answer in zip(found.due, answers, strict=True):
            if answer.status:
                self.fired[answer.status] += 1
                if not due.skip:
                    self.lateness.add(done - due.instant - offset(due.trigger))
        if canceled := [each for answer in answers for each in answer.canceled]:
            self._canceled(canceled)
        if answers:
            self._inserted()

    async def _run(self) -> None:
        assert self._alarm is not None
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
            self._alarm.set(wake)
            looking = asyncio.create_task(self._prepare(wake), name="cron ahead")
            try:
                await self._wake.wait()
                self._open_gates(self._clock())
                await asyncio.wait([looking])
            finally:
                looking.cancel()
                await asyncio.wait([looking])


_KEPT, _NOT_KEPT = Options(dead_letter=True), Options()


def call_of(due: Due, now: float) -> NewCall:
    """The call that an instant is."""
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
        retries=trigger.retries,
        max_age=trigger.max_age,
        options=_KEPT if trigger.dead_letter else _NOT_KEPT,
        request=Request(
            trigger.method,
            path,
            query,
            (("Content-Type", "application/json"),) if has_payload else (),
            _encode(trigger.payload) if has_payload else b"",
        ),
    )
