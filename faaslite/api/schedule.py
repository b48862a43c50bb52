"""Cron expressions: when does a trigger fire next? Pure; the clock and the zone are arguments.

Five fields (`minute hour day-of-month month day-of-week`, with names, steps, `L` and `MON#2`), `@hourly` and its family,
and `@every 5s`.

**Daylight saving.** An expression with every hour in its hour field goes by the hours that pass: it fires in each of them, also in
both of a repeated hour and in none that is skipped. Any other goes by the clock on the wall: what falls into a skipped
hour fires once, right after the gap, and what falls into a repeated hour fires in its first pass only.
`@every` goes by elapsed time alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from faaslite.api.durations import parse_duration

__all__ = ["Schedule", "load_zone", "parse"]

_FAMILY = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {
    "minute": (0, "0-59"),
    "hour": (1, "0-23"),
    "day-of-month": (2, "1-31, L or LW"),
    "month": (3, "1-12 or JAN-DEC"),
    "day-of-week": (4, "0-7 or SUN-SAT"),
}
_ORIGIN = datetime(2024, 1, 1)  # naive: the search for a first firing is by the clock on the wall
_SHORTEST = 1.0


@lru_cache(maxsize=512)
def load_zone(name: str) -> ZoneInfo:
    """The IANA zone of that name; ValueError where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'"{name}" is not a time zone: use an IANA name such as Europe/Oslo') from error


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed expression. `text` is what was written, `cron` its five fields ("" for `@every`), `period` the seconds of `@every`."""

    text: str
    cron: str = ""
    period: float = 0.0
    every_hour: bool = False

    def next(self, after: float, zone: str = "UTC", *, start: float = 0.0) -> float | None:
        """The first instant strictly after `after` (both in seconds since the epoch), None where there is none within 50 years.

        `start` anchors `@every`: it fires at `start + k * period`. Raises ValueError for an unknown zone.
        """
        if self.period:
            return self._next_period(after, start)
        return self._next_elapsed(after, zone) if self.every_hour else self._next_wall(after, zone)

    def _next_period(self, after: float, start: float) -> float:
        steps = math.floor((after - start) / self.period) + 1
        found = start + max(steps, 1) * self.period
        return found if found > after else found + self.period

    def _next_elapsed(self, after: float, zone: str) -> float | None:
        moment = next(CronSim(self.cron, datetime.fromtimestamp(after, load_zone(zone))), None)
        return None if moment is None else moment.timestamp()

    def _next_wall(self, after: float, zone: str) -> float | None:
        info = load_zone(zone)
        for naive in CronSim(self.cron, datetime.fromtimestamp(after, info).replace(tzinfo=None, fold=0)):
            found = _first_real(naive, info).timestamp()
            if found > after:  # in the second pass of a repeated hour the first pass is over
                return found
        return None


def _first_real(naive: datetime, info: ZoneInfo) -> datetime:
    """The moment that a wall clock shows `naive` for the first time, or the end of the gap that it falls into."""
    while True:
        moment = naive.replace(tzinfo=info, fold=0)
        if moment.astimezone(UTC).astimezone(info).replace(tzinfo=None, fold=0) == naive:
            return moment
        naive = naive.replace(second=0) + timedelta(minutes=1)


def _refuse(text: str, why: str) -> ValueError:
    return ValueError(f'"{text}" is not a cron expression: {why}')


def _every(text: str) -> Schedule:
    try:
        period = parse_duration(text[len("@every") :].strip())
    except ValueError as error:
        raise _refuse(text, f"{error}") from error
    if period < _SHORTEST:
        raise _refuse(text, "the shortest period is 1s")
    return Schedule(text, period=period)


@lru_cache(maxsize=4096)
def parse(text: str) -> Schedule:
    """Read an expression. ValueError says in one line what is wrong with it; one that never fires is refused too."""
    written = text.strip()
    if written.lower().split(maxsplit=1)[:1] == ["@every"]:
        return _every(written)
    cron = _FAMILY.get(written.lower(), written)
    if cron.startswith("@"):
        raise _refuse(text, f"use one of {', '.join(_FAMILY)} or @every DURATION")
    fields = cron.split()
    if len(fields) != 5:
        raise _refuse(text, f"it needs five fields (minute hour day month weekday), not {len(fields)}")
    try:
        moments = CronSim(" ".join(fields), _ORIGIN)
    except (CronSimError, AssertionError, ValueError) as error:
        raise _refuse(text, _explain(str(error), fields)) from error
    if next(moments, None) is None:
        raise _refuse(text, "it never fires")
    every_hour = len(moments.hours) == 24
    if every_hour:
        fields[1] = "*"
    return Schedule(text, " ".join(fields), every_hour=every_hour)


def _explain(message: str, fields: list[str]) -> str:
    name = message.removeprefix("Bad ")
    if name not in _FIELDS:
        return message
    at, allowed = _FIELDS[name]
    if name == "day-of-month" and _reads(fields[at]):
        return f'it never fires, no month {fields[3]} has a day "{fields[at]}"'
    return f'"{fields[at]}" is not a valid {name} ({allowed})'


def _reads(day: str) -> bool:
    """Whether a day of the month is well formed by itself."""
    try:
        CronSim(f"0 0 {day} * *", _ORIGIN)
    except (CronSimError, AssertionError, ValueError):
        return False
    return True
