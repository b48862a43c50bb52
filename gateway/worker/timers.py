"""Coarse deadlines for many connections: a timer wheel that is touched only when a deadline moves closer.

An item's deadline is its attribute `expires`; moving it further away is one assignment. The wheel looks at an item
when its slot comes up, and puts it where `expires` is by then. Only an earlier deadline must be told (`arm`).
After Varghese & Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6, with lazy moves.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["NEVER", "Timed", "Wheel"]

NEVER = float("inf")


class Timed(Protocol):
    """`expires` is a time of the loop's clock; `armed` the time at which the wheel looks next, written by the wheel."""

    expires: float
    armed: float

    def on_timer(self, now: float) -> None:
        """`expires` has passed. It must be moved or set to NEVER before this returns."""


class Wheel:
    """`clock` is a monotonic clock in seconds; deadlines are kept to within `resolution`, never early."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolution: float = 0.05) -> None:
        self._loop = loop
        self._resolution = resolution
        self._slots: dict[int, set[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0

    def arm(self, item: Timed) -> None:
        """See to `item.expires`; needed where it is earlier than `item.armed`."""
        if item.armed != NEVER:
            self._take(item)
        if item.expires == NEVER:
            return
        slot = int(item.expires / self._resolution) + 1
        item.armed = slot * self._resolution
        self._slots.setdefault(slot, set()).add(item)
        if self._timer is None or slot < self._tick_at:
            self._schedule(slot)

    def forget(self, item: Timed) -> None:
        """`item` is gone."""
        item.expires = NEVER
        if item.armed != NEVER:
            self._take(item)

    def tick(self, now: float) -> None:
        """Look at every slot that is due at `now`."""
        due = [slot for slot in self._slots if slot * self._resolution <= now]
        for slot in sorted(due):
            for item in self._slots.pop(slot):
                item.armed = NEVER
                if item.expires <= now:
                    item.on_timer(now)
                if item.expires != NEVER and item.armed == NEVER:
                    self.arm(item)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def _take(self, item: Timed) -> None:
        slot = round(item.armed / self._resolution)
        item.armed = NEVER
        members = self._slots.get(slot)
        if members is not None:
            members.discard(item)
            if not members:
                del self._slots[slot]

    def _schedule(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tick_at = slot
        self._timer = self._loop.call_at(slot * self._resolution, self._on_tick)

    def _on_tick(self) -> None:
        self._timer = None
        # The loop's clock may be rounded down to a millisecond: what it woke us for is due.
        self.tick(max(self._loop.time(), self._tick_at * self._resolution))
        if self._slots and self._timer is None:
            self._schedule(min(self._slots))
