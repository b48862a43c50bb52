"""Waiting longer after each failure in a row."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Delays that double from `first` to `cap` seconds, each spread by a random factor so that clients don't come in step."""

    def __init__(self, first: float = 0.05, cap: float = 10.0, *, spread: float = 0.5) -> None:
        self._first, self._cap, self._spread = first, cap, spread
        self._failures = 0

    def next(self) -> float:
        """The delay before the next try, in seconds."""
        delay = min(self._first * 2.0 ** min(self._failures, 32), self._cap)
        self._failures += 1
        return delay * (1 + random.uniform(-self._spread, self._spread))  # noqa: S311 - not a secret

    def reset(self) -> None:
        self._failures = 0
