"""The collector on a real Unix socket."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator

import pytest

from autoscaler import collector as module
from autoscaler.collector import Collector
from faaslite.api.wire import Hello, Load, Notice, Poke, Report, encode

TIMEOUT = 5.0
REPORT = Report(1.0, [Load("default/a-00001", 1.5, 3, 0)])


class Recorder:
    """A sink that keeps what it gets; `until(n)` waits for the n-th."""

    def __init__(self) -> None:
        self.got: list[tuple[str, object]] = []
        self._more = asyncio.Event()

    def _add(self, source: str, what: object) -> None:
        self.got.append((source, what))
        self._more.set()

    def poked(self, source: str, message: Poke) -> None:
        self._add(source, message)

    def reported(self, source: str, message: Report) -> None:
        self._add(source, message)

    def disconnected(self, source: str) -> None:
        self._add(source, "gone")

    async def until(self, count: int) -> list[object]:
        async with asyncio.timeout(TIMEOUT):
            while len(self.got) < count:
                self._more.clear()
                await self._more.wait()
        return [each for _, each in self.got]


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
async def collector(tmp_path, sink) -> AsyncIterator[Collector]:
    found = Collector(tmp_path / "a.sock", sink)
    await found.start()
    yield found
    await found.stop()


async def test_messages_arrive_in_order_however_they_are_cut(collector, sink, connect, tmp_path):
    gateway = await connect(tmp_path / "a.sock")
    poke = Poke("default/a-00001", 4)
    data = encode(Hello("w1")) + encode(poke) + encode(REPORT)
    for at in range(0, len(data), 7):
        gateway.raw(data[at : at + 7])
        await gateway.writer.drain()
        await asyncio.sleep(0)
    assert await sink.until(2) == [poke, REPORT]


async def test_the_socket_is_the_owners_alone(collector, tmp_path):
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600


async def test_garbage_is_skipped_and_counted(collector, sink, connect, tmp_path):
    gateway = await connect(tmp_path / "a.sock")
    gateway.raw(b'\xff\xfe{"not json\n\n[]\n{"type":"unknown"}\n{"type":"poke","revision":7}\n')
    gateway.send(Notice("r", "X", "gateways don't send these"), REPORT)
    assert await sink.until(1) == [REPORT]
    assert collector.garbage == 5


async def test_a_line_without_end_closes_its_connection_and_no_other(collector, sink, connect, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 1000)
    bad, good = await connect(tmp_path / "a.sock"), await connect(tmp_path / "a.sock")
    bad.raw(b"x" * 5000)
    assert await bad.receive() is None
    good.send(REPORT)
    assert REPORT in await sink.until(2)


async def test_a_gateway_that_leaves_is_told_of(collector, sink, connect, tmp_path):
    gateway = await connect(tmp_path / "a.sock")
    gateway.send(Hello("w1"), REPORT)
    await sink.until(1)
    await gateway.close()
    assert (await sink.until(2))[1] == "gone"
    assert sink.got[0][0] == sink.got[1][0]


async def test_a_gateway_that_connects_again_replaces_its_old_connection(collector, sink, connect, tmp_path):
    old = await connect(tmp_path / "a.sock")
    old.send(Hello("w1"), REPORT)
    await sink.until(1)
    new = await connect(tmp_path / "a.sock")
    new.send(Hello("w1"), REPORT)
    assert await sink.until(3) == [REPORT, "gone", REPORT]
    assert await old.receive() is None
    assert sink.got[0][0] == sink.got[1][0] != sink.got[2][0]


async def test_notices_go_to_the_one_that_is_meant(collector, sink, connect, tmp_path):
    one, two = await connect(tmp_path / "a.sock"), await connect(tmp_path / "a.sock")
    for gateway in (one, two):
        gateway.send(REPORT)
    await sink.until(2)
    first, second = (source for source, _ in sink.got)
    collector.notify(first, Notice("r", "A", "first"))
    collector.notify(second, Notice("r", "B", "second"))
    collector.notify("connection-99", Notice("r", "C", "nobody"))
    assert {(await one.receive()).reason, (await two.receive()).reason} == {"A", "B"}


async def test_stop_ends_connections_and_a_stale_socket_is_replaced(tmp_path, sink, connect):
    path = tmp_path / "a.sock"
    first = Collector(path, sink)
    await first.start()
    gateway = await connect(path)
    gateway.send(REPORT)
    await sink.until(1)
    await first.stop()
    assert await gateway.receive() is None
    assert not path.exists()

    loop = asyncio.get_running_loop()
    dead = await loop.create_unix_server(asyncio.Protocol, str(path))
    dead.close()
    await dead.wait_closed()
    assert path.exists(), "this one left its file behind"
    second = Collector(path, sink)
    await second.start()
    (await connect(path)).send(REPORT)
    assert (await sink.until(3))[-1] == REPORT
    await second.stop()
