from __future__ import annotations

import asyncio

import pytest

from gateway.worker.timers import NEVER, Wheel


class Item:
    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.armed = NEVER
        self.fired: list[float] = []

    def on_timer(self, now: float) -> None:
        self.fired.append(now)
        self.expires = NEVER


@pytest.fixture
async def wheel():
    found = Wheel(asyncio.get_running_loop(), resolution=0.1)
    yield found
    found.stop()


async def test_never_early_and_at_most_a_slot_late(wheel):
    item = Item(10.05)
    wheel.arm(item)
    wheel.tick(10.0)
    assert item.fired == []
    wheel.tick(10.11)
    assert item.fired == [10.11] and len(wheel) == 0


async def test_a_later_deadline_costs_no_call(wheel):
    item = Item(10.05)
    wheel.arm(item)
    item.expires = 20.0
    wheel.tick(10.2)
    assert item.fired == [] and item.armed == pytest.approx(20.1)
    wheel.tick(20.2)
    assert item.fired == [20.2]


async def test_an_earlier_deadline_is_seen_once_told(wheel):
    item = Item(20.0)
    wheel.arm(item)
    item.expires = 10.0
    assert item.expires < item.armed
    wheel.arm(item)
    assert len(wheel) == 1
    wheel.tick(10.2)
    assert item.fired == [10.2]
    wheel.tick(30.0)
    assert item.fired == [10.2]


async def test_what_is_forgotten_stays_quiet_even_within_the_same_tick(wheel):
    first, second = Item(10.0), Item(10.0)

    def forget_other(item, other):
        def on_timer(now):
            Item.on_timer(item, now)
            wheel.forget(other)

        return on_timer

    first.on_timer = forget_other(first, second)
    second.on_timer = forget_other(second, first)
    wheel.arm(first)
    wheel.arm(second)
    wheel.tick(10.5)
    assert len(first.fired) + len(second.fired) == 1
    assert len(wheel) == 0


async def test_the_loop_turns_the_wheel():
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop, resolution=0.01)
    done = asyncio.Event()
    late, soon = Item(loop.time() + 60), Item(loop.time() + 0.02)
    soon.on_timer = lambda now: (Item.on_timer(soon, now), done.set())
    wheel.arm(late)
    wheel.arm(soon)
    await asyncio.wait_for(done.wait(), 5)
    assert soon.fired and not late.fired and len(wheel) == 1
    wheel.stop()
