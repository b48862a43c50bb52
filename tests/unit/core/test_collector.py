"""Cycles are looked for while nobody waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from core.collector import LIMITS, Collector, generation


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    gc.collect()
    yield
    gc.collect()


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def _garbage() -> weakref.ref[Cycle]:
    found = [Cycle() for _ in range(3000)]
    return weakref.ref(found[0])


async def test_the_young_are_collected_when_nobody_waits():
    busy, before = True, gc.get_threshold()
    collector = Collector(lambda: busy, every=3600.0)
    await collector.start()
    assert gc.get_threshold() == LIMITS
    gone = _garbage()
    collector.look()
    assert gone() is not None  # somebody waits
    busy = False
    collector.look()
    assert gone() is None
    few = weakref.ref(Cycle())
    collector.look()
    assert few() is not None  # not worth a look
    await collector.stop()
    assert gc.get_threshold() == before


async def test_it_looks_from_time_to_time():
    asked = asyncio.Event()
    collector = Collector(lambda: asked.set() or True, every=0.001)
    await collector.start()
    kept = _garbage()
    async with asyncio.timeout(60):
        await asked.wait()
    assert kept() is not None
    await collector.stop()


def test_older_generations_have_their_turn():
    found = [generation(number) for number in range(1, 4001)]
    assert found[:20] == [0] * 19 + [1] and found.count(1) == 198 and found.count(2) == 2 and found[1999] == 2
