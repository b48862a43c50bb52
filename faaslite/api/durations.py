"""Durations as people write them: `30s`, `1m30s`, `250ms`, `6h`, or a plain number of seconds."""

from __future__ import annotations

import math
import re

__all__ = ["parse_duration"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(value: object) -> float:
    """Seconds. Text is a chain of numbers with units (`1h30m`), or a number of seconds; ValueError says what it should be."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{value} is not a duration: it must be 0 or more")
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        if _WHOLE.fullmatch(text):
            return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    raise ValueError(f'"{value}" is not a duration: write it like 30s, 1m30s, 250ms or a number of seconds')
