"""What containers use: rates between two samples, sampled only when somebody asks."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.node import usage
from core.node.runtime.base import RuntimeFailure, Stats
from core.node.usage import Metered, Reading, Sampler

A = Metered("1", "default", "web", "uid-web", "main", 1000.0)
B = Metered("2", "default", "web", "uid-web", "side", 1000.0)
C = Metered("3", "other", "db", "uid-db", "db", 1000.0)


class World:
    """A node whose containers burn `cores` each; time passes when the sampler pauses or the test says so."""

    def __init__(self) -> None:
        self.now = 2000.0
        self.running = [A, B, C]
        self.cores = {"1": 0.5, "2": 0.25, "3": 1.0}
        self.broken: set[str] = set()
        self.reads: list[str] = []
        self.sampler = Sampler(lambda: self.running, self.read, lambda: Stats(7, 4096), lambda: self.now, self.pause)

    async def read(self, container: str) -> Stats:
        self.reads.append(container)
        if container in self.broken:
            raise RuntimeFailure("it has just ended")
        return Stats(int(self.cores[container] * (self.now - 1000) * 1e9), 1 << 20)

    async def pause(self, seconds: float) -> None:
        self.now += seconds

    async def summary(self) -> dict:
        before, after = await self.sampler.window()
        return usage.summary("n1", 900.0, before, after, self.sampler.ended_ns)


def rates(summary: dict) -> dict[str, float]:
    found = {}
    for pod in summary["pods"]:
        for each in pod["containers"]:
            found[each["name"]] = each["cpu"].get("usageNanoCores", 0) / 1e9
    return found


async def test_the_first_who_asks_gets_a_rate_over_a_second():
    world = World()
    found = await world.summary()
    assert rates(found) == {"main": 0.5, "side": 0.25, "db": 1.0}
    assert found["pods"][0]["cpu"]["usageNanoCores"] == 750_000_000
    assert found["pods"][0]["cpu"]["windowSeconds"] == 1.0
    assert found["pods"][0]["memory"]["workingSetBytes"] == 2 << 20
    assert found["node"]["cpu"]["usageNanoCores"] == 1_750_000_000
    assert found["node"]["memory"]["workingSetBytes"] == (3 << 20) + 4096
    assert found["pods"][0]["podRef"] == {"name": "web", "namespace": "default", "uid": "uid-web"}


async def test_a_sample_answers_for_ten_seconds_and_then_starts_the_next_window():
    world = World()
    await world.summary()
    reads = len(world.reads)
    world.now += 9
    await world.summary()
    assert len(world.reads) == reads, "nothing is read again so soon"
    world.now += 21
    found = await world.summary()
    assert len(world.reads) == reads + 3
    assert found["node"]["cpu"]["windowSeconds"] == 30.0
    world.now += 600
    found = await world.summary()
    assert found["node"]["cpu"]["windowSeconds"] == 1.0, "nobody wants the mean of ten minutes"


async def test_many_who_ask_at_once_share_one_sampling():
    world = World()
    await asyncio.gather(*(world.summary() for _ in range(5)))
    assert len(world.reads) == 6


async def test_what_ends_is_left_out_and_the_nodes_counter_never_falls():
    world = World()
    before = await world.summary()
    world.broken = {"3"}
    world.now += 20
    after = await world.summary()
    assert [each["podRef"]["name"] for each in after["pods"]] == ["web"]
    assert after["node"]["cpu"]["usageCoreNanoSeconds"] > before["node"]["cpu"]["usageCoreNanoSeconds"]


async def test_a_container_that_was_started_within_the_window_is_counted_from_its_start():
    world = World()
    await world.summary()
    world.now += 20
    fresh = Metered("4", "default", "new", "uid-new", "new", world.now - 4)
    world.running.append(fresh)
    world.cores["4"] = 0.0
    found = await world.summary()
    told = next(each for each in found["pods"] if each["podRef"]["name"] == "new")
    assert told["cpu"]["windowSeconds"] == 4.0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Reading(A, 2000.0, 10, 0), Reading(A, 2010.0, 10 + 20_000_000_000, 5), 2_000_000_000),
        (Reading(A, 2000.0, 50, 0), Reading(A, 2010.0, 10, 5), 0),
        (None, Reading(A, 1010.0, 10_000_000_000, 5), 1_000_000_000),
        (None, Reading(A, 1000.1, 10_000_000_000, 5), None),
        # Restarted between the samples: what it used before is no part of it.
        (Reading(A._replace(started=10.0), 1000.0, 10**15, 0), Reading(A, 1002.0, 2_000_000_000, 5), 1_000_000_000),
    ],
)
def test_usage(before, after, expected):
    found = usage.usage(before, after)
    assert (found.nanocores if found else None) == expected


async def test_prometheus_can_read_the_counters():
    world = World()
    text = usage.prometheus(await world.sampler.now(), world.sampler.ended_ns)
    families = {each.name: each for each in text_string_to_metric_families(text)}
    used = {each.labels["container"]: each.value for each in families["container_cpu_usage_seconds"].samples}
    assert used == {"main": 500.0, "side": 250.0, "db": 1000.0}
    pods = {each.labels["pod"]: each.value for each in families["pod_memory_working_set_bytes"].samples}
    assert pods == {"web": float(2 << 20), "db": float(1 << 20)}
    assert families["node_cpu_usage_seconds"].samples[0].value == pytest.approx(1750)


def test_own_usage_is_of_this_process():
    first = usage.own_usage()
    sum(range(200_000))
    assert usage.own_usage().cpu_ns > first.cpu_ns > 0
    assert first.memory > 1 << 20
