"""Which minimum holds now: the policy's own, or that of a scheduled floor. Pure; `now` is wall time, in seconds since the epoch.

A floor with a duration holds from each instant of its expression for that long. One with `until` holds between an instant of `cron` and the
next one of `until`: just then the end comes before another beginning does.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from faaslite.api.schedule import parse
from faaslite.api.wire import Floor, ScalePolicy

__all__ = ["Minimum", "minimum"]

log = logging.getLogger(__name__)


class Minimum(NamedTuple):
    """`until` is when it may change, `why` is empty for the policy's own."""

    replicas: int
    until: float
    why: str = ""


def minimum(policy: ScalePolicy, now: float) -> Minimum:
    """The highest of those that hold. A floor that can't be read is left out: the function controller tells its author."""
    replicas, change, why = policy.min, math.inf, ""
    for floor in policy.floors:
        try:
            holds, until = _holds(floor, now)
        except ValueError as error:
            log.warning("a scheduled floor is left out: %s", error)
            continue
        change = min(change, until)
        if holds and floor.min > replicas:
            replicas = floor.min
            why = f"scheduled: {floor.cron} {floor.zone} {'until ' + floor.until if floor.until else f'for {floor.duration:g} s'}"
    return Minimum(replicas, change, why)


def _holds(floor: Floor, now: float) -> tuple[bool, float]:
    """Whether it holds, and when that ends or begins."""
    begins = parse(floor.cron)
    following = begins.next(now, floor.zone)
    if floor.until:
        end = parse(floor.until).next(now, floor.zone)
        if end is None:
            return False, math.inf
        return following is None or end <= following, min(end, following or math.inf)
    latest = _latest(floor, now)
    if latest is None:
        return False, following or math.inf
    return True, min(latest + floor.duration, following or math.inf)


def _latest(floor: Floor, now: float) -> float | None:
    """The latest beginning whose duration isn't over."""
    found = None
    instant = parse(floor.cron).next(now - floor.duration, floor.zone)
    for _ in range(1000):
        if instant is None or instant > now:
            break
        found, instant = instant, parse(floor.cron).next(instant, floor.zone)
    return found
