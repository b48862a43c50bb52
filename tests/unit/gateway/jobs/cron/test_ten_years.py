"""Ten years of instants in several zones, against a model that shares nothing with the planner.

The model walks through real time by the minute: it needs no rule for gaps and repeats but the stated one. A wall time that is skipped counts at the
first real minute after it, one that comes twice counts the first time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faaslite.api.schedule import parse
from gateway.jobs.calls.base import Mark
from gateway.jobs.cron.planner import GRACE, plan
from gateway.jobs.functions import CronTrigger

START, YEARS = datetime(2020, 1, 1, tzinfo=UTC), 10
ZONES = (
    "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu", "Africa/Casablanca", "Pacific/Apia",
)  # fmt: skip


@cache
def jumps(zone: str) -> tuple[tuple[float, int], ...]:
    """(instant, seconds by which the wall clock jumps) in these ten years, found by bisection of hours."""
    info, found = ZoneInfo(zone), []

    def offset(at: float) -> int:
        return int(datetime.fromtimestamp(at, info).utcoffset().total_seconds())  # type: ignore[union-attr]

    hour = int(START.timestamp())
    end = hour + YEARS * 366 * 86400
    while hour < end:
        if offset(hour) != offset(hour + 86400):
            low, high = hour, hour + 86400
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            found.append((float(high), offset(high) - offset(low)))
        hour += 86400
    return tuple(found)


def model(minute: int, hour: int, weekday: int | None, zone: str, first: float, last: float) -> list[float]:
    """The instants of `minute hour * * weekday` in (first, last], day by day."""
    info = ZoneInfo(zone)
    found = set()
    day = datetime.fromtimestamp(first, info).date() - timedelta(days=2)
    until = datetime.fromtimestamp(last, info).date() + timedelta(days=2)
    while day <= until:
        if weekday is None or day.isoweekday() % 7 == weekday:
            wall = datetime(day.year, day.month, day.day, hour, minute)
            naive = wall.replace(tzinfo=UTC).timestamp()
            offsets = {jump for at, _ in jumps(zone) for jump in (_before(at, info), _after(at, info))}
            offsets |= {_before(naive, info), _after(naive, info)}
            real = sorted(
                naive - each
                for each in offsets
                if datetime.fromtimestamp(naive - each, info).replace(tzinfo=None) == wall
            )
            # None: the clock never shows it; it counts where the clock has just jumped over it.
            gap = [at for at, by in jumps(zone) if by > 0 and at + _before(at, info) <= naive < at + _after(at, info)]
            found.add(real[0] if real else gap[0])
        day += timedelta(days=1)
    return sorted(each for each in found if first < each <= last)


def _before(at: float, info: ZoneInfo) -> int:
    return int(datetime.fromtimestamp(at - 1, info).utcoffset().total_seconds())  # type: ignore[union-attr]


def _after(at: float, info: ZoneInfo) -> int:
    return int(datetime.fromtimestamp(at, info).utcoffset().total_seconds())  # type: ignore[union-attr]


def fired(trigger: CronTrigger, first: float, last: float, step: float) -> list[float]:
    """What the planner runs when it is asked every `step` seconds, or as soon as it said."""
    marks = {trigger.key: Mark(trigger.uid, trigger.fingerprint, first)}
    found, now = [], first
    while now < last:
        planned = plan([trigger], marks, now)
        found += [each.instant for each in planned.due if not each.skip]
        marks |= planned.marks
        now = min(max(planned.wake or last, now + 0.001), now + step, last)
    planned = plan([trigger], marks, last)
    return found + [each.instant for each in planned.due if not each.skip]


@pytest.mark.parametrize("zone", ZONES)
def test_every_day_of_ten_years_around_the_jumps(zone):
    """Each hour and a half-hour of the days on which the clock jumps, and of their neighbours."""
    for at, _ in jumps(zone):
        first, last = at - 2 * 86400, at + 2 * 86400
        local = datetime.fromtimestamp(at, ZoneInfo(zone)).hour
        for hour in {(local + each) % 24 for each in (-2, -1, 0, 1)}:
            for minute in (0, 15, 45):
                trigger = CronTrigger(
                    namespace="d", function="f", name="n", uid="u", schedule=parse(f"{minute} {hour} * * *"), zone=zone
                )
                assert fired(trigger, first, last, 1e9) == model(minute, hour, None, zone, first, last), (
                    at,
                    hour,
                    minute,
                )


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    weekday=st.one_of(st.none(), st.integers(0, 6)),
    day=st.integers(0, YEARS * 365 - 30),
    span=st.integers(3, 25),
    sleep=st.sampled_from([GRACE - 1, 3600.0, 86400.0, 1e9]),
)
def test_any_weeks_of_ten_years(zone, minute, hour, weekday, day, span, sleep):
    """Whether the loop is on time or wakes more often than it must: each instant runs once."""
    first = (START + timedelta(days=day)).timestamp()
    last = first + span * 86400
    text = f"{minute} {hour} * * {'*' if weekday is None else weekday}"
    trigger = CronTrigger(namespace="d", function="f", name="n", uid="u", schedule=parse(text), zone=zone, missed="all")
    assert fired(trigger, first, last, max(sleep, 3600.0)) == model(minute, hour, weekday, zone, first, last)
