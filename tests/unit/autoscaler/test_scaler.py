"""The autoscaler between a real socket and an API in memory. The clock is the test's; only ticks that it makes happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from autoscaler import scaler as module
from autoscaler.scaler import Autoscaler
from core.api.kinds import REPLICA_SET
from core.api.views import ReplicaSet
from core.client.informer import Informers
from core.client.rest import Client
from core.errors import Forbidden
from faaslite.api.names import LABEL_FUNCTION
from faaslite.api.wire import Hello, Load, Notice, Poke, Report

TIMEOUT = 5.0
A = "default/a-00001"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """The autoscaler with what it needs. `report` waits until the autoscaler has read it."""

    def __init__(self, api, path, connect) -> None:
        self.api = api
        self.clock = Clock()
        self.path = path
        self._connect = connect
        self.client = Client(api)
        self.informers = Informers(self.client)
        self.scaler = Autoscaler(self.client, self.informers, path, clock=self.clock)
        self._changed = asyncio.Event()
        self._informer = self.informers.watch(REPLICA_SET, ReplicaSet, labels=LABEL_FUNCTION)
        self._informer.add_handler(lambda old, new: self._changed.set())

    async def start(self) -> None:
        await self.informers.start()
        await self.informers.wait_synced()
        await self.scaler.start()

    async def stop(self) -> None:
        await self.scaler.stop()
        await self.informers.stop()

    async def gateway(self, name: str = "w1"):
        gateway = await self._connect(self.path)
        gateway.send(Hello(name))
        return gateway

    async def heard(self, gateway) -> None:
        """Everything that was sent has been read: the answer to a poke of nothing says so."""
        gateway.send(Poke("default/nothing-00001"))
        while (notice := await gateway.receive()) is not None:
            if notice.revision == "default/nothing-00001":
                return

    async def report(self, gateway, concurrency: float, queued: int = 0, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            gateway.send(Report(1.0, [Load(A, concurrency, round(concurrency), queued)] if concurrency else []))
            await self.heard(gateway)

    async def tick(self, seconds: float = 0.0) -> None:
        self.clock.now += seconds
        self.scaler.tick(self.clock.now)
        await self.scaler.settled()
        await self.seen()

    async def seen(self) -> None:
        """The informer has what the API has."""
        async with asyncio.timeout(TIMEOUT):
            while not self._same():
                self._changed.clear()
                await self._changed.wait()

    def _same(self) -> bool:
        known = {each.name: each.metadata.resource_version for each in self._informer.values()}
        return known == {name: each["metadata"]["resourceVersion"] for name, each in self.api.objects.items()}


@pytest.fixture
async def world(api, tmp_path, connect, monkeypatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "TICK", 3600.0)
    found = World(api, tmp_path / "autoscaler.sock", connect)
    await found.start()
    yield found
    await found.stop()


async def test_a_poke_scales_from_zero_without_a_tick(world, api):
    api.put("a-00001", replicas=0)
    await world.seen()
    gateway = await world.gateway()
    gateway.send(Poke(A, 1))
    async with asyncio.timeout(TIMEOUT):
        await api.written.wait()
    assert api.writes == [("a-00001", 1)]


async def test_many_waiting_calls_scale_at_once_and_the_latest_number_wins(world, api):
    api.put("a-00001", replicas=0, policy={"limit": 1, "target": 0.7, "max": 0})
    await world.seen()
    api.gate.clear()
    gateway = await world.gateway()
    gateway.send(Poke(A, 1))
    await world.heard(gateway)
    for queued in (2, 40, 100):
        gateway.send(Poke(A, queued))
    await world.heard(gateway)
    api.gate.set()
    await world.scaler.settled()
    assert api.writes == [("a-00001", 1), ("a-00001", 100)], "one write was under way, the later pokes became one"


async def test_idle_goes_to_zero_and_says_why(world, api):
    api.put("a-00001", replicas=1, ready=1, policy={"idle": 30})
    await world.seen()
    gateway = await world.gateway()
    await world.report(gateway, 2.0, seconds=5)
    await world.report(gateway, 0.0, seconds=29)
    await world.tick()
    assert api.writes == []
    await world.report(gateway, 0.0)
    await world.tick()
    assert api.writes == [("a-00001", 0)]
    (decision,) = world.scaler.decisions(A)
    assert (decision.before, decision.after, decision.reason) == (1, 0, "no calls for 30 s (idle is 30 s)")
    await world.tick(100)
    assert api.writes == [("a-00001", 0)], "only what changes is written"


async def test_load_grows_and_shrinks_a_revision(world, api):
    api.put("a-00001", replicas=1, ready=1, policy={"target": 7, "limit": 10})
    await world.seen()
    gateway, other = await world.gateway("w1"), await world.gateway("w2")
    other.send(Report(1.0, [Load(A, 14.0, 20, 0)]))
    await world.heard(other)
    await world.report(gateway, 14.0)
    await world.tick()
    assert api.objects["a-00001"]["spec"]["replicas"] == 4, "28 in flight over two gateways"
    api.ready("a-00001", 4)
    await other.close()
    for _ in range(70):
        await world.report(gateway, 7.0)
        await world.tick()
    assert api.objects["a-00001"]["spec"]["replicas"] == 2
    api.ready("a-00001", 2)
    await world.report(gateway, 7.0, seconds=60)
    await world.tick()
    assert api.objects["a-00001"]["spec"]["replicas"] == 1


async def test_a_gateway_that_dies_takes_its_calls_with_it(world, api):
    api.put("a-00001", replicas=1, ready=1, policy={"idle": 10})
    await world.seen()
    gateway, other = await world.gateway("w1"), await world.gateway("w2")
    await world.report(gateway, 5.0)
    await gateway.close()
    await world.heard(other)
    await world.tick(9.9)
    assert api.writes == []
    await world.tick(0.1)
    assert api.writes == [("a-00001", 0)]


async def test_after_a_restart_nothing_is_taken_before_gateways_could_report(api, tmp_path, connect, monkeypatch):
    monkeypatch.setattr(module, "TICK", 3600.0)
    api.put("a-00001", replicas=1, ready=1, policy={"idle": 0.5})
    api.put("b-00001", replicas=8, ready=8, policy={"idle": 60, "stable": 60})
    world = World(api, tmp_path / "autoscaler.sock", connect)
    await world.start()
    await world.tick(2.9)
    assert api.writes == []
    await world.tick(0.2)
    assert api.writes == [("a-00001", 0)]
    await world.tick(50)
    assert api.writes == [("a-00001", 0)], "b keeps its 8"
    await world.stop()


async def test_a_new_revision_is_left_alone_until_it_was_ready_once(world, api):
    api.put("a-00001", replicas=1, ready=0, policy={"idle": 10})
    await world.seen()
    await world.tick(300)
    assert api.writes == []
    api.ready("a-00001", 1)
    await world.seen()
    await world.tick(9)
    assert api.writes == []
    await world.tick(1)
    assert api.writes == [("a-00001", 0)]


async def test_what_the_api_refuses_is_told_to_the_gateway_that_waits(world, api):
    api.put("a-00001", replicas=0)
    await world.seen()
    api.refuse = Forbidden("exceeded quota: team-a")
    gateway = await world.gateway()
    gateway.send(Poke(A, 1))
    assert await gateway.receive() == Notice(A, "Forbidden", "exceeded quota: team-a")
    gateway.send(Poke(A, 1))
    assert await gateway.receive() == Notice(A, "Forbidden", "exceeded quota: team-a"), "told at once, not asked again"
    api.refuse = None
    gateway.send(Poke(A, 1))
    await world.heard(gateway)
    assert api.writes == []
    await world.tick(module.REFUSED)
    assert api.writes == [("a-00001", 1)]


async def test_a_poke_puts_off_what_nobody_waits_for(world, api, monkeypatch):
    disturbed = asyncio.Event()

    class Quiet:
        def disturb(self) -> None:
            disturbed.set()

    monkeypatch.setattr(module, "LULL", Quiet())
    (await world.gateway()).send(Poke("default/nothing-00001", 1))
    async with asyncio.timeout(TIMEOUT):
        await disturbed.wait()


async def test_a_poke_for_what_is_not_there_is_answered(world, api):
    gateway = await world.gateway()
    gateway.send(Poke("default/gone-00001", 1))
    notice = await gateway.receive()
    assert (notice.revision, notice.reason) == ("default/gone-00001", "RevisionNotFound")


async def test_a_poke_before_its_replica_set_is_acted_on_when_that_comes(api, tmp_path, connect, monkeypatch):
    monkeypatch.setattr(module, "TICK", 3600.0)
    world = World(api, tmp_path / "autoscaler.sock", connect)
    await world.scaler.start()
    gateway = await world.gateway()
    poked = asyncio.Event()
    act = world.scaler.poked
    monkeypatch.setattr(world.scaler, "poked", lambda *arguments: (act(*arguments), poked.set()))
    gateway.send(Poke(A, 1))
    api.put("a-00001", replicas=0)
    async with asyncio.timeout(TIMEOUT):
        await poked.wait()
    await world.informers.start()
    async with asyncio.timeout(TIMEOUT):
        await api.written.wait()
    assert api.writes == [("a-00001", 1)]
    await world.stop()


async def test_a_changed_policy_counts_without_a_tick_and_a_bad_one_not_at_all(world, api):
    api.put("a-00001", replicas=0, policy={"min": 0})
    await world.seen()
    api.put("a-00001", replicas=0, policy={"min": 2})
    async with asyncio.timeout(TIMEOUT):
        await api.written.wait()
    assert api.writes == [("a-00001", 2)]
    api.put("a-00001", replicas=2, policy={"min": "many"})
    await world.seen()
    await world.tick(1)
    assert api.writes == [("a-00001", 2)]


async def test_a_deleted_revision_is_forgotten(world, api):
    api.put("a-00001", replicas=1, ready=1, policy={"min": 3})
    await world.seen()
    await world.tick()
    assert world.scaler.decisions(A)
    api.remove("a-00001")
    await world.seen()
    await world.tick(1000)
    assert (world.scaler.decisions(A), world.scaler.why(A)) == ([], "")


async def test_the_loop_ticks_by_itself(api, tmp_path, connect, monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.01)
    api.put("a-00001", replicas=0, policy={"min": 1})
    world = World(api, tmp_path / "autoscaler.sock", connect)
    await world.start()
    async with asyncio.timeout(TIMEOUT):
        await api.written.wait()
    assert api.writes == [("a-00001", 1)]
    await world.stop()
