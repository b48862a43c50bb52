"""What isn't HTTP, or is it in two ways, ends with a 4xx and a closed connection, and never reaches an instance."""

from __future__ import annotations

import asyncio

import pytest

LINE = b"POST /function/hello HTTP/1.1\r\n"
HOST = b"Host: a\r\n"

BAD = {
    "length and encoding": LINE + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": LINE + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "twice the same length": LINE + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": LINE + HOST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "negative length": LINE + HOST + b"Content-Length: -1\r\n\r\n",
    "signed length": LINE + HOST + b"Content-Length: +4\r\n\r\nabcd",
    "hexadecimal length": LINE + HOST + b"Content-Length: 0x4\r\n\r\nabcd",
    "empty length": LINE + HOST + b"Content-Length: \r\n\r\n",
    "huge length": LINE + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "unknown encoding": LINE + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two encodings": LINE + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": LINE + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "encoding in 1.0": b"POST /function/hello HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": LINE + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "vertical tab in encoding": LINE + HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "folded field": LINE + HOST + b"X: a\r\n b\r\n\r\n",
    "folded first field": LINE + b" X: a\r\n" + HOST + b"\r\n",
    "bare line feed between fields": LINE + HOST + b"X: a\nY: b\r\n\r\n",
    "bare line feed throughout": b"GET /function/hello HTTP/1.1\nHost: a\n\n",
    "bare line feed at the end": b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\n",
    "bare carriage return": LINE + HOST + b"X: a\rY: b\r\n\r\n",
    "zero byte in value": LINE + HOST + b"X: a\x00b\r\n\r\n",
    "zero byte in name": LINE + HOST + b"X\x00: a\r\n\r\n",
    "no name": LINE + HOST + b": a\r\n\r\n",
    "no colon": LINE + HOST + b"nothing\r\n\r\n",
    "no host": b"GET /function/hello HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /function/hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /function/hello world HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /function/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "non-ASCII target": b"GET /function/hell\xc3\xb6 HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /function/hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lower version": b"GET /function/hello HTTP/1.2\r\nHost: a\r\n\r\n",
    "method with brackets": b"G(T /function/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "target that is no path": b"GET hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown expectation": LINE + HOST + b"Expect: more\r\nContent-Length: 1\r\n\r\nx",
    "only empty lines": b"\r\n" * 20,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_it_is_refused_and_the_connection_closed(world, data):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    peer.write(data)
    found = await peer.reply()
    assert found.status == 400
    assert found.error["error"] == "BadRequest"
    assert found.error["callId"] == found.fields["x-call-id"]
    assert found.fields["connection"] == "close"
    assert await peer.rest() == b""
    assert instance.requests == []


async def test_in_pieces_it_is_refused_as_well(world):
    """Wherever the bytes are cut: a parser that waits for more must not forget what it has seen."""
    world.function()
    instance = await world.instance()
    await world.serve()
    wrong = []
    for name, data in BAD.items():
        if name == "only empty lines":  # in pieces they are passed over as they come, see the next test
            continue
        for size in (1, 7):
            peer = await world.peer()
            for start in range(0, len(data), size):
                peer.write(data[start : start + size])
                for _ in range(2):  # the gateway reads it
                    await asyncio.sleep(0)
                if peer.reader._buffer:  # it has answered
                    break
            found = await peer.reply()
            if found.status != 400 or await peer.rest():
                wrong.append((name, size, found.line))
            await peer.close()
    assert not wrong, wrong
    assert instance.requests == []


async def test_empty_lines_do_not_keep_a_connection(world):
    await world.serve(header_timeout=0.3, idle_timeout=0.3)
    peer = await world.peer()
    rest = asyncio.ensure_future(peer.rest())
    for _ in range(500):
        peer.write(b"\r\n")
        done, _ = await asyncio.wait([rest], timeout=0.02)
        if done:
            break
    assert rest.done(), "it was kept open"
    await asyncio.gather(rest, return_exceptions=True)


CHUNKS = {
    "no size": b"\r\n\r\n",
    "not hexadecimal": b"g\r\n",
    "signed": b"-1\r\n",
    "prefixed": b"0x1\r\nx\r\n",
    "too long": b"1" * 17 + b"\r\n",
    "bare line feed": b"1\nx\n0\n\n",
    "content too long": b"1\r\nxx\r\n0\r\n\r\n",
    "bare line feed in extension": b"1;a=\nb\r\nx\r\n",
    "bare carriage return in extension": b"1;a=\rb\r\nx\r\n",
    "trailer without colon": b"0\r\nnothing\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "endless extension": b"1;" + b"x" * 5000,
    "endless trailers": b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000,
}


@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize("data", CHUNKS.values(), ids=CHUNKS.keys())
async def test_malformed_chunks_are_refused(world, data, together):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    head = LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    if together:
        peer.write(head + data)
    else:
        peer.write(head + b"1\r\nx\r\n")
        for start in range(0, len(data), 1 + len(data) // 20):
            peer.write(data[start : start + 1 + len(data) // 20])
            await peer.writer.drain()
    found = await peer.reply()
    assert (found.status, found.fields["connection"]) == (400, "close")
    assert await peer.rest() == b""
    assert instance.requests == []


async def test_what_hides_behind_a_smuggled_length_is_not_a_request(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    hidden = b"GET /function/hello/hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    peer.write(LINE + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
    assert (await peer.reply()).status == 400
    assert await peer.rest() == b""
    assert instance.requests == []


async def test_a_good_request_in_pieces(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    data = b"\r\nPOST /function/hello/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
    for each in data:
        peer.write(bytes([each]))
        await peer.writer.drain()
    assert (await peer.reply()).status == 200
    assert instance.requests[0].body == b"abc"


GARBAGE = {
    "no HTTP": b"hello there\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and encoding": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 3000,
    "upgrade out of nowhere": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_reply_that_is_garbage_is_a_502(world, read, data):
    async def handler(reader, writer):
        await read(reader)
        writer.write(data)
        await reader.read()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    found = await peer.ask()
    assert (found.status, found.error["error"]) == (502, "BadReply")
    assert (await peer.ask("/healthz")).status == 200


async def test_bytes_behind_a_reply_do_not_become_the_next_one(world, read, make_reply):
    async def handler(reader, writer):
        await read(reader)
        writer.write(make_reply(b"first") + make_reply(b"forged"))
        await read(reader)
        writer.write(make_reply(b"second"))

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask()).body == b"first"
    assert (await peer.ask()).body == b"first"
    assert instance.connections == 2
