"""Cron expressions, and above all what the clock changes do to them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faaslite.api.schedule import Schedule, load_zone, parse

OSLO = "Europe/Oslo"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def firings(schedule: Schedule, start: float, end: float, zone: str) -> list[str]:
    found, moment = [], start
    while (moment := schedule.next(moment, zone)) is not None and moment < end:
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 3 * * *", "2025-01-01T02:59:59", "2025-01-01T03:00:00"),
        ("0 3 * * *", "2025-01-01T03:00:00", "2025-01-02T03:00:00"),
        ("*/15 * * * *", "2025-01-01T00:01:00", "2025-01-01T00:15:00"),
        ("0 0 29 2 *", "2025-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("30 9 * * MON-FRI", "2025-01-03T10:00:00", "2025-01-06T09:30:00"),
        ("0 0 L * *", "2025-02-01T00:00:00", "2025-02-28T00:00:00"),
        ("@hourly", "2025-01-01T00:59:00", "2025-01-01T01:00:00"),
        ("@daily", "2025-01-01T00:00:00", "2025-01-02T00:00:00"),
        ("@weekly", "2025-01-01T00:00:00", "2025-01-05T00:00:00"),
        ("@monthly", "2025-01-01T00:00:00", "2025-02-01T00:00:00"),
        ("@yearly", "2025-01-01T00:00:00", "2026-01-01T00:00:00"),
    ],
)
def test_the_next_firing_is_strictly_after(text: str, after: str, expected: str) -> None:
    assert parse(text).next(at(after)) == at(expected)


def test_a_zone_moves_the_wall_clock() -> None:
    assert parse("0 3 * * *").next(at("2025-07-01T00:00:00"), OSLO) == at("2025-07-01T01:00:00")


def test_a_skipped_hour_fires_once_right_after_the_gap() -> None:
    start, end = at("2025-03-30T00:00:00"), at("2025-03-30T12:00:00")
    assert firings(parse("30 2 * * *"), start, end, OSLO) == ["30 01:00"]
    assert firings(parse("*/10 2 * * *"), start, end, OSLO) == ["30 01:00"]
    assert firings(parse("0 2,3 * * *"), start, end, OSLO) == ["30 01:00"]
    assert firings(parse("0 */2 * * *"), at("2025-03-30T00:30:00"), at("2025-03-30T03:00:00"), OSLO) == [
        "30 01:00",
        "30 02:00",
    ]


def test_a_repeated_hour_fires_once_in_its_first_pass() -> None:
    start, end = at("2025-10-25T22:00:00"), at("2025-10-26T12:00:00")
    assert firings(parse("30 2 * * *"), start, end, OSLO) == ["26 00:30"]
    assert firings(parse("*/20 2 * * *"), start, end, OSLO) == ["26 00:00", "26 00:20", "26 00:40"]


def test_asked_within_the_second_pass_it_answers_with_the_next_day() -> None:
    second_pass = at("2025-10-26T02:10:00", OSLO, fold=1)
    assert parse("30 2 * * *").next(second_pass, OSLO) == at("2025-10-27T02:30:00", OSLO)


def test_an_expression_of_every_hour_goes_by_the_hours_that_pass() -> None:
    spring = firings(parse("15 * * * *"), at("2025-03-29T23:30:00"), at("2025-03-30T03:00:00"), OSLO)
    assert spring == ["30 00:15", "30 01:15", "30 02:15"]
    autumn = firings(parse("15 0-23 * * *"), at("2025-10-25T23:30:00"), at("2025-10-26T03:00:00"), OSLO)
    assert autumn == ["26 00:15", "26 01:15", "26 02:15"]


def test_every_is_anchored_at_its_start() -> None:
    schedule = parse("@every 1m30s")
    assert schedule.next(1000.0, start=1000.0) == 1090.0
    assert schedule.next(1089.9, start=1000.0) == 1090.0
    assert schedule.next(1090.0, start=1000.0) == 1180.0
    assert schedule.next(500.0, start=1000.0) == 1090.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("61 * * * *", '"61" is not a valid minute (0-59)'),
        ("* 24 * * *", '"24" is not a valid hour'),
        ("* * 0 * *", '"0" is not a valid day-of-month'),
        ("* * * 13 *", '"13" is not a valid month'),
        ("* * * * 8", '"8" is not a valid day-of-week'),
        ("*/0 * * * *", '"*/0" is not a valid minute'),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("", "five fields"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4 *", "never fires"),
        ("0 0 */31 2 MON#5", "never fires"),
        ("@reboot", "@hourly"),
        ("@every", "is not a duration"),
        ("@every 10ms", "shortest period"),
    ],
)
def test_refusals_say_why_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="is not a cron expression") as error:
        parse(text)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f'"{text}"')


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_unknown_zones_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        load_zone(name)


@given(
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 */3 * * *", "5 1-3 * * SUN", "0 0 1 * *", "@every 7s"]),
    st.integers(1_700_000_000, 1_800_000_000),
    st.sampled_from([OSLO, "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"]),
)
def test_firings_increase_and_asking_between_two_gives_the_second(text: str, start: int, zone: str) -> None:
    schedule = parse(text)
    moments = [float(start)]
    for _ in range(3):
        following = schedule.next(moments[-1], zone)
        assert following is not None
        moments.append(following)
    for before, after in pairwise(moments):
        assert before < after
        assert schedule.next((before + after) / 2, zone) == after
