"""A call's way to an instance and its reply's way back."""

from __future__ import annotations

import asyncio
import re
import time

import pytest


async def test_a_call_is_passed_on_with_its_path_rewritten_and_its_fields_added(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    found = await world.ask(
        "/function/hello/a/b?c=d", "GET", b"", "X-Mine: 1", "Keep-Alive: 5", "Connection: X-Gone", "X-Gone: 1"
    )
    assert (found.status, found.body) == (200, b"hello")
    request = instance.requests[0]
    assert request.line == "GET /a/b?c=d HTTP/1.1"
    assert request.fields["x-mine"] == "1"
    assert request.fields["host"] == "test"
    assert request.fields["x-forwarded-for"] == "127.0.0.1"
    assert request.fields["x-forwarded-host"] == "test"
    assert request.fields["x-forwarded-proto"] == "http"
    assert not {"keep-alive", "connection", "x-gone"} & set(request.fields)
    assert re.fullmatch("[0-9a-f]{32}", request.fields["x-call-id"])
    assert found.fields["x-call-id"] == request.fields["x-call-id"]
    assert "x-faaslite-cold-start" not in found.fields
    assert 25 < float(request.fields["x-faaslite-deadline"]) - time.time() < 31


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/function/hello", "GET / HTTP/1.1"),
        ("/function/hello/", "GET / HTTP/1.1"),
        ("/function/hello?a=/b", "GET /?a=/b HTTP/1.1"),
        ("/function/hello.default/x", "GET /x HTTP/1.1"),
        ("http://elsewhere/function/hello/x?y", "GET /x?y HTTP/1.1"),
    ],
)
async def test_targets(world, target, line):
    world.function()
    instance = await world.instance()
    await world.serve()
    assert (await world.ask(target)).status == 200
    assert instance.requests[0].line == line


async def test_a_body_with_a_target_in_absolute_form(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    assert (await world.ask("http://elsewhere/function/hello/x", "POST", b"abc")).status == 200
    assert (instance.requests[0].target, instance.requests[0].body) == ("/x", b"abc")


async def test_a_valid_call_id_and_an_earlier_deadline_are_kept(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    deadline = f"{time.time() + 3:.3f}"
    found = await world.ask("/function/hello", "GET", b"", "X-Call-Id: mine-1", f"X-Faaslite-Deadline: {deadline}")
    assert found.fields["x-call-id"] == "mine-1"
    assert instance.requests[0].fields["x-faaslite-deadline"] == deadline
    late = f"{time.time() + 3000:.3f}"
    found = await world.ask("/function/hello", "GET", b"", "X-Call-Id: no good", f"X-Faaslite-Deadline: {late}")
    assert re.fullmatch("[0-9a-f]{32}", found.fields["x-call-id"])
    assert float(instance.requests[1].fields["x-faaslite-deadline"]) < float(late) - 2000


async def test_connections_are_kept_on_both_sides(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    for count in range(5):
        assert (await peer.ask(f"/function/hello/{count}")).body == b"hello"
    assert instance.connections == 1
    assert [each.target for each in instance.requests] == ["/0", "/1", "/2", "/3", "/4"]


async def test_a_forged_forwarded_for_is_replaced_unless_trusted(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    await world.ask("/function/hello", "GET", b"", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")
    assert instance.requests[0].fields["x-forwarded-for"] == "127.0.0.1"
    assert instance.requests[0].fields["x-forwarded-proto"] == "http"


async def test_a_trusted_proxy_is_added_to(world):
    world.function()
    instance = await world.instance()
    await world.serve(trust_forwarded=True)
    await world.ask("/function/hello", "GET", b"", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")
    assert instance.requests[0].fields["x-forwarded-for"] == "6.6.6.6, 127.0.0.1"
    assert instance.requests[0].fields["x-forwarded-proto"] == "https"


async def test_pipelined_requests_are_answered_in_order(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    count = 200
    peer.write(b"".join(b"GET /function/hello/%d HTTP/1.1\r\nHost: a\r\n\r\n" % each for each in range(count)))
    for _ in range(count):
        assert (await peer.reply()).status == 200
    assert [each.target for each in instance.requests] == [f"/{each}" for each in range(count)]


async def test_pipelined_requests_with_bodies_and_errors_between(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    post = b"POST /function/%s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    chunked = b"POST /function/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\n\r\n"
    peer.write((post % b"hello") + (post % b"missing") + chunked + (post % b"hello"))
    assert [(await peer.reply()).status for _ in range(4)] == [200, 404, 200, 200]
    assert [each.body for each in instance.requests] == [b"abc", b"def", b"abc"]


async def test_a_thousand_pipelined_errors_do_not_grow_the_stack(world):
    await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/x HTTP/1.1\r\nHost: a\r\n\r\n" * 1500)
    for _ in range(1500):
        assert (await peer.reply()).status == 404


@pytest.mark.parametrize("size", [1, 64 * 1024, 10 * 1024 * 1024])
async def test_bodies_of_every_size_in_both_directions(world, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    world.function()
    instance = await world.instance()
    instance.body = body
    await world.serve()
    found = await world.ask("/function/hello", "POST", body)
    assert found.body == body
    assert instance.requests[0].body == body


async def test_chunked_bodies_in_both_directions(world, read):
    parts = [b"x" * 70_000, b"y", b"z" * 300_000]

    async def handler(reader, writer):
        request = await read(reader)
        assert request.body == b"".join(parts)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        await reader.read()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in parts:
        peer.write(b"%x\r\n%s\r\n" % (len(part), part))
    peer.write(b"0\r\n\r\n")
    assert (await peer.reply()).body == b"".join(parts)


async def test_a_client_of_http_1_0_gets_no_chunks(world, read):
    async def handler(reader, writer):
        await read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        await reader.read()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.0\r\n\r\n")
    head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
    assert body == b"abcde"
    assert b"chunked" not in head and b"Connection: close" in head


async def test_http_1_0_with_keep_alive(world):
    world.function()
    await world.instance()
    await world.serve()
    peer = await world.peer()
    for _ in range(2):
        peer.write(b"GET /function/hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await peer.reply()).fields["connection"] == "keep-alive"


async def test_connection_close_is_honoured(world):
    world.function()
    await world.instance()
    await world.serve()
    peer = await world.peer()
    found = await peer.ask("/function/hello", "GET", b"", "Connection: close")
    assert found.fields["connection"] == "close"
    assert await peer.rest() == b""


async def test_a_reply_that_ends_with_the_connection(world, read):
    async def handler(reader, writer):
        await read(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)
        await writer.drain()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    found = await peer.ask()
    assert found.body == b"x" * 100_000
    assert found.fields["connection"] == "close"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_replies_without_a_body(world, read, status):
    async def handler(reader, writer):
        while True:
            await read(reader)
            writer.write(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    for _ in range(2):
        assert (await peer.ask()).fields["etag"] == "x"
    assert instance.connections == 1


async def test_head(world, read):
    async def handler(reader, writer):
        while True:
            await read(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    for _ in range(2):
        assert (await peer.ask(method="HEAD")).fields["content-length"] == "1000"
    assert instance.connections == 1
    missing = await peer.ask("/function/missing", "HEAD")
    assert missing.status == 404
    assert (await peer.ask(method="HEAD")).status == 200


async def test_expect_continue_is_answered_when_the_call_has_an_instance(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert (await peer.reply()).status == 100
    peer.write(b"body")
    assert (await peer.reply()).status == 200
    assert instance.requests[0].body == b"body"
    assert "expect" not in instance.requests[0].fields


async def test_expect_continue_is_refused_without_the_body(world):
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/missing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    found = await peer.reply()
    assert (found.status, found.fields["connection"]) == (404, "close")


async def test_interim_replies(world, read, make_reply):
    async def handler(reader, writer):
        await read(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + make_reply())
        await reader.read()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask()).status == 103
    assert (await peer.reply()).status == 200


async def test_upgrade_passes_bytes_both_ways(world, read):
    async def handler(reader, writer):
        request = await read(reader)
        assert request.fields["upgrade"] == "websocket" and request.fields["connection"] == "upgrade"
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key: k\r\n\r\nfirst"
        )
        while data := await reader.read(100):
            writer.write(data.upper())

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    found = await peer.ask("/function/hello/ws", "GET", b"", "Connection: Upgrade", "Upgrade: websocket")
    assert (found.status, found.fields["upgrade"], found.fields["x-key"]) == (101, "websocket", "k")
    assert await peer.reader.readexactly(5) == b"first"
    for word in (b"ping", b"pong"):
        peer.write(word)
        assert await peer.reader.readexactly(4) == word.upper()
    await peer.close()
    await asyncio.wait_for(instance.lost.wait(), 5)


async def test_h2c_is_not_passed_on(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    await world.ask(
        "/function/hello", "GET", b"", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"
    )
    assert not {"upgrade", "connection", "http2-settings"} & set(instance.requests[0].fields)


async def test_a_slow_reader_holds_the_instance_back(world, read):
    total = 64 * 1024 * 1024
    written = 0
    stuck = asyncio.Event()

    async def handler(reader, writer):
        nonlocal written
        await read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        part = b"x" * (1 << 20)
        for _ in range(total // len(part)):
            writer.write(part)
            written += len(part)
            try:
                await asyncio.wait_for(asyncio.shield(writer.drain()), 0.3)
            except TimeoutError:
                stuck.set()
                return

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer(limit=1 << 16)
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n")
    await peer.reader.readexactly(10)
    await asyncio.wait_for(stuck.wait(), 10)
    assert written < total // 2


async def test_a_slow_instance_holds_the_client_back(world):
    go = asyncio.Event()
    body = b"x" * (48 * 1024 * 1024)
    got = bytearray()

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while len(got) < len(body):
            got.extend(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
    peer.write(body)
    drained = asyncio.ensure_future(peer.writer.drain())
    done, _ = await asyncio.wait([drained], timeout=0.3)
    assert not done, "the gateway took 48 MiB that its instance did not read"
    go.set()
    assert (await peer.reply()).status == 200
    await drained
    assert got == body
