"""Which instants of a cron trigger are due, and when to look again. Pure: triggers, marks and `now` in, a plan out.

An *instant* is a time of the schedule; it *fires* at the instant plus the trigger's jitter, an offset that depends on its name alone, so
that triggers of one schedule spread, and each keeps its distance from run to run. A *mark* is the last instant that was decided on:
everything up to it was recorded, as a call or as skipped.

An instant is *missed* where it fired more than `GRACE` ago: the process was down. `missed: none` skips those; `last` runs the
newest of them unless one is due on time anyway; `all` runs them, the newest `BOUND` where there are more. Any number of
skipped instants of one trigger is told in one entry, that of the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.jobs.calls.base import CronKey, Mark
from gateway.jobs.functions import CronTrigger

__all__ = ["BOUND", "GRACE", "Due", "Plan", "next_fire", "offset", "plan", "starting_mark"]

GRACE = 10.0
"""Seconds that a firing may be late before it is missed."""
BOUND = 100
"""Missed instants that `missed: all` runs at most."""


class Due(NamedTuple):
    """An instant to record: to run, or (with `skip`, a reason) as skipped."""

    trigger: CronTrigger
    instant: float
    skip: str = ""


class Plan(NamedTuple):
    """`due` in the order of instants; `marks` to store with them, or alone; `fires` when each trigger fires next."""

    due: list[Due]
    marks: dict[CronKey, Mark]
    fires: dict[CronKey, float]

    @property
    def wake(self) -> float | None:
        """When to plan again."""
        return min(self.fires.values(), default=None)


def offset(trigger: CronTrigger) -> float:
    """Seconds in [0, jitter), the same each time for one trigger."""
    if trigger.jitter <= 0:
        return 0.0
    seed = hashlib.blake2b("/".join(trigger.key).encode(), digest_size=8).digest()
    return int.from_bytes(seed, "big") / 2**64 * trigger.jitter


def starting_mark(trigger: CronTrigger, mark: Mark | None, now: float) -> Mark:
    """The mark to plan from: the stored one where it is this trigger's, else one that begins now, or when its Function was made."""
    if mark is not None and (mark.uid, mark.fingerprint) == (trigger.uid, trigger.fingerprint):
        return mark
    same = mark is not None and mark.uid == trigger.uid
    since = now if same or trigger.since is None else min(trigger.since, now)
    return Mark(trigger.uid, trigger.fingerprint, since)


def next_fire(trigger: CronTrigger, through: float) -> float | None:
    """When the first instant after `through` fires."""
    instant = None if trigger.paused else trigger.schedule.next(through, trigger.zone)
    return None if instant is None else instant + offset(trigger)


def plan(triggers: Iterable[CronTrigger], marks: Mapping[CronKey, Mark], now: float) -> Plan:
    """What is due of these triggers at `now`. A trigger whose mark is not stored yet gets one, so that it counts from here on."""
    found = Plan([], {}, {})
    for trigger in triggers:
        stored = marks.get(trigger.key)
        mark = starting_mark(trigger, stored, now)
        due = [] if trigger.paused else _due(trigger, mark.through, now)
        if due:
            found.due.extend(due)
            mark = mark._replace(through=due[-1].instant)
        fires = next_fire(trigger, mark.through)
        if fires is not None:
            found.fires[trigger.key] = fires
        if mark != stored:
            found.marks[trigger.key] = mark
    found.due.sort(key=lambda each: each.instant)
    return found


def _due(trigger: CronTrigger, through: float, now: float) -> list[Due]:
    """Instants after `through` that have fired by `now`, oldest first."""
    last = now - offset(trigger)
    first = trigger.schedule.next(through, trigger.zone)
    if first is None or first > last:
        return []
    timely = list(_between(trigger, max(through, last - GRACE), last))
    missed, cut = _newest(trigger, through, last - GRACE)
    if trigger.missed == "all":
        run = missed[-BOUND:]
    elif trigger.missed == "last" and not timely:
        run = missed[-1:]
    else:
        run = []
    due = [Due(trigger, each) for each in run + timely]
    if skipped := missed[: len(missed) - len(run)]:
        due.insert(0, Due(trigger, skipped[-1], _told(len(skipped), cut)))
    return due


def _told(skipped: int, cut: bool) -> str:
    instants = "1 instant" if skipped == 1 else f"{skipped} instants"
    return f"missed: {'at least ' if cut else ''}{instants} passed while jobs was down"


def _between(trigger: CronTrigger, after: float, until: float) -> Iterator[float]:
    """The instants in (after, until]."""
    instant = trigger.schedule.next(after, trigger.zone)
    while instant is not None and instant <= until:
        yield instant
        instant = trigger.schedule.next(instant, trigger.zone)


def _newest(trigger: CronTrigger, after: float, until: float) -> tuple[list[float], bool]:
    """The newest `BOUND` + 1 instants in (after, until], oldest first, and whether there are older ones.

    It looks back from `until` in growing steps: years of a schedule by the second cost no more than minutes of it.
    """
    step = 64.0
    while True:
        start = max(after, until - step)
        found = list(_between(trigger, start, until))
        if start <= after or len(found) > BOUND:
            kept = found[-BOUND - 1 :]
            return kept, start > after or len(found) > len(kept)
        step *= 4
