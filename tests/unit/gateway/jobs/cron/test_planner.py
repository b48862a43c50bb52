"""The planner against a model that shares nothing with it: walls of minutes, one by one, in real zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faaslite.api.schedule import parse
from gateway.jobs.calls.base import Mark
from gateway.jobs.cron.planner import BOUND, GRACE, next_fire, offset, plan, starting_mark
from gateway.jobs.functions import CronTrigger

T0 = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


def trigger(schedule: str, **given) -> CronTrigger:
    values = {"namespace": "default", "function": "f", "name": "n", "uid": "u"}
    return CronTrigger(schedule=parse(schedule), **{**values, **given})


def mark(of: CronTrigger, through: float) -> dict:
    return {of.key: Mark(of.uid, of.fingerprint, through)}


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def model(minute: int, hour: int | None, zone: str, after: float, until: float) -> list[float]:
    """The instants of `minute hour * * *` in (after, until], by the stated rule, minute by minute of real time.

    With an hour: each date's wall time once; where the date skips it, the first minute after the gap; where it comes twice, the first.
    """
    info = ZoneInfo(zone)
    found: list[float] = []
    seen: set = set()
    moment = datetime.fromtimestamp(after - after % 60 - 2 * 86400, UTC)
    before = moment.astimezone(info).replace(tzinfo=None)
    while moment.timestamp() <= until:
        wall = moment.astimezone(info).replace(tzinfo=None)
        if hour is None:
            hits = [wall.replace(second=0)] if wall.minute == minute else []
        else:
            # Every wall minute that passed since the last real one: more than one where the clock jumped ahead.
            passed = [wall]
            if wall - before > timedelta(minutes=1):
                passed = [
                    before + timedelta(minutes=n) for n in range(1, int((wall - before).total_seconds() // 60) + 1)
                ]
            hits = [each for each in passed if (each.hour, each.minute) == (hour, minute) and each not in seen]
            seen.update(hits)
        if hits and moment.timestamp() > after:
            found.append(moment.timestamp())
        before = wall
        moment += timedelta(minutes=1)
    return found


ZONES = [
    "UTC",
    "Europe/Oslo",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/Sao_Paulo",
]
CHANGES = [at("2026-03-29T01:00:00"), at("2026-10-25T01:00:00"), at("2026-03-08T07:00:00"), at("2026-11-01T06:00:00"),
           at("2026-04-04T15:00:00"), at("2026-10-03T15:30:00"), T0]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from([0, 1, 29, 30, 59]),
    st.one_of(st.none(), st.sampled_from([0, 1, 2, 3, 23])),
    st.sampled_from(CHANGES),
    st.integers(-30 * 3600, 6 * 3600),
    st.integers(1, 30 * 3600),
)
def test_all_instants_of_an_outage_as_the_model_has_them(zone, minute, hour, change, begin, length):
    of = trigger(f"{minute} {'*' if hour is None else hour} * * *", zone=zone, missed="all")
    through = change + begin
    now = through + length
    found = plan([of], mark(of, through), now)
    assert [each.instant for each in found.due] == model(minute, hour, zone, through, now)
    assert not any(each.skip for each in found.due)
    expected_next = model(minute, hour, zone, now, now + 50 * 3600)[0]
    assert found.wake == expected_next


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    st.sampled_from(["* * * * *", "*/7 * * * *", "@every 5s", "@every 97s", "13 * * * *"]),
    st.sampled_from(["none", "last", "all"]),
    st.sampled_from([0.0, 45.0]),
)
def test_however_the_time_is_cut_no_instant_is_planned_twice(steps, schedule, missed, jitter):
    """Planning again and again with the marks that come back: instants only grow, and the wake-up is never late."""
    of = trigger(schedule, missed=missed, jitter=jitter)
    marks, now, instants = mark(of, T0), T0, []
    for step in steps:
        now += step
        found = plan([of], marks, now)
        instants += [each.instant for each in found.due]
        marks.update(found.marks)
        assert all(each.instant + offset(of) <= now for each in found.due)
        assert found.wake is not None and found.wake > now
    assert instants == sorted(set(instants))
    if missed == "all" and max(steps) < 60 and not jitter:
        schedule_of, expected, instant = parse(schedule), [], T0
        while (instant := schedule_of.next(instant)) <= now:
            expected.append(instant)
        assert instants == expected


def test_waking_when_it_says_fires_every_instant_on_time():
    of = trigger("@every 5s", missed="none")
    marks, now, fired = mark(of, T0), T0, []
    for _ in range(100):
        found = plan([of], marks, now)
        fired += [each.instant for each in found.due if not each.skip]
        marks.update(found.marks)
        now = found.wake
    assert fired == [T0 + 5 * n for n in range(1, 100)]


@pytest.mark.parametrize(
    ("missed", "run", "skipped"),
    [("none", [], [3]), ("last", [3], [2]), ("all", [1, 2, 3], [])],
)
def test_missed_hours(missed, run, skipped):
    of = trigger("0 * * * *", missed=missed)
    found = plan([of], mark(of, T0), T0 + 3.5 * 3600)
    assert [each.instant for each in found.due if not each.skip] == [T0 + 3600 * n for n in run]
    assert [each.instant for each in found.due if each.skip] == [T0 + 3600 * n for n in skipped]
    assert found.marks[of.key].through == T0 + 3 * 3600
    assert plan([of], found.marks, T0 + 3.5 * 3600).due == []


def test_one_that_is_on_time_makes_up_for_the_missed():
    of = trigger("0 * * * *", missed="last")
    found = plan([of], mark(of, T0), T0 + 3 * 3600 + GRACE - 1)
    assert [(each.instant, each.skip) for each in found.due] == [
        (T0 + 2 * 3600, "missed: 2 instants passed while jobs was down"),
        (T0 + 3 * 3600, ""),
    ]


def test_late_by_less_than_the_grace_is_not_missed():
    of = trigger("@every 1s", missed="none")
    found = plan([of], mark(of, T0), T0 + GRACE)
    assert [each.skip for each in found.due] == [""] * int(GRACE)


def test_a_long_outage_is_bounded_and_told_in_one_entry():
    of = trigger("@every 1s", missed="all")
    year = 365 * 86400
    found = plan([of], mark(of, T0), T0 + year)
    skipped = [each for each in found.due if each.skip]
    assert len(found.due) == BOUND + GRACE + 1
    assert [each.skip for each in skipped] == ["missed: at least 1 instant passed while jobs was down"]
    assert skipped[0].instant == T0 + year - GRACE - BOUND
    none = plan([trigger("@every 1s", missed="none")], mark(of, T0), T0 + year)
    assert [each.skip for each in none.due if each.skip] == [
        f"missed: at least {BOUND + 1} instants passed while jobs was down"
    ]


def test_jitter_is_the_same_each_time_and_differs_by_name():
    a, b = trigger("0 * * * *", jitter=600.0), trigger("0 * * * *", jitter=600.0, name="m")
    assert 0 <= offset(a) < 600 and offset(a) != offset(b)
    assert offset(trigger("5 4 * * *", jitter=600.0)) == offset(a)
    fires = T0 + 3600 + offset(a)
    assert next_fire(a, T0) == fires
    assert plan([a], mark(a, T0), fires - 0.01).due == []
    (due,) = plan([a], mark(a, T0), fires).due
    assert due.instant == T0 + 3600, "the instant is the schedule's, not the jittered one"


def test_paused_fires_nothing_and_what_passed_is_not_missed():
    running, paused = trigger("0 * * * *", missed="all"), trigger("0 * * * *", missed="all", paused=True)
    found = plan([paused], mark(running, T0), T0 + 1800)
    assert (found.due, found.fires) == ([], {})
    later = plan([paused], found.marks, T0 + 10 * 3600)
    assert later.marks == {}, "nothing to write while it rests"
    resumed = plan([running], found.marks, T0 + 10 * 3600 + 60)
    assert resumed.due == []
    assert resumed.wake == T0 + 11 * 3600


def test_where_a_trigger_begins():
    of = trigger("0 * * * *", since=T0 - 5000)
    now = T0
    assert starting_mark(of, None, now).through == T0 - 5000, "made while jobs was down"
    assert starting_mark(trigger("0 * * * *"), None, now).through == now
    assert starting_mark(trigger("0 * * * *", since=T0 + 99), None, now).through == now, "a clock that is ahead"
    stored = mark(of, T0 - 300)[of.key]
    assert starting_mark(of, stored, now) == stored
    assert starting_mark(trigger("5 * * * *", since=T0 - 5000), stored, now).through == now, "a changed schedule"
    assert starting_mark(trigger("0 * * * *", zone="Asia/Kolkata"), stored, now).through == now
    assert starting_mark(trigger("0 * * * *", uid="other"), stored, now).through == now, "made anew"


def test_many_triggers_are_planned_in_the_order_of_their_instants():
    first, second = trigger("30 * * * *", name="a"), trigger("10 * * * *", name="b")
    marks = {**mark(first, T0), **mark(second, T0)}
    found = plan([first, second], marks, T0 + 1800)
    assert [each.trigger.name for each in found.due] == ["b", "a"]
    assert found.fires == {first.key: T0 + 3600 + 1800, second.key: T0 + 3600 + 600}


def test_dst_gap_and_repeat_in_oslo():
    of = trigger("30 2 * * *", zone="Europe/Oslo", missed="all")
    spring = plan([of], mark(of, at("2026-03-28T12:00", "Europe/Oslo")), at("2026-03-29T12:00", "Europe/Oslo"))
    assert [each.instant for each in spring.due] == [at("2026-03-29T03:00", "Europe/Oslo")]
    autumn = plan([of], mark(of, at("2026-10-24T12:00", "Europe/Oslo")), at("2026-10-25T12:00", "Europe/Oslo"))
    assert [each.instant for each in autumn.due] == [at("2026-10-25T02:30", "Europe/Oslo", fold=0)]
