"""Spans of calls where they are exported: the instance is told of the gateway's own, which stands below the caller's."""

from __future__ import annotations

import time

import pytest

from tests.integration.gateway.test_handover import Jobs, connected

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Recorder:
    def __init__(self) -> None:
        self.spans = []

    def server(self, ids, name, began, ended, error, attributes):
        self.spans.append((ids, name, began, ended, error, attributes))


@pytest.fixture
def recorder(world):
    world.recorder = Recorder()
    return world.recorder


async def test_a_call_without_a_trace_begins_one(world, recorder):
    world.function()
    instance = await world.instance()
    await world.serve()
    before = time.time()
    reply = await world.ask("/function/hello", "POST", b"x")
    _, own, span, flags = instance.requests[0].fields["traceparent"].split("-")
    ((ids, name, began, ended, error, attributes),) = recorder.spans
    assert (ids, name, error, flags) == ((own, span, ""), "hello.default", "", "01")
    assert before - 0.01 <= began <= ended <= time.time() + 0.01
    assert attributes == {
        "faas.invoked_name": "hello", "k8s.namespace.name": "default", "faaslite.revision": "hello-00001",
        "faaslite.call.id": reply.fields["x-call-id"], "http.request.method": "POST", "http.response.status_code": 200,
    }  # fmt: skip


async def test_a_call_in_a_trace_has_a_span_below_the_callers(world, recorder):
    world.function()
    instance = await world.instance()
    await world.serve()
    peer = await world.peer()
    for _ in range(2):
        await peer.ask("/function/hello", "GET", b"", f"Traceparent: 00-{TRACE}-{PARENT}-01")
    told = [each.fields["traceparent"].split("-") for each in instance.requests]
    assert [(own, flags) for _, own, _, flags in told] == [(TRACE, "01")] * 2
    assert len({PARENT, told[0][2], told[1][2]}) == 3
    assert [ids for ids, *_ in recorder.spans] == [(TRACE, span, PARENT) for _, _, span, _ in told]
    assert not world.worker.gateway.activator.tracing._parents


async def test_what_is_not_sampled_is_not_recorded_and_what_fails_is_an_error(world, recorder):
    world.function(timeout=0.1)
    await world.serve()
    reply = await world.ask("/function/hello", "GET", b"", f"traceparent: 00-{TRACE}-{PARENT}-00")
    assert (reply.status, recorder.spans) == (504, [])
    assert (await world.ask()).status == 504
    ((_, _, _, _, error, attributes),) = recorder.spans
    assert (error, attributes["http.response.status_code"]) == ("status 504", 504)
    assert not world.worker.gateway.activator.tracing._parents


async def test_a_cold_start_is_told(world, recorder):
    world.function()
    instance = await world.instance(pod=False)
    await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
    await world.until(lambda: bool(world.worker.gateway.router.revisions["default/hello-00001"].waiting))
    world.pod(instance)
    assert (await peer.reply()).status == 200
    assert recorder.spans[0][-1]["faas.coldstart_seconds"] > 0


async def test_calls_that_jobs_has_made_have_their_spans_there(world, recorder):
    jobs = await Jobs(world.folder).start()
    world.function()
    instance = await world.instance()
    await world.serve()
    await connected(world, jobs)
    reply = await world.ask(
        "/async-function/hello", "POST", b"x", "X-Call-Id: c", f"traceparent: 00-{TRACE}-{PARENT}-01"
    )
    assert reply.status == 202
    assert (await jobs.ended("c")).http_status == 200
    assert instance.requests[0].fields["traceparent"].startswith(f"00-{TRACE}-")
    assert recorder.spans == []
    await jobs.stop()
