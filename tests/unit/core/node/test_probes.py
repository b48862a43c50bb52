from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from core.api import views
from core.node.checks import Target, check
from core.node.probes import ContainerProbes


class Server:
    """Answers with `status`, or not at all."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    listener = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = listener.sockets[0].getsockname()[1]
    yield found
    listener.close()
    await listener.wait_closed()


class Commands:
    def __init__(self) -> None:
        self.results: list[int] = []
        self.calls = 0
        self.delay = 0.0

    async def run(self, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        self.calls += 1
        await asyncio.sleep(self.delay)
        return (self.results.pop(0) if len(self.results) > 1 else self.results[0]), b"said"


def target(commands: Commands | None = None, port: int = 0) -> Target:
    return Target("127.0.0.1", {"http": port}, (commands or Commands()).run)


async def test_http(server: Server) -> None:
    where = target(port=server.port)
    action = {"httpGet": {"port": "http", "path": "/x", "httpHeaders": [{"name": "A", "value": "b"}]}}
    assert (await check(action, where, 1)).ok
    assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\n") and b"A: b\r\n" in server.requests[0]
    server.status = 503
    found = await check(action, where, 1)
    assert (found.ok, found.message) == (False, "HTTP probe failed with statuscode: 503")


async def test_failures_are_told_and_not_raised(server: Server, unused_tcp_port: int) -> None:
    commands = Commands()
    commands.results, commands.delay = [0], 5.0
    where = target(commands)
    assert (await check({"sleep": {"seconds": 0}}, where, 1)).ok
    assert not (await check({"tcpSocket": {"port": unused_tcp_port}}, where, 1)).ok
    assert "no port named 'none'" in (await check({"httpGet": {"port": "none"}}, where, 1)).message
    assert (await check({"exec": {"command": ["x"]}}, where, 0.02)).message == "no answer within 0.02 s"
    assert "grpc" in (await check({"grpc": {"port": 1}}, where, 1)).message


class Watched:
    def __init__(self, commands: Commands, **probes: dict[str, Any]) -> None:
        document = {f"{kind}Probe": {"exec": {"command": [kind]}, **probe} for kind, probe in probes.items()}
        self.results: list[tuple[str, bool]] = []
        self.failures: list[str] = []
        self.news = asyncio.Event()
        self.probes = ContainerProbes(
            msgspec.convert(document, views.Container), target(commands), self._result, self._failure
        )

    def _result(self, kind: str, holds: bool, message: str) -> None:
        self.results.append((kind, holds))
        self.news.set()

    def _failure(self, kind: str, message: str) -> None:
        self.failures.append(kind)

    async def until(self, count: int) -> list[tuple[str, bool]]:
        async with asyncio.timeout(5):
            while len(self.results) < count:
                self.news.clear()
                await self.news.wait()
        self.probes.stop()
        return self.results


async def test_readiness_follows_startup() -> None:
    commands = Commands()
    commands.results = [1, 1, 0, 0]
    watched = Watched(commands, startup={}, readiness={})
    watched.probes.start()
    assert await watched.until(2) == [("startup", True), ("readiness", True)]
    assert watched.failures == []  # the ramp doesn't count


async def test_announcement_is_the_first_success() -> None:
    commands = Commands()
    commands.results = [1]
    watched = Watched(
        commands,
        startup={"initialDelaySeconds": 60},
        readiness={"initialDelaySeconds": 60},
        liveness={"initialDelaySeconds": 60},
    )
    watched.probes.start()
    watched.probes.announce()
    assert await watched.until(2) == [("startup", True), ("readiness", True)]
    assert commands.calls == 0


async def test_who_announces_itself_is_not_asked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    commands.results = [0]
    quiet = Watched(commands, startup={}, readiness={})
    quiet.probes.start(announces=True)
    for _ in range(20):
        await asyncio.sleep(0)
    assert commands.calls == 0
    quiet.probes.announce()
    assert await quiet.until(2) == [("startup", True), ("readiness", True)]
    assert commands.calls == 0
    # Where the announcement doesn't come, looks do.
    monkeypatch.setattr("core.node.probes.ANNOUNCEMENT", 0.01)
    lost = Watched(commands, startup={}, readiness={})
    lost.probes.start(announces=True)
    assert await lost.until(2) == [("startup", True), ("readiness", True)]
    assert commands.calls >= 2


async def test_an_announcement_counts_though_a_look_is_under_way() -> None:
    """The container answers only later, as one that is busy with its start does."""
    commands = Commands()
    commands.results, commands.delay = [0], 60.0
    watched = Watched(commands, startup={}, readiness={})
    watched.probes.start()
    for _ in range(20):
        await asyncio.sleep(0)
    assert commands.calls == 1
    watched.probes.announce()
    assert await watched.until(2) == [("startup", True), ("readiness", True)]
    assert watched.failures == []


async def test_liveness_fails_at_its_threshold() -> None:
    commands = Commands()
    commands.results = [0, 1]
    watched = Watched(commands, liveness={"periodSeconds": 1, "failureThreshold": 2})
    watched.probes.start()
    assert await watched.until(2) == [("liveness", True), ("liveness", False)]
    assert watched.failures == ["liveness", "liveness"]


async def test_what_has_just_started_is_first_asked_whether_it_lives_after_a_period() -> None:
    commands = Commands()
    commands.results = [0]
    watched = Watched(commands, startup={"initialDelaySeconds": 60}, readiness={}, liveness={"periodSeconds": 1})
    begin = asyncio.get_running_loop().time()
    watched.probes.start()
    watched.probes.announce()
    assert await watched.until(3) == [("startup", True), ("readiness", True), ("liveness", True)]
    assert asyncio.get_running_loop().time() - begin >= 1.0
    assert commands.calls == 1


async def test_nothing_is_looked_at_after_the_stop() -> None:
    commands = Commands()
    commands.results, commands.delay = [0], 0.01
    watched = Watched(commands, readiness={})
    watched.probes.start()
    await asyncio.sleep(0.002)
    watched.probes.stop()
    await asyncio.sleep(0.03)
    assert watched.results == []
