"""What nobody waits for comes in a lull."""

from __future__ import annotations

import asyncio

from core.lull import Lull


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_lull_begins_some_time_after_the_last_disturbance() -> None:
    clock = Clock()
    lull = Lull(0.03, clock)
    assert lull.left(clock.now) == 0.0
    lull.disturb()
    assert round(lull.left(100.0), 6) == 0.03
    clock.now = 100.02
    assert round(lull.left(100.0), 6) == 0.01
    lull.disturb()
    assert round(lull.left(100.0), 6) == 0.03
    clock.now = 100.05
    assert lull.left(100.0) == 0.0


def test_nobody_waits_for_longer_than_at_most_however_busy_it_is() -> None:
    clock = Clock()
    lull = Lull(0.03, clock)
    for step in range(26):
        clock.now = 100.0 + step * 0.01
        lull.disturb()
    assert lull.left(100.0, at_most=0.25) == 0.0
    assert round(lull.left(100.2, at_most=0.25), 6) == 0.03


async def test_where_there_is_a_lull_the_loop_is_not_given_up() -> None:
    turns: list[str] = []

    async def late() -> None:
        await Lull().wait()
        turns.append("late")

    async def other() -> None:
        turns.append("other")

    await asyncio.gather(late(), other())
    assert turns == ["late", "other"]


async def test_the_wait_ends_with_the_lull() -> None:
    lull = Lull(0.02)
    loop = asyncio.get_running_loop()
    began = loop.time()
    lull.disturb()
    loop.call_later(0.01, lull.disturb)
    await lull.wait(at_most=10.0)
    assert 0.025 <= loop.time() - began < 5
