"""The cron loop over the real queue: claiming, editing, dropping, crashing between the steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from faaslite.api.schedule import parse
from gateway.jobs.calls.base import CANCELED, QUEUED, SKIPPED, CallsUnavailable, Outcome
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.cron.ticker import Ticker
from gateway.jobs.functions import CronTrigger

T0 = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
TIMEOUT = 5.0


class World:
    """A ticker over `calls` at a time that the test sets."""

    def __init__(self, calls) -> None:
        self.calls = calls
        self.now = T0
        self.inserted = asyncio.Event()
        self.canceled: list[str] = []
        self.ticker = self.restarted()

    def restarted(self) -> Ticker:
        return Ticker(self.calls, inserted=self.inserted.set, canceled=self.canceled.extend, clock=lambda: self.now)

    async def step(self, now: float) -> float | None:
        self.now = now
        return await self.ticker.step()

    async def instants(self, status: str | None = None) -> list[float]:
        found = await self.calls.list("", limit=1000)
        return sorted(each.scheduled_at - T0 for each in found if status in (None, each.status))


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    calls = await SqliteCalls.open(tmp_path / "calls.db")
    found = World(calls)
    yield found
    await found.ticker.stop()
    await calls.close()


def trigger(name: str = "n", schedule: str = "@every 60s", **given) -> CronTrigger:
    return CronTrigger(
        namespace="default", function="f", name=name, uid=given.pop("uid", "u"), schedule=parse(schedule), **given
    )


def put(world: World, *triggers: CronTrigger) -> None:
    world.ticker.set("default", "f", triggers)


async def test_a_step_claims_what_is_due_and_says_when_to_come_again(world):
    put(world, trigger(payload={"full": True}, path="/run?x=1"))
    assert await world.step(T0 + 1) == T0 + 60
    assert not world.inserted.is_set()
    assert await world.step(T0 + 60) == T0 + 120
    assert world.inserted.is_set()
    (call,) = await world.calls.claim("me", T0 + 60, 30, 10)
    assert (call.trigger, call.cron, call.scheduled_at) == ("cron", "n", T0 + 60)
    request = call.request
    assert (request.method, request.path, request.query) == ("POST", "/run", "x=1")
    assert (request.headers, msgspec.json.decode(request.body)) == (
        (("Content-Type", "application/json"),),
        {"full": True},
    )
    assert await world.step(T0 + 60) == T0 + 120
    assert await world.instants() == [60]


async def test_a_restart_neither_loses_nor_doubles_an_instant(world):
    put(world, trigger(overlap="Allow", missed="all"))
    await world.step(T0)
    await world.step(T0 + 60)
    world.ticker = world.restarted()
    await world.ticker.load()
    put(world, trigger(overlap="Allow", missed="all"))
    await world.step(T0 + 60)
    assert await world.instants() == [60]
    await world.step(T0 + 300)
    assert await world.instants() == [60, 120, 180, 240, 300]


async def test_two_tickers_on_one_queue_fire_each_instant_once(world):
    """What the Lease prevents, the key of the record survives: two processes that both believe they lead."""
    other = world.restarted()
    for ticker in (world.ticker, other):
        ticker.set("default", "f", [trigger(overlap="Allow")])
        await ticker.step()
    for second in range(60, 360, 60):
        world.now = T0 + second
        await asyncio.gather(world.ticker.step(), other.step())
    assert await world.instants() == [60, 120, 180, 240, 300]


async def test_a_queue_that_fails_leaves_the_instant_due(world, monkeypatch):
    put(world, trigger())
    await world.step(T0)
    insert = world.calls.insert

    async def fails(*_):
        raise CallsUnavailable("the disk is full")

    monkeypatch.setattr(world.calls, "insert", fails)
    with pytest.raises(CallsUnavailable):
        await world.step(T0 + 60)
    monkeypatch.setattr(world.calls, "insert", insert)
    await world.step(T0 + 62)
    assert await world.instants() == [60]


async def test_edits_and_deletions(world):
    put(world, trigger("a"), trigger("b", "@every 90s"))
    await world.step(T0)
    put(world, trigger("b", "@every 90s"))
    assert await world.step(T0 + 61) == T0 + 90, "a is gone with its plan"
    assert await world.instants() == []
    assert {key[2] for key in await world.calls.marks()} == {"b"}
    put(world, trigger("b", "@every 100s"))
    assert await world.step(T0 + 95) == T0 + 100
    assert await world.instants() == [], "the old schedule's instant is not made up for"
    world.ticker.remove("default", "f")
    assert await world.step(T0 + 1000) is None
    assert await world.calls.marks() == {}
    put(world, trigger("b", "@every 100s", uid="anew"))
    assert await world.step(T0 + 2050) == T0 + 2100
    assert await world.instants() == []


async def test_an_edit_while_the_claim_is_written_is_not_lost(world, monkeypatch):
    put(world, trigger("a"))
    await world.step(T0)
    insert = world.calls.insert

    async def edited_meanwhile(*arguments):
        monkeypatch.setattr(world.calls, "insert", insert)
        answer = await insert(*arguments)
        put(world, trigger("a", "@every 90s"))
        return answer

    monkeypatch.setattr(world.calls, "insert", edited_meanwhile)
    assert await world.step(T0 + 60) == T0 + 60, "again, at once"
    assert await world.step(T0 + 60) == T0 + 90


async def test_overlap(world):
    put(world, trigger("skip", overlap="Skip"))
    await world.step(T0)
    await world.step(T0 + 60)
    await world.step(T0 + 120)
    assert (await world.instants(QUEUED), await world.instants(SKIPPED)) == ([60], [120])
    (held,) = await world.calls.claim("me", T0 + 120, 30, 10)
    await world.calls.finish(held.id, held.fence, Outcome("Succeeded", 200), T0 + 130)
    await world.step(T0 + 180)
    assert await world.instants(QUEUED) == [180]


async def test_replace_tells_the_dispatcher_whom_to_stop(world):
    put(world, trigger("replace", overlap="Replace"))
    await world.step(T0)
    await world.step(T0 + 60)
    (held,) = await world.calls.claim("me", T0 + 60, 600, 10)
    await world.step(T0 + 120)
    assert world.canceled == [held.id]
    assert (await world.instants(CANCELED), await world.instants(QUEUED)) == ([60], [120])


async def test_upcoming(world):
    put(world, trigger("b"), trigger("a", paused=True))
    await world.step(T0 + 5)
    assert [(each.name, at) for each, at in world.ticker.upcoming()] == [("a", None), ("b", T0 + 60)]


async def test_the_loop_fires_by_its_timer_and_hears_of_changes(world, tmp_path):
    """On the real clock: a trigger that is set while the loop sleeps without a timer fires within its second."""
    calls = await SqliteCalls.open(tmp_path / "other.db")
    inserted = asyncio.Event()
    ticker = Ticker(calls, inserted=inserted.set, canceled=lambda _: None)
    await ticker.start()
    await asyncio.sleep(0)
    ticker.set("default", "f", [trigger("n", "@every 1s")])
    async with asyncio.timeout(TIMEOUT):
        await inserted.wait()
    (record, *_) = await calls.list("")
    assert 0 <= record.accepted_at - record.scheduled_at < 0.5
    await ticker.stop()
    await calls.close()
