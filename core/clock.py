"""The one place that reads the time, so that everything else can take `now` as an argument."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime

__all__ = ["micro_time", "monotonic", "parse_time", "timestamp", "wall"]

wall = time.time
monotonic = time.monotonic


def timestamp(now: float | None = None) -> str:
    """`metav1.Time`: RFC 3339 with whole seconds, in UTC. `now` is seconds since the epoch."""
    return _second(int((wall() if now is None else now) // 1))


@functools.lru_cache(maxsize=8)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(now: float | None = None) -> str:
    """`metav1.MicroTime`: RFC 3339 with microseconds, in UTC. `now` is seconds since the epoch."""
    return datetime.fromtimestamp(wall() if now is None else now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; ValueError where it is none."""
    return datetime.fromisoformat(text).timestamp()
