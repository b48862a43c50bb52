"""What one connection can do to a server: heads, pipelines, slow senders, ends. Over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from core import guarded
from core.asgi import GONE, HOLD
from core.serving import AsgiServer


class Site:
    """A server whose application answers its path; `/slow` waits for `release`, `/refused` asks for a hold."""

    def __init__(self):
        self.release = asyncio.Event()
        self.seen: list[str] = []
        self.came = asyncio.Event()
        self.gone = 0
        self.running = 0

    async def __call__(self, scope, receive, send):
        self.seen.append(scope["path"])
        self.came.set()
        self.running += 1
        try:
            if scope["path"] == "/slow":
                scope[GONE] = self._gone
                await self.release.wait()
            if scope["path"] == "/refused":
                scope[HOLD] = 0.2
            body = b""
            while scope["method"] == "POST":
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            text = scope["path"].encode() + body
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
            )
            await send({"type": "http.response.body", "body": text})
        finally:
            self.running -= 1

    def _gone(self):
        self.gone += 1


@pytest.fixture
async def site():
    made = Site()
    listener = socket.create_server(("127.0.0.1", 0))
    made.address = listener.getsockname()
    made.server = AsgiServer(made, listener, drain=0.1)
    await made.server.start()
    made.guards = made.server._guards
    yield made
    made.release.set()
    await made.server.stop()
    assert (made.guards.total, made.guards.connections, made.guards.open) == (0, {}, set())


@contextlib.asynccontextmanager
async def _connected(site):
    reader, writer = await asyncio.open_connection(*site.address)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _exchange(site, data):
    """All that a server answers until it closes."""
    async with _connected(site) as (reader, writer):
        writer.write(data)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while more := await reader.read(65536):
                found += more
        return found


def _get(path="/x", *headers):
    return ("\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *headers)) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_get("/" + "a" * 20_000), b"414"),
        (_get("/x", *(f"h{each}: y" for each in range(300))), b"431"),
        (_get("/x", "h: " + "y" * 70_000), b"431"),
        (b"GET /x HTTP/1.1\r\nh: " + b"y" * 70_000, b"431"),
        (b"GET /" + b"x" * 70_000, b"414"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /x HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    ],
)
async def test_heads_that_are_no_heads(site, data, status, caplog):
    assert (await _exchange(site, data)).startswith(b"HTTP/1.1 " + status)
    assert site.seen == [] and caplog.records == []


async def test_long_but_good_heads_are_served(site):
    data = _get("/" + "a" * 15_000, "Connection: close", *(f"h{each}: {'y' * 200}" for each in range(150)))
    assert (await _exchange(site, data)).startswith(b"HTTP/1.1 200")


async def test_heads_have_a_time_to_come_in(site, monkeypatch):
    monkeypatch.setattr(guarded, "HEAD_SECONDS", 5.0)
    now = asyncio.get_running_loop().time()
    async with (
        _connected(site) as (idle, _),
        _connected(site) as (slow, slow_writer),
        _connected(site) as (blank, blank_writer),
        _connected(site) as (kept, kept_writer),
    ):
        slow_writer.write(b"GET /x HT")
        blank_writer.write(b"\r\n")
        kept_writer.write(_get("/kept"))
        assert (await kept.readuntil(b"/kept")).startswith(b"HTTP/1.1 200")
        async with _connected(site) as (last, last_writer):  # whatever was sent before this has come in, too
            last_writer.write(_get("/last"))
            await last.readuntil(b"/last")
        site.guards.look(now + 4.0)
        assert len(site.guards.open) >= 4
        site.guards.look(now + 60.0)
        assert (await slow.read()).startswith(b"HTTP/1.1 408")
        assert await idle.read() == b"" and not (await blank.read()).startswith(b"HTTP/1.1 200")
        kept_writer.write(_get("/again"))  # a kept connection without a head is left to its own timer
        assert (await kept.readuntil(b"/again")).startswith(b"HTTP/1.1 200")


async def test_a_pipeline_is_answered_in_order_and_parsed_a_little_at_a_time(site):
    count = 3000
    async with _connected(site) as (reader, writer):
        writer.write(_get("/slow") + b"".join(_get(f"/{each}") for each in range(count)))
        await site.came.wait()
        await asyncio.sleep(0.05)
        (protocol,) = site.guards.open
        assert site.seen == ["/slow"] and len(protocol.pipeline) < 300
        assert sum(map(len, protocol._unfed)) < 300_000
        site.release.set()
        for each in range(count):
            await reader.readuntil(f"\r\n\r\n/{each}".encode())
    assert site.seen == ["/slow", *(f"/{each}" for each in range(count))]


async def test_pipelined_bodies_arrive_whole(site):
    bodies = [bytes([65 + each]) * 50_000 for each in range(8)]
    async with _connected(site) as (reader, writer):
        for each in bodies:
            writer.write(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(each), each))
        for each in bodies:
            await reader.readuntil(b"\r\n\r\n/p")
            assert await reader.readexactly(len(each)) == each


async def test_a_refused_connection_is_not_read_for_a_while(site):
    async with _connected(site) as (reader, writer):
        writer.write(_get("/refused") + _get("/next"))
        await reader.readuntil(b"/refused")
        began = asyncio.get_running_loop().time()
        async with _connected(site) as (other, other_writer):
            other_writer.write(_get("/other"))
            await other.readuntil(b"/other")
        assert site.seen == ["/refused", "/other"]
        await reader.readuntil(b"/next")
        assert asyncio.get_running_loop().time() - began > 0.1


async def test_who_goes_is_told_of_even_behind_a_pipeline(site):
    async with _connected(site) as (_, writer):
        writer.write(_get("/slow") + _get("/never"))
        await site.came.wait()
        writer.transport.abort()
        # The socket isn't read while requests wait behind the one that runs, so the end shows when its reply is written.
        site.release.set()
        while site.running:  # noqa: ASYNC110 - of the application's own count
            await asyncio.sleep(0.01)
    while site.guards.open:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_who_goes_while_his_request_waits_is_told_of(site):
    async with _connected(site) as (_, writer):
        writer.write(_get("/slow"))
        await site.came.wait()
        writer.transport.abort()
        while not site.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_connections_are_counted(site, monkeypatch):
    monkeypatch.setattr(guarded, "CONNECTIONS_PER_ADDRESS", 2)
    async with _connected(site) as (first, first_writer), _connected(site) as (second, second_writer):
        for reader, writer in ((first, first_writer), (second, second_writer)):
            writer.write(_get("/in"))
            await reader.readuntil(b"/in")
        assert await _exchange(site, _get("/out")) == b""
    assert "/out" not in site.seen
