"""A clock that can be set and stepped, and what is due by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.clock import wall
from faaslite.api.schedule import parse

__all__ = ["Clock", "Trigger", "due", "next_of"]


class Clock:
    """Goes at the pace of real time, from wherever it was set to. Times are seconds since the epoch."""

    def __init__(self, at: float | None = None) -> None:
        self._offset = 0.0 if at is None else at - wall()

    def now(self) -> float:
        return wall() + self._offset

    def step(self, seconds: float) -> None:
        """Forward, never back: what was run would be run again."""
        if seconds < 0:
            raise ValueError("the clock can't be stepped back")
        self._offset += seconds


@dataclass(frozen=True, slots=True)
class Trigger:
    """A cron trigger of a function; `start` anchors `@every`."""

    function: str
    name: str
    schedule: str
    zone: str
    method: str
    path: str
    payload: Any
    start: float


def next_of(trigger: Trigger, after: float) -> float | None:
    return parse(trigger.schedule).next(after, trigger.zone, start=trigger.start)


def due(triggers: Iterable[Trigger], after: float, until: float, most: int = 1000) -> list[tuple[float, Trigger]]:
    """Every instant after `after` and up to `until`, in order; at most `most`. Pure."""
    found: list[tuple[float, Trigger]] = []
    for trigger in triggers:
        at = next_of(trigger, after)
        while at is not None and at <= until and len(found) < 10 * most:
            found.append((at, trigger))
            at = next_of(trigger, at)
    return sorted(found, key=lambda each: (each[0], each[1].function, each[1].name))[:most]
