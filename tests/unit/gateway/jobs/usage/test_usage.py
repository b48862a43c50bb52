"""What is measured, kept and told of usage."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from core.api.views import Pod
from core.clock import timestamp
from core.errors import BadRequest
from gateway.jobs.calls.base import ASYNC, CRON, NewCall, Outcome
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.usage.collector import SETTLED, Collector
from gateway.jobs.usage.ledger import Ledger, LedgerTaken, Row
from gateway.jobs.usage.measures import Lifetime, counters, grown, lifetime, lived
from gateway.jobs.usage.routes import documents, since_day
from gateway.worker.metrics import render
from gateway.worker.stats import Stats

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
DAY = "2027-01-15"


def text(**calls: tuple[int, int, float, int]) -> str:
    """As a gateway worker says it: function -> (2xx, 5xx, seconds, cold starts)."""
    stats = Stats(0.0)
    for name, (good, bad, seconds, cold) in calls.items():
        of = stats.function("team", name)
        for status, count in ((200, good), (500, bad)):
            for _ in range(count):
                of.count(status, seconds / (good + bad), 10, 100)
        of.cold_starts = cold
    return render(stats.functions(), [], [], 3)


def test_counters_are_read_from_a_workers_own_words():
    assert counters(text(f=(3, 1, 2.0, 1))) == {
        ("team", "f", "invocations.2xx"): 3, ("team", "f", "invocations.5xx"): 1,
        ("team", "f", "run_seconds"): 2.0, ("team", "f", "cold_starts"): 1,
        ("team", "f", "received_bytes"): 40, ("team", "f", "sent_bytes"): 400,
    }  # fmt: skip


def test_what_has_grown():
    now = {("a", "f", "x"): 5.0, ("a", "g", "x"): 2.0, ("a", "h", "x"): 1.0}
    assert grown({"a/f/x": 3.0, "a/g/x": 7.0}, now) == {
        ("a", "f", "x"): 2.0,
        ("a", "g", "x"): 2.0,
        ("a", "h", "x"): 1.0,
    }
    assert grown({"a/f/x": 5.0, "a/g/x": 2.0, "a/h/x": 1.0}, now) == {}


def pod(name: str, began: float, phase: str = "Running", **resources: dict[str, str]) -> Pod:
    document = {
        "metadata": {"name": name, "namespace": "team", "labels": {"faaslite.dev/function": "f"}},
        "spec": {"containers": [{"name": "function", "resources": resources}]},
        "status": {"phase": phase, "startTime": timestamp(began)},
    }
    return msgspec.convert(document, Pod)


def test_lifetimes():
    assert lifetime(pod("p", NOW, requests={"memory": "64Mi"}, limits={"memory": "1Gi"}), NOW + 5) == Lifetime(
        "team", "f", NOW, None, 64 << 20
    )
    assert lifetime(pod("p", NOW, "Failed", limits={"memory": "1Gi"}), NOW + 5) == Lifetime(
        "team", "f", NOW, NOW + 5, 1 << 30
    )
    assert lifetime(msgspec.convert({"metadata": {"name": "p"}}, Pod), NOW) is None
    lifetimes = [
        Lifetime("team", "f", NOW - 100, None, 10.0), Lifetime("team", "f", NOW + 4, NOW + 6, 10.0),
        Lifetime("team", "g", NOW - 9, NOW - 1, 1.0), Lifetime("other", "f", NOW + 20, None, 1.0),
    ]  # fmt: skip
    assert lived(lifetimes, NOW, NOW + 10) == {
        ("team", "f", "instance_seconds"): 12.0,
        ("team", "f", "memory_byte_seconds"): 120.0,
    }


class Worker:
    """A gateway worker's own socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.says = text()
        self._server: asyncio.Server | None = None

    async def start(self) -> Worker:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.says.encode())
            writer.close()

        self._server = await asyncio.start_unix_server(answer, self.path)
        return self

    async def kill(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)


class World:
    """A collector over a real queue and a real ledger; jobs can be restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: list[Pod] = []
        self.executed: Counter[tuple[str, str, str]] = Counter()
        self.now = NOW

    async def start(self) -> World:
        async def synced() -> None: ...

        self.calls = await SqliteCalls.open(self.folder / "calls.db")
        self.collector = Collector(
            Ledger(self.folder / "usage.db"), self.calls, self.folder, lambda: self.pods, synced, self.executed, lambda: self.now,
        )  # fmt: skip
        return self

    async def stop(self) -> None:
        await self.collector.stop()
        await self.calls.close()

    async def step(self, now: float) -> dict[str, float]:
        self.now = now
        await self.collector.step(now)
        return await self.sums()

    async def sums(self) -> dict[str, float]:
        found: Counter[str] = Counter()
        for row in await self.collector.rows("", ""):
            found[f"{row.function}.{row.what}"] += row.amount
        return dict(found)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = await World(tmp_path).start()
    yield found
    with contextlib.suppress(Exception):
        await found.stop()


async def test_gateways_counters_add_up_whoever_restarts(world, tmp_path):
    first = await Worker(tmp_path / "gateway-1.sock").start()
    second = await Worker(tmp_path / "gateway-2.sock").start()
    first.says, second.says = text(f=(3, 0, 1.0, 1)), text(f=(2, 1, 1.0, 0))
    assert (await world.step(NOW))["f.invocations.2xx"] == 5
    first.says = text(f=(7, 0, 2.0, 1))
    await world.stop()
    await world.start()  # jobs was restarted: it knows what it had read
    found = await world.step(NOW + 15)
    assert found == {
        "f.invocations.2xx": 9, "f.invocations.5xx": 1, "f.run_seconds": 3.0, "f.cold_starts": 1, "f.received_bytes": 100, "f.sent_bytes": 1000,
    }  # fmt: skip
    await first.kill()
    first = await Worker(
        tmp_path / "gateway-1.sock"
    ).start()  # a worker was killed, and has counted more than before already
    first.says = text(f=(20, 0, 4.0, 2))
    assert (await world.step(NOW + 30))["f.invocations.2xx"] == 29
    assert (await world.step(NOW + 45))["f.invocations.2xx"] == 29
    assert len([each for each in world.collector._ledger.sources() if each.startswith("gateway-1/")]) == 1
    await first.kill()
    await second.kill()
    assert (await world.step(NOW + 60))["f.invocations.2xx"] == 29


async def test_ended_calls_are_counted_once(world):
    await world.step(NOW)
    calls = world.calls

    async def end(name: str, at: float, trigger: str = ASYNC, status: str = "Succeeded") -> None:
        cron = {"cron": "n", "scheduled_at": at} if trigger == CRON else {}
        await calls.insert(
            [NewCall(id=name, namespace="team", function="f", trigger=trigger, accepted_at=at - 1, **cron)]
        )
        (held,) = await calls.claim("me", at, 30.0, 1)
        await calls.finish(held.id, held.fence, Outcome(status, 200), at)

    await end("c1", NOW + 1)
    await end("c2", NOW + 2, status="DeadLetter")
    await end("c3", NOW + 3, CRON)
    await end("late", NOW + 8)
    assert await world.step(NOW + 4 + SETTLED) == {
        "f.async.Succeeded": 1,
        "f.async.DeadLetter": 1,
        "f.cron.Succeeded": 1,
    }
    await world.stop()
    await world.start()
    assert (await world.step(NOW + 20 + SETTLED))["f.async.Succeeded"] == 2
    assert (await world.step(NOW + 90 + SETTLED))["f.async.Succeeded"] == 2


async def test_instances_are_counted_while_they_live(world):
    await world.step(NOW)
    world.pods = [pod("a", NOW - 50, requests={"memory": "1Gi"}), pod("b", NOW + 5)]
    found = await world.step(NOW + 10)
    assert (found["f.instance_seconds"], found["f.memory_byte_seconds"]) == (15.0, 10 * 2**30)
    ended = world.pods.pop()
    world.now = NOW + 12
    world.collector.on_pod(ended, None)
    world.collector.on_pod(pod("c", NOW + 1, "Succeeded"), None)  # its end was told before
    assert (await world.step(NOW + 20))["f.instance_seconds"] == 15.0 + 10 + 2
    await world.stop()
    await world.start()  # what lives went on living while jobs was away
    assert (await world.step(NOW + 100))["f.instance_seconds"] == 15.0 + 10 + 2 + 80


async def test_what_could_not_be_written_is_not_lost(world, monkeypatch):
    await world.step(NOW)
    world.executed["team", "f", "2xx"] = 4
    world.collector.on_pod(pod("a", NOW), None)
    add = world.collector._ledger.add
    monkeypatch.setattr(world.collector._ledger, "add", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        await world.step(NOW + 10)
    monkeypatch.setattr(world.collector._ledger, "add", add)
    world.executed["team", "f", "2xx"] += 1
    assert (await world.step(NOW + 20))["f.executed.2xx"] == 5


def test_a_ledger_is_one_processs(tmp_path):
    ledger = Ledger(tmp_path / "usage.db")
    with pytest.raises(LedgerTaken, match="another process"):
        Ledger(tmp_path / "usage.db")
    ledger.add(DAY, {("a", "f", "x"): 1.0, ("a", "f", "zero"): 0.0}, {"s": {"k": 2.0}})
    ledger.add("2027-01-16", {("b", "f", "x"): 2.0}, {"s": {"l": 3.0}})
    assert ledger.rows("2027-01-16") == [Row("2027-01-16", "b", "f", "x", 2.0)]
    assert ledger.rows("", "a") == [Row(DAY, "a", "f", "x", 1.0)]
    assert ledger.read("s") == {"l": 3.0}
    ledger.forget("2027-01-16", ["s"])
    assert (ledger.rows("", "a"), ledger.read("s")) == ([], {})
    ledger.close()
    Ledger(tmp_path / "usage.db").close()


def test_documents_tell_calls_by_their_trigger():
    def row(what: str, amount: float) -> Row:
        return Row(DAY, "team", "f", what, amount)

    (found,) = documents([
        row("invocations.2xx", 10), row("invocations.5xx", 2), row("executed.2xx", 4), row("executed.5xx", 2), row("async.Succeeded", 3),
        row("cron.DeadLetter", 1), row("run_seconds", 1.23456), row("instance_seconds", 60.04), row("memory_byte_seconds", 2**31), row("received_bytes", 7),
    ])  # fmt: skip
    assert found == {
        "day": DAY, "namespace": "team", "function": "f",
        "calls": {"http": {"2xx": 6}, "async": {"Succeeded": 3}, "cron": {"DeadLetter": 1}},
        "runSeconds": 1.235, "coldStarts": 0, "instanceSeconds": 60.0, "memoryGiBSeconds": 2.0,
        "receivedBytes": 7, "sentBytes": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("since", "day"),
    [
        ("30d", "2026-12-16"),
        ("0d", DAY),
        ("9h", "2027-01-14"),
        ("2027-01-01", "2027-01-01"),
        ("2026-12-31T23:59:59Z", "2026-12-31"),
    ],
)
def test_since(since, day):
    assert since_day(since, NOW) == day


@pytest.mark.parametrize("since", ["", "yesterday", "2027-13-01", "-3d", "3 weeks"])
def test_since_that_means_nothing(since):
    with pytest.raises(BadRequest, match="since: "):
        since_day(since, NOW)
