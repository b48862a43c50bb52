"""Calls that are recorded ahead of their instant: sent at it, once, and not at all where their trigger changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from core.clock import wall
from faaslite.api.schedule import parse
from gateway.jobs.calls.base import CANCELED, QUEUED, RUNNING, SUCCEEDED
from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.cron.ticker import Ticker
from gateway.jobs.functions import CronTrigger

TIMEOUT = 10.0


class World:
    """A ticker and a dispatcher over one queue, before a server that stands for the gateway."""

    def __init__(self, path) -> None:
        self.path = path
        self.seen: list[tuple[float, str]] = []
        self.release: asyncio.Event | None = None
        self.more = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((wall(), request.headers["X-Call-Id"]))
        self.more.set()
        if self.release is not None:
            await self.release.wait()
        return web.Response(text="done")

    async def open(self, url: str) -> None:
        self.url = url
        self.calls = await SqliteCalls.open(self.path)
        self.dispatcher = Dispatcher(self.calls, url, owner="me")
        self.ticker = Ticker(
            self.calls, inserted=self.dispatcher.wake, canceled=self.dispatcher.abort, insert=self.dispatcher.insert, arm=self.dispatcher.arm
        )  # fmt: skip
        await self.dispatcher.start()
        await self.ticker.start()

    async def close(self) -> None:
        await self.ticker.stop()
        await self.dispatcher.stop()
        await self.calls.close()

    def put(self, *triggers: CronTrigger) -> None:
        self.ticker.set("default", "f", triggers)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(self.seen) < count:
                self.more.clear()
                await self.more.wait()

    async def armed(self) -> str:
        """The id of a call that is recorded and not sent."""
        async with asyncio.timeout(TIMEOUT):
            while not self.ticker._armed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (_, call), *_ = self.ticker._armed.values()
        return call


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    found = World(tmp_path / "calls.db")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await found.open(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")
    yield found
    await found.close()
    await runner.cleanup()


def trigger(schedule: str = "@every 2s", **given) -> CronTrigger:
    return CronTrigger(namespace="default", function="f", name="n", uid="u", schedule=parse(schedule), **given)


async def test_it_is_recorded_before_and_sent_at_its_instant_once(world):
    world.put(trigger())
    await world.until(1)  # the first may have come too soon to be worked out ahead
    call = await world.armed()
    record = await world.calls.get(call)
    assert (record.status, record.tries) == (RUNNING, ()) and wall() < record.scheduled_at
    seen = len(world.seen)
    await world.until(seen + 1)
    at, identity = world.seen[-1]
    assert (identity, 0 <= at - record.scheduled_at < 1.0) == (call, True)
    async with asyncio.timeout(TIMEOUT):
        while (await world.calls.get(call)).status != SUCCEEDED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    record = await world.calls.get(call)
    assert 0 <= record.started_at - record.scheduled_at < 1.0
    instants = [each.scheduled_at for each in await world.calls.list("")]
    assert len(instants) == len(set(instants))


@pytest.mark.parametrize("change", ["delete", "pause", "schedule"])
async def test_a_trigger_that_changes_takes_its_call_back(world, change):
    world.put(trigger())
    call = await world.armed()
    changed = {"delete": (), "pause": (trigger(paused=True),), "schedule": (trigger("0 0 1 1 *"),)}[change]
    world.put(*changed)
    async with asyncio.timeout(TIMEOUT):
        while (await world.calls.get(call)).status != CANCELED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert call not in {identity for _, identity in world.seen}


async def test_a_stop_in_between_leaves_it_for_the_next_life(world):
    world.put(trigger())
    call = await world.armed()
    await world.ticker.stop()
    await world.dispatcher.stop()
    record = await world.calls.get(call)
    assert (record.status, record.due, record.attempts) == (QUEUED, record.scheduled_at, 0)
    await world.dispatcher.start()
    await world.until(1)
    assert world.seen[-1][1] == call and world.seen[-1][0] >= record.scheduled_at


async def test_a_death_in_between_leaves_it_for_the_next_life_at_its_instant(world, tmp_path):
    """As after kill -9: nothing was put back."""
    world.put(trigger())
    call = await world.armed()
    world.dispatcher._calls = _Dead()
    await world.ticker.stop()
    await world.dispatcher.stop()
    await world.calls.close()
    await world.open(world.url)
    await world.until(1)
    record = await world.calls.get(call)
    assert call in {identity for _, identity in world.seen}
    assert min(at for at, identity in world.seen if identity == call) >= record.scheduled_at


class _Dead:
    def __getattr__(self, name: str):
        async def nothing(*_, **__) -> None:
            """Whoever was killed says nothing."""

        return nothing


async def test_what_overlaps_is_decided_at_the_instant(world):
    """The earlier call ends within the second before: it must not be skipped for having been recorded too early."""
    world.release = asyncio.Event()
    world.put(trigger(overlap="Skip"))
    await world.until(1)
    first = world.seen[0][1]
    instant = (await world.calls.get(first)).scheduled_at
    await asyncio.sleep(max(instant + 1.5 - wall(), 0))  # half a second before the next, which would be armed by now
    assert not world.ticker._armed
    world.release.set()
    await world.until(2)
    assert [each.status for each in await world.calls.list("") if each.scheduled_at == instant + 2] != ["Skipped"]
