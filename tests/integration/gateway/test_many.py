"""Ten thousand clients that keep a connection and ask for nothing; sockets that are half closed; instances that stall."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MANY = 10_000
CLIENT = """
import socket, sys
kept = []
for number in range(int(sys.argv[2])):
    each = socket.socket()
    each.bind((f"127.0.0.{2 + number % 8}", 0))
    each.connect(("127.0.0.1", int(sys.argv[1])))
    if number % 2:
        each.send(b"GET /function/hello HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
        assert each.recv(4096).startswith(b"HTTP/1.1 200 OK")
    kept.append(each)
print("open", flush=True)
sys.stdin.read()
"""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 500:
        if os.environ.get("CI"):
            pytest.fail(f"only {hard} open files are allowed")
        pytest.skip(f"only {hard} open files are allowed: ulimit -Hn {2 * MANY}")
    wanted = MANY + 500 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_idle_connections(world, descriptors):
    world.function()
    await world.instance()
    worker = await world.serve()
    assert (await world.ask()).status == 200
    before = resident()
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(world.address[1]), str(MANY), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert client.stdout is not None
    try:
        async with asyncio.timeout(120):
            assert await client.stdout.readline() == b"open\n"
        assert len(worker.gateway.connections) >= MANY
        assert (resident() - before) / MANY < 8192
        for _ in range(20):
            assert (await world.ask()).status == 200
    finally:  # a client that is left would be waited for without an end
        client.kill()
        await client.wait()
    async with asyncio.timeout(30):
        while len(worker.gateway.connections) > len(world.peers):  # noqa: ASYNC110 - the worker has no event for it
            await asyncio.sleep(0)
    assert len(worker.gateway.wheel) <= len(world.peers)


async def test_a_client_that_closes_its_half_is_a_client_that_left(world):
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    worker = await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
    await instance.arrived.get()
    peer.writer.write_eof()
    assert await peer.rest() == b""
    await asyncio.wait_for(instance.lost.wait(), 5)
    await world.until(lambda: not worker.gateway.connections)
    assert worker.gateway.router.revisions["default/hello-00001"].load.active == 0


async def test_an_instance_that_stalls_in_its_reply_ends_at_the_deadline_for_one_client_alone(world):
    async def stalls(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/stall" in head.partition(b"\r\n")[0]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood")

    world.function()
    await world.instance(stalls)
    await world.serve()
    victim, other = await world.peer(), await world.peer()
    deadline = b"%.3f" % (time.time() + 0.4)  # of this call alone
    victim.write(b"GET /function/hello/stall HTTP/1.1\r\nHost: h\r\nX-Faaslite-Deadline: " + deadline + b"\r\n\r\n")
    reply = await other.ask("/function/hello/fine")
    assert (reply.status, reply.body) == (200, b"good")
    try:
        cut = await victim.rest()
    except ConnectionResetError:
        cut = b""
    assert not cut.endswith(b"x" * 96)
    assert (await other.ask("/function/hello/fine")).body == b"good"


async def test_a_client_that_closes_its_half_within_its_body_or_in_the_queue_left_too(world):
    world.function()
    worker = await world.serve()
    revision = worker.gateway.router.revisions["default/hello-00001"]
    waiting = await world.peer()
    waiting.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
    await world.until(lambda: bool(revision.waiting))
    waiting.writer.write_eof()
    assert await waiting.rest() == b""
    assert not revision.waiting

    instance = await world.instance()
    sending = await world.peer()
    sending.write(b"POST /function/hello HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf")
    await world.until(lambda: instance.connections == 1)
    sending.writer.write_eof()
    assert await sending.rest() == b""
    await asyncio.wait_for(instance.lost.wait(), 10)
    assert instance.requests == []
    await world.until(lambda: not revision.load.active and not worker.gateway.connections)


async def test_a_client_that_reads_none_of_its_replies_does_not_stay_for_good(world):
    """All of a reply may be here, with no call on its way, and still not be sent: closing would wait for that."""
    world.function()
    instance = await world.instance()
    instance.body = b"x" * 30_000
    worker = await world.serve(idle_timeout=0.5)
    peer = await world.peer(limit=1000)
    revision = worker.gateway.router.revisions["default/hello-00001"]
    (connection,) = worker.gateway.connections
    while not connection._write_paused:
        peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.wait_for(instance.arrived.get(), 10)
        await world.until(lambda: not revision.load.active)
    await world.until(lambda: not worker.gateway.connections)
    assert not worker.gateway.wheel


async def test_half_a_head_and_a_closed_half_are_no_request(world):
    world.function()
    instance = await world.instance()
    worker = await world.serve()
    for data in (b"", b"GET /function", b"GET /function/hello HTTP/1.1\r\nHost: h\r\n"):
        peer = await world.peer()
        peer.write(data)
        peer.writer.write_eof()
        assert await peer.rest() == b""
    assert instance.connections == 0
    await world.until(lambda: not worker.gateway.connections)
