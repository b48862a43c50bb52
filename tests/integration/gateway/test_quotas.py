"""What a namespace may ask for, at one worker: who counts, what a refusal says, and that every end of a call gives back its place."""

from __future__ import annotations

import asyncio
import logging

import pytest


@pytest.fixture
def limit(world):
    def annotate(**limits: str) -> None:
        world.api.put(
            "namespaces",
            {"metadata": {"name": "default", "annotations": {f"faaslite.dev/{k}": v for k, v in limits.items()}}},
        )

    return annotate


async def test_a_refusal_says_what_and_when(world, limit):
    limit(rps="0.5")
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask()).status == 200
    found = await peer.ask()
    assert (found.status, found.line) == (429, "HTTP/1.1 429 Too Many Requests")
    assert found.fields["retry-after"] == "2"
    assert found.error == {
        "error": "QuotaExceeded",
        "message": 'the namespace "default" may have 0.5 calls per second (faaslite.dev/rps)',
        "callId": found.fields["x-call-id"],
    }
    assert len(instance.requests) == 1
    text = (await peer.ask("/metrics")).body.decode()
    assert 'faaslite_namespace_refused_total{limit="rps",namespace="default"} 1' in text
    assert 'faaslite_namespace_refused_total{limit="concurrency",namespace="default"} 0' in text
    assert 'faaslite_namespace_limit{limit="rps",namespace="default"} 0.5' in text
    assert 'faaslite_namespace_limit{limit="concurrency"' not in text


async def test_it_comes_and_goes_with_the_annotation(world, limit):
    world.function()
    await world.instance()
    worker = await world.serve()
    quotas = worker.gateway.quotas
    peer = await world.peer()
    assert [(await peer.ask()).status for _ in range(3)] == [200] * 3
    limit(rps="1")
    await world.until(lambda: quotas.of("default") is not None)
    assert [(await peer.ask()).status for _ in range(3)] == [200, 429, 429]
    limit()
    await world.until(lambda: quotas.of("default") is None)
    assert [(await peer.ask()).status for _ in range(3)] == [200] * 3
    assert worker.gateway.functions[b"hello"].direct is not None, "and nothing of it is left on the way of a call"


async def test_an_annotation_that_says_nothing_is_ignored_and_told(world, limit, caplog):
    limit(rps="plenty", concurrency="1")
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    with caplog.at_level(logging.WARNING):
        await world.serve()
    assert caplog.text.count('a quota of the namespace default is ignored: faaslite.dev/rps: "plenty"') == 1
    first, second = await world.peer(), await world.peer()
    asked = asyncio.ensure_future(first.ask())
    await instance.arrived.get()
    assert (await second.ask()).error["message"].startswith('the namespace "default" may have 1 calls in flight')
    instance.gate.set()
    assert (await asked).status == 200


async def test_every_end_of_a_call_gives_back_its_place(world, limit, make_reply):
    ways: asyncio.Queue[str] = asyncio.Queue()

    async def handler(reader, writer):
        while True:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
            await ways.put(line)
            if "/stall" in line:
                await reader.read()
            elif "/die" in line:
                writer.transport.abort()
                return
            elif "/garbage" in line:
                writer.write(b"what?\r\n\r\n")
            else:
                writer.write(make_reply())

    limit(concurrency="1")
    world.function(timeout=0.2)
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask("/function/hello/fine")).status == 200
    assert (await peer.ask("/function/hello/die")).status == 502
    assert (await peer.ask("/function/hello/garbage")).status == 502
    assert (await peer.ask("/function/hello/stall")).status == 504
    while not ways.empty():
        ways.get_nowait()
    gone = await world.peer()
    gone.write(b"GET /function/hello/stall HTTP/1.1\r\nHost: h\r\n\r\n")
    await ways.get()
    assert (await peer.ask("/function/hello/fine")).status == 429
    await gone.close()
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    await world.until(lambda: revision.load.active == 0)
    assert (await peer.ask("/function/hello/fine")).status == 200


async def test_who_waits_for_an_instance_is_in_flight(world, limit):
    limit(concurrency="1")
    world.function()
    await world.serve()
    waiting = asyncio.ensure_future(world.ask())
    await world.until(lambda: bool(world.worker.gateway.router.revisions["default/hello-00001"].waiting))
    assert (await world.ask()).status == 429
    await world.instance()
    assert (await waiting).status == 200
    assert (await world.ask()).status == 200


async def test_strangers_use_up_nothing(world, limit):
    limit(rps="1")
    world.function(http={"visibility": "private"})
    await world.instance()
    await world.serve()
    for _ in range(5):
        assert (await world.ask()).status == 401
        assert (await world.ask("/function/hello", "GET", b"", "Authorization: Bearer stranger")).status == 403
    assert (await world.ask("/function/hello", "GET", b"", "Authorization: Bearer maya")).status == 200
    assert (await world.ask("/function/hello", "GET", b"", "Authorization: Bearer maya")).status == 429


async def test_calls_of_jobs_count_too(world, limit):
    limit(rps="1")
    world.function(http={"visibility": "private"})
    await world.instance()
    await world.serve()
    reader, writer = await asyncio.open_unix_connection(world.folder / "gateway-1.sock")
    statuses = []
    for _ in range(2):
        writer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        statuses.append(head[9:12])
    writer.close()
    await writer.wait_closed()
    assert statuses == [b"200", b"429"]


async def test_bytes_of_bodies_are_counted(world, read, make_reply):
    async def handler(reader, writer):
        while True:
            request = await read(reader)
            if request.target == "/chunks":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            else:
                writer.write(make_reply(b"x" * 7000 if request.target == "/long" else b"four"))

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    for _ in range(3):
        assert (await peer.ask()).body == b"four"
    assert (await peer.ask("/function/hello", "POST", b"12345")).status == 200
    assert len((await peer.ask("/function/hello/long", "POST", b"x" * 100_000)).body) == 7000
    assert (await peer.ask("/function/hello", "HEAD")).status == 200
    assert (await peer.ask("/function/hello/chunks")).body == b"abc"
    text = (await peer.ask("/metrics")).body.decode()
    labels = 'function="hello",namespace="default"'
    assert f"faaslite_function_received_bytes_total{{{labels}}} 100005" in text
    chunks = len(b"3\r\nabc\r\n0\r\n\r\n")
    assert f"faaslite_function_sent_bytes_total{{{labels}}} {4 * 4 + 7000 + chunks}" in text
