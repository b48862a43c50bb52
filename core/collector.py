"""When Python's collector of reference cycles runs in a server: while nobody waits.

A collection looks at everything that is young. Under a flood that is above all what is kept for the requests that wait, tens of thousands of
objects, and a pause of tens of milliseconds for all users; and their coming and going is what sets it off. What requests let go of has no cycles, or
hardly any. So the limit at which Python collects by itself is put beyond what waiting requests can reach, and the young are looked at from time to time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

__all__ = ["LIMITS", "Collector", "generation"]

LIMITS = (200_000, 50, 1000)
"""Objects that are made and not let go of, then collections of the generation below, until Python collects by itself."""
EVERY = 5.0
YOUNG = 2000
"""Fewer new objects than that aren't looked at."""
_OLDER, _OLDEST = 20, 2000


def generation(number: int) -> int:
    """Which generation the collection of that number (from 1) looks at, those below included."""
    return 2 if number % _OLDEST == 0 else 1 if number % _OLDER == 0 else 0


class Collector:
    """A component. `busy` tells whether somebody waits; `every` are seconds."""

    def __init__(self, busy: Callable[[], bool], every: float = EVERY) -> None:
        self._busy = busy
        self._every = every
        self._number = 0
        self._before: tuple[int, int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._before = gc.get_threshold()
        gc.set_threshold(*LIMITS)
        self._timer = asyncio.get_running_loop().call_later(self._every, self.look)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._before is not None:
            gc.set_threshold(*self._before)
            self._before = None

    def look(self) -> None:
        if gc.get_count()[0] >= YOUNG and not self._busy():
            self._number += 1
            gc.collect(generation(self._number))
        self._timer = asyncio.get_running_loop().call_later(self._every, self.look)
