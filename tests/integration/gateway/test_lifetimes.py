"""Limits, deadlines, clients that leave, stopping; and what the gateway answers or passes to jobs itself."""

from __future__ import annotations

import asyncio
import time

import pytest


async def test_a_head_over_the_limit(world):
    await world.serve(max_head=1000)
    for data in (
        b"GET /function/hello HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000,
        b"GET /function/hello HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000 + b"\r\n\r\n",
        b"GET /function/" + b"x" * 1000,
    ):
        peer = await world.peer()
        peer.write(data)
        found = await peer.reply()
        assert (found.status, found.error["error"]) == (431, "HeadersTooLarge")
        assert await peer.rest() == b""


async def test_a_declared_body_over_the_limit_is_refused_before_it_comes(world):
    world.function()
    instance = await world.instance()
    await world.serve(max_body=1000)
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
    found = await peer.reply()
    assert (found.status, found.error["error"], found.fields["connection"]) == (413, "PayloadTooLarge", "close")
    assert await peer.rest() == b""
    assert instance.connections == 0
    assert (await world.ask("/function/hello", "POST", b"x" * 1000)).status == 200


async def test_the_reply_to_a_body_over_the_limit_is_not_lost_in_a_reset(world):
    world.function()
    await world.serve(max_body=1000)
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
    await peer.writer.drain()
    assert (await peer.reply()).status == 413


async def test_a_chunked_body_over_the_limit(world):
    world.function()
    instance = await world.instance()
    await world.serve(max_body=1000)
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(12):
        peer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
    found = await peer.reply()
    assert (found.status, found.error["error"], found.fields["connection"]) == (413, "PayloadTooLarge", "close")
    assert instance.requests == []


async def test_a_deadline_passes_at_the_instance(world):
    world.function(timeout=0.1)
    instance = await world.instance()
    instance.gate.clear()
    await world.serve()
    peer = await world.peer()
    began = time.monotonic()
    found = await peer.ask()
    assert (found.status, found.error["error"]) == (504, "DeadlineExceeded")
    assert 0.09 < time.monotonic() - began < 2
    await asyncio.wait_for(instance.lost.wait(), 5)
    instance.gate.set()
    assert (await peer.ask()).status == 200, "the client's connection survives"


async def test_a_deadline_of_the_caller_counts_if_it_is_earlier(world):
    world.function(timeout=60)
    instance = await world.instance()
    instance.gate.clear()
    await world.serve()
    found = await world.ask("/function/hello", "GET", b"", f"X-Faaslite-Deadline: {time.time() + 0.1:.3f}")
    assert found.status == 504


async def test_a_deadline_within_a_reply_breaks_it_off(world, read):
    async def handler(reader, writer):
        await read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    world.function(timeout=0.1)
    await world.instance(handler)
    await world.serve()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await world.ask()


async def test_a_deadline_while_the_client_still_sends(world):
    world.function(timeout=0.1)
    await world.instance()
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    found = await peer.reply()
    assert (found.status, found.fields["connection"]) == (504, "close")


async def test_a_slow_head_is_given_up(world):
    await world.serve(header_timeout=0.1)
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\n")
    assert (await peer.reply()).status == 408
    assert await peer.rest() == b""
    silent = await world.peer()
    assert await silent.rest() == b""


async def test_dribbling_does_not_extend_the_time_for_a_head(world):
    await world.serve(header_timeout=0.2)
    peer = await world.peer()
    rest = asyncio.ensure_future(peer.rest())
    for each in b"GET /function/hello HTTP/1.1\r\n" * 20:
        peer.write(bytes([each]))
        done, _ = await asyncio.wait([rest], timeout=0.02)
        if done:
            break
    assert rest.done(), "a head that never ends was waited for"
    await asyncio.gather(rest, return_exceptions=True)


async def test_an_idle_connection_is_closed(world):
    world.function()
    await world.instance()
    await world.serve(idle_timeout=0.1)
    peer = await world.peer()
    assert (await peer.ask()).status == 200
    assert await peer.rest() == b""


async def test_a_client_that_leaves_ends_the_call_at_the_instance(world):
    world.function(limit=1)
    instance = await world.instance()
    instance.gate.clear()
    await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n")
    await instance.arrived.get()
    await peer.close()
    await asyncio.wait_for(instance.lost.wait(), 5)
    instance.gate.set()
    assert (await world.ask()).status == 200, "its slot is free again"
    metrics = (await world.ask("/metrics")).body.decode()
    assert 'faaslite_function_invocations_total{function="hello",namespace="default",code="4xx"} 1' in metrics


async def test_an_early_reply_is_not_lost_while_the_client_still_sends(world, make_reply):
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(make_reply(b"no, thanks", "403 Forbidden"))
        await writer.drain()

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    found = await peer.reply()
    assert (found.status, found.body) == (403, b"no, thanks")
    assert await peer.rest() == b""


async def test_the_body_of_a_refused_request_is_skipped(world):
    world.function()
    await world.instance()
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask("/function/missing", "POST", b"x" * 1000)).status == 404
    peer.write(b"POST /function/missing HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    assert (await peer.reply()).status == 404
    peer.write(b"67890")
    assert (await peer.ask()).status == 200


async def test_stop_finishes_what_is_on_its_way(world):
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    worker = await world.serve()
    idle = await world.peer()
    assert (await idle.ask("/healthz")).status == 200
    peer = await world.peer()
    asked = asyncio.ensure_future(peer.ask())
    await instance.arrived.get()
    stopped = asyncio.ensure_future(worker.stop())
    assert await idle.rest() == b""
    with pytest.raises(OSError):
        await world.peer()
    assert not stopped.done()
    instance.gate.set()
    found = await asked
    assert (found.status, found.fields["connection"]) == (200, "close")
    assert await peer.rest() == b""
    await asyncio.wait_for(stopped, 5)
    await asyncio.wait_for(instance.lost.wait(), 5)


async def test_a_request_that_was_on_its_way_when_it_stopped_is_answered(world):
    world.function()
    await world.instance()
    worker = await world.serve(drain_idle=1.0)
    peer = await world.peer()
    assert (await peer.ask()).status == 200
    stopped = asyncio.ensure_future(worker.stop())
    await asyncio.sleep(0)
    assert worker.gateway.draining
    found = await peer.ask()
    assert (found.status, found.fields["connection"]) == (200, "close")
    assert await peer.rest() == b""
    await asyncio.wait_for(stopped, 5)


async def test_stop_waits_no_longer_than_its_grace(world):
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    worker = await world.serve(drain_grace=0.1)
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n")
    await instance.arrived.get()
    await asyncio.wait_for(worker.stop(), 5)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await peer.reply()


async def test_ids_are_all_different_and_do_not_pile_up(world):
    world.function()
    instance = await world.instance()
    worker = await world.serve()
    gateway = worker.gateway
    ids = {gateway.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert {len(each) for each in ids} == {32}
    assert 0 < len(gateway.ids) <= len(gateway.spans) <= 256
    peer = await world.peer()
    trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for number in range(300):  # more than there are in stock
        assert (await peer.ask("/function/hello", "GET", b"", *([trace] if number % 2 else []))).status == 200
    parents = {each.fields["traceparent"] for each in instance.requests}
    assert len(parents) == 151
    assert len({each.fields["x-call-id"] for each in instance.requests}) == 300
    assert 0 < len(gateway.ids) <= len(gateway.spans) <= 256


async def test_health_metrics_and_nothing(world):
    world.function()
    await world.instance()
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask("/healthz")).body == b"ok\n"
    assert (await peer.ask("/healthz", "HEAD")).body == b""
    for _ in range(3):
        await peer.ask()
    text = (await peer.ask("/metrics")).body.decode()
    labels = 'function="hello",namespace="default"'
    assert f'faaslite_function_invocations_total{{{labels},code="2xx"}} 3' in text
    assert f'faaslite_function_duration_seconds_bucket{{{labels},le="+Inf"}} 3' in text
    assert f"faaslite_function_duration_seconds_count{{{labels}}} 3" in text
    assert f'faaslite_function_in_flight{{{labels},revision="hello-00001"}} 0' in text
    assert "faaslite_gateway_connections 1" in text
    found = await peer.ask("/elsewhere")
    assert (found.status, found.error["error"]) == (404, "NotFound")


async def test_jobs_is_reached_over_its_socket(world, read, make_reply):
    requests = []

    async def handler(reader, writer):
        try:
            while True:
                requests.append(await read(reader))
                writer.write(make_reply(b'{"items": []}'))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_unix_server(handler, world.jobs)
    await world.serve(max_body=10)
    peer = await world.peer()
    for target in ("/system/cron?namespace=a", "/async-function/hello.team/x?y=1"):
        found = await peer.ask(target, "POST", b"x" * 100_000, "Authorization: Bearer t", "X-Call-Id: mine")
        assert (found.status, found.body) == (200, b'{"items": []}')
    assert [each.target for each in requests] == ["/system/cron?namespace=a", "/async-function/hello.team/x?y=1"]
    assert requests[0].fields["authorization"] == "Bearer t"
    assert requests[0].fields["x-call-id"] == "mine"
    assert requests[0].fields["x-forwarded-for"] == "127.0.0.1"
    assert len(requests[1].body) == 100_000
    await world.worker.stop()
    server.close()


async def test_jobs_that_is_not_there(world):
    await world.serve()
    found = await world.ask("/system/cron")
    assert (found.status, found.error["error"]) == (503, "JobsUnavailable")


async def test_idle_connections_to_an_instance_are_closed_after_a_while(world):
    world.function()
    instance = await world.instance()
    await world.serve(pool_idle_timeout=0.05, report_period=0.02)
    peer = await world.peer()
    assert (await peer.ask()).status == 200
    await asyncio.wait_for(instance.lost.wait(), 5)
    assert (await peer.ask()).status == 200
    assert instance.connections == 2


async def test_many_clients_at_once_leave_nothing_behind(world):
    world.function(limit=4)
    instances = [await world.instance() for _ in range(3)]
    await world.serve()

    async def client():
        peer = await world.peer()
        for _ in range(10):
            assert (await peer.ask("/function/hello", "POST", b"abc")).status == 200
        await peer.close()

    await asyncio.gather(*(client() for _ in range(50)))
    assert sum(len(each.requests) for each in instances) == 500
    gateway = world.worker.gateway
    revision = gateway.router.revisions["default/hello-00001"]
    assert (revision.load.active, len(revision.waiting)) == (0, 0)
    assert all(each.in_flight == 0 and not each.pool._pending for each in revision.ready)
    assert max(each.connections for each in instances) <= 4


async def test_a_connection_whose_request_was_not_sent_whole_is_not_used_again(world, make_reply):
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(make_reply())
        await reader.read()

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"POST /function/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nxxx")
    assert (await peer.reply()).status == 200
    await asyncio.wait_for(instance.lost.wait(), 5)
    assert (await world.ask()).status == 200
    assert instance.connections == 2


async def test_requests_sent_ahead_are_not_taken_without_bound(world):
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    await world.serve(drain_grace=0.1)
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n" * 500_000)
    await instance.arrived.get()
    (connection,) = world.worker.gateway.connections
    await world.until(lambda: len(connection._buffer) > 64 * 1024)
    for _ in range(20):
        await asyncio.sleep(0.005)  # time in which an unbounded gateway reads on
    assert len(connection._buffer) < 400_000
    peer.writer.transport.abort()


async def test_pipelined_calls_wait_until_the_client_reads_the_replies(world):
    world.function()
    instance = await world.instance()
    instance.body = b"x" * 200_000
    await world.serve()
    peer = await world.peer(limit=1000)
    count = 300
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n" * count)
    quiet = 0
    while quiet < 3:  # until no further request has come for a while
        try:
            await asyncio.wait_for(instance.arrived.get(), 0.1)
            quiet = 0
        except TimeoutError:
            quiet += 1
    assert len(instance.requests) < count / 2
    for _ in range(count):
        assert (await peer.reply()).body == instance.body
