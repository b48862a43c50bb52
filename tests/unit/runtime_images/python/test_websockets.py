"""WebSockets of ASGI applications, by a client that nobody here wrote, and by raw bytes."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest

APP = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["type"].encode()})
        return
    if scope["type"] != "websocket":
        raise RuntimeError("no lifespan")
    assert (await receive())["type"] == "websocket.connect"
    path = scope["path"]
    if path == "/refuse":
        await send({"type": "websocket.close", "code": 1000, "reason": "not you"})
        return
    if path == "/deny":
        await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"x-why", b"money")]})
        await send({"type": "websocket.http.response.body", "body": b"pay"})
        return
    if path == "/silent":
        return
    if path == "/early":
        raise ValueError("before the handshake")
    if path == "/slow-handshake":
        await asyncio.sleep(60)
    chosen = scope["subprotocols"][0] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-made", b"yes")]})
    if path == "/late":
        raise ValueError("after the handshake")
    if path == "/bye":
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        return
    if path == "/return":
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("gone", message["code"], message["reason"], flush=True)
            return
        if message.get("text") == "scope":
            message = {"text": f"{scope['scheme']} {scope['query_string'].decode()} {scope['http_version']}"}
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
"""
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def opened(shim, path="/", **more):
    host, port = shim.address
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{host}:{port}{path}", **more) as found:
        yield found


async def test_messages_of_all_sizes_go_both_ways(start):
    shim = start(APP, FAASLITE_MAX_BODY="300000")
    async with opened(shim, "/a?q=1") as client:
        for text in ("", "häy", "x" * 125, "y" * 126, "z" * 70_000):
            await client.send_str(text)
            assert await client.receive_str() == text
        for data in (b"", bytes(range(256)), os.urandom(200_000)):
            await client.send_bytes(data)
            assert await client.receive_bytes() == data
        await client.send_str("scope")
        assert await client.receive_str() == "ws q=1 1.1"
        await client.ping(b"there?")
        await client.send_str("still")
        assert await client.receive_str() == "still"
        await client.close(code=4007, message=b"done")
    assert "gone 4007 done" in _until(shim, "gone")


async def test_a_hundred_messages_wait_without_being_lost(start):
    async with opened(start(APP)) as client:
        for number in range(100):
            await client.send_str(str(number))
        assert [await client.receive_str() for _ in range(100)] == [str(each) for each in range(100)]


async def test_subprotocol_and_headers_of_the_accept(start):
    async with opened(start(APP), protocols=("chat.v2", "chat.v1")) as client:
        assert client.protocol == "chat.v2"
        assert client._response.headers["x-made"] == "yes"


async def test_the_application_closes(start):
    shim = start(APP)
    for path, code, reason in (
        ("/bye", 4001, "enough"),
        ("/return", 1000, ""),
        ("/late", 1011, "the application failed"),
    ):
        async with opened(shim, path) as client:
            closed = await client.receive()
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, code, reason)
    assert "after the handshake" in _until(shim, "after the handshake")


async def test_handshakes_that_are_refused(start):
    shim = start(APP)
    for path, status in (("/refuse", 403), ("/deny", 402), ("/silent", 500), ("/early", 500)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as found:
            async with opened(shim, path):
                pass
        assert found.value.status == status, path
    assert found.value.headers["content-type"] == "application/json"


def test_handshakes_that_are_none(start):
    shim = start(APP)
    plain = HANDSHAKE % b"/"
    old = plain.replace(b"Version: 13", b"Version: 8")
    assert b"HTTP/1.1 426 " in (answer := shim.raw(old)) and b"sec-websocket-version: 13" in answer
    assert shim.raw(plain.replace(b"dGhl", b"x")).startswith(b"HTTP/1.1 400 ")
    assert shim.raw(plain.replace(b"GET", b"POST")).startswith(b"HTTP/1.1 400 ")
    other = plain.replace(b"Upgrade: websocket", b"Upgrade: something")
    assert shim.raw(other).startswith(b"HTTP/1.1 200 ")  # an upgrade need not be taken


def test_frames_before_the_answer_and_frames_that_are_none(start):
    shim = start(APP)
    hello = b"\x81\x82\x00\x00\x00\x00hi"
    answer = shim.raw(HANDSHAKE % b"/" + hello + b"\x81\x02hi")  # the second one isn't masked
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert (
        frames[0] == 0x88
        and frames[2:4] == (1002).to_bytes(2, "big")
        and frames[4:] == b"frames of a client are masked"
    )
    assert "gone 1002" in _until(shim, "gone")


async def test_a_websocket_holds_a_slot_until_its_client_is_gone(start):
    shim = start(APP, FAASLITE_CONCURRENCY="1")
    async with opened(shim) as client:
        await client.send_str("here")
        await client.receive_str()
        status, headers, _ = shim.call("/")
        assert (status, headers["x-faaslite-busy"]) == (503, "1")
        client._response.connection.transport.abort()
    assert "gone 1006" in _until(shim, "gone")
    assert shim.call("/")[0] == 200


async def test_the_deadline_is_that_of_the_handshake(start):
    shim = start(APP, FAASLITE_TIMEOUT="0.5")
    with pytest.raises(aiohttp.WSServerHandshakeError) as found:
        async with opened(shim, "/slow-handshake"):
            pass
    assert found.value.status == 504
    async with opened(shim) as client:
        with pytest.raises(TimeoutError):
            await client.receive(timeout=0.8)
        assert not client.closed


async def test_an_instance_that_ends_says_so(start):
    shim = start(APP)
    async with opened(shim) as client:
        await client.send_str("here")
        await client.receive_str()
        shim.process.send_signal(signal.SIGTERM)
        closed = await client.receive()
        assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1001, "the instance ends")
    assert shim.process.wait(10) == 0


def test_a_client_that_never_closes_is_closed(start):
    """The close frame is out; the connection is not held for who doesn't answer it."""
    shim = start(APP)
    with socket.create_connection(shim.address, timeout=15) as connection:
        connection.sendall(HANDSHAKE % b"/bye")
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.endswith(b"\x0f\xa1enough")


def _until(shim, word: str) -> str:
    """The log once the word is in it: the shim's process writes it when it gets to it."""
    deadline = time.monotonic() + 10
    while word not in shim.log() and time.monotonic() < deadline:
        time.sleep(0.02)
    return shim.log()
