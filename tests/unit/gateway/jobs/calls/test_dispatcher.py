"""The dispatcher between the real queue and a real HTTP server that stands for the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from core.clock import wall
from gateway.jobs.calls import retry
from gateway.jobs.calls.base import (
    ASYNC,
    CANCELED,
    CRON,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    CallRecord,
    NewCall,
    Request,
)
from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.calls.sqlite import SqliteCalls

TIMEOUT = 10.0


class Gateway:
    """Answers by `answer`, an async function of the request; keeps what it saw."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        self.in_flight = 0
        self.most = 0
        self.answer: Callable[[web.Request], Any] = self.fine
        self._more = asyncio.Event()

    async def fine(self, request: web.Request) -> web.Response:
        return web.Response(text="done")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append({"method": request.method, "path": request.raw_path, "headers": request.headers, "body": body})
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self._more.set()
        try:
            return await self.answer(request)
        finally:
            self.in_flight -= 1
            self._more.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    found = Gateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield found
    await runner.cleanup()


class ToldCalls(SqliteCalls):
    """The real queue, which also tells a test that something was written."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.changed = asyncio.Event()

    async def finish_all(self, *arguments: Any) -> list[bool]:
        held = await super().finish_all(*arguments)
        self.changed.set()
        return held

    async def again(self, *arguments: Any, **options: Any) -> None:
        await super().again(*arguments, **options)
        self.changed.set()

    async def renew(self, *arguments: Any) -> set[str]:
        lost = await super().renew(*arguments)
        self.changed.set()
        return lost

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not await condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def calls(tmp_path) -> AsyncIterator[ToldCalls]:
    found = await ToldCalls.open(tmp_path / "calls.db")
    assert isinstance(found, ToldCalls)
    yield found
    await found.close()


@pytest.fixture
async def run(calls, gateway) -> AsyncIterator[Callable[..., Any]]:
    """Starts a dispatcher; it is stopped in the end."""
    made: list[Dispatcher] = []

    async def start(**given: Any) -> Dispatcher:
        values = {"owner": "test", **given}
        found = Dispatcher(calls, values.pop("url", gateway.url), **values)
        made.append(found)
        await found.start()
        return found

    yield start
    for each in made:
        await each.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)


def new(name: str, function: str = "f", **given: Any) -> NewCall:
    values = {"id": name, "namespace": "team", "function": function, "trigger": ASYNC, "accepted_at": wall()}
    return NewCall(**{**values, **given})


async def ended(calls: ToldCalls, name: str, *statuses: str) -> CallRecord:
    """The record once it has one of these statuses."""
    record: CallRecord | None = None

    async def has_ended() -> bool:
        nonlocal record
        record = await calls.get(name)
        return record is not None and record.status in (statuses or (SUCCEEDED, FAILED, CANCELED))

    await calls.until(has_ended)
    assert record is not None
    return record


async def test_a_call_goes_to_the_gateway_as_it_was_accepted(calls, gateway, run):
    request = Request("PUT", "/a%2Fb/c", "x=%20&y", (("X-One", "1"), ("Content-Type", "text/plain")), b"\x00\x01")
    dispatcher = await run()
    await calls.insert([new("c1", request=request)])
    dispatcher.wake()
    record = await ended(calls, "c1")
    (seen,) = gateway.seen
    assert (seen["method"], seen["path"], seen["body"]) == ("PUT", "/function/f.team/a%2Fb/c?x=%20&y", b"\x00\x01")
    assert (seen["headers"]["X-One"], seen["headers"]["X-Call-Id"]) == ("1", "c1")
    assert seen["headers"]["Content-Type"] == "text/plain"
    assert "X-Faaslite-Cron" not in seen["headers"]
    assert (record.status, record.http_status, record.attempts, record.error) == (SUCCEEDED, 200, 1, "")
    assert record.result == {
        "contentType": "text/plain; charset=utf-8", "encoding": "utf-8", "body": "done", "truncated": False
    }  # fmt: skip


async def test_what_was_due_before_the_start_runs_and_cron_is_told(calls, gateway, run):
    await calls.insert([new("c1", trigger=CRON, cron="nightly", scheduled_at=5.0)])
    await run()
    assert (await ended(calls, "c1")).status == SUCCEEDED
    assert gateway.seen[0]["headers"]["X-Faaslite-Cron"] == "nightly"
    assert gateway.seen[0]["path"] == "/function/f.team/"


async def test_failures_are_retried_with_the_same_id_until_one_works(calls, gateway, run):
    async def third_time(request):
        return web.Response(status=200 if len(gateway.seen) == 3 else 500, text="no")

    gateway.answer = third_time
    await calls.insert([new("c1", retries=3)])
    await run()
    record = await ended(calls, "c1")
    assert (record.status, record.attempts) == (SUCCEEDED, 3)
    assert {each["headers"]["X-Call-Id"] for each in gateway.seen} == {"c1"}


async def test_retries_end(calls, gateway, run):
    async def fails(request):
        return web.json_response({"error": "HandlerError", "message": "division by zero"}, status=500)

    gateway.answer = fails
    await calls.insert([new("c1", retries=2)])
    dispatcher = await run()
    record = await ended(calls, "c1")
    assert (record.status, record.attempts, record.http_status) == (FAILED, 3, 500)
    assert record.error == "HandlerError: division by zero"
    assert dispatcher.finished == {"Retried": 2, FAILED: 1}


async def test_refusals_of_the_gateway_do_not_use_up_the_retries(calls, gateway, run):
    async def not_yet(request):
        if len(gateway.seen) < 6:
            return web.json_response({"error": "FunctionNotReady", "message": "its image is pulled"}, status=503)
        return web.Response(text="at last")

    gateway.answer = not_yet
    await calls.insert([new("c1", retries=0)])
    await run()
    record = await ended(calls, "c1")
    assert (record.status, record.attempts) == (SUCCEEDED, 1)


async def test_a_connection_that_breaks_counts_and_an_absent_gateway_does_not(calls, gateway, run, unused_tcp_port):
    async def breaks(request):
        request.transport.abort()
        return web.Response()

    gateway.answer = breaks
    await calls.insert([new("c1", retries=1)])
    dispatcher = await run()
    record = await ended(calls, "c1")
    assert (record.status, record.attempts, record.http_status) == (FAILED, 2, None)
    assert record.error.startswith("the connection broke")
    await dispatcher.stop()

    await calls.insert([new("c2", retries=0)])
    absent = await run(url=f"http://127.0.0.1:{unused_tcp_port}")

    async def refused() -> bool:
        return absent.finished["Retried"] >= 2

    await calls.until(refused)
    record = await calls.get("c2")
    assert record.status in (QUEUED, RUNNING) and record.attempts <= 1
    assert "can't be reached" in record.error


async def test_results_are_bounded_and_bytes_are_kept_as_base64(calls, gateway, run):
    async def large(request):
        return web.Response(body=b"\xff" * 5000 if "bin" in request.path else b"a" * 5000, content_type="x/y")

    gateway.answer = large
    await calls.insert([new("c1"), new("c2", request=Request(path="/bin"))])
    await run(largest_result=12)
    text, binary = (await ended(calls, "c1")).result, (await ended(calls, "c2")).result
    assert text == {"contentType": "x/y", "encoding": "utf-8", "body": "a" * 12, "truncated": True}
    assert binary == {"contentType": "x/y", "encoding": "base64", "body": "//////////////// "[:16], "truncated": True}


async def test_no_more_run_at_once_than_may_and_no_function_takes_all(calls, gateway, run):
    release = asyncio.Event()

    async def slow(request):
        await release.wait()
        return web.Response()

    gateway.answer = slow
    await calls.insert([new(f"a{n}", "a") for n in range(12)] + [new(f"b{n}", "b") for n in range(2)])
    await run(concurrency=8, per_function=5)
    await gateway.until(lambda: gateway.in_flight == 7)
    paths = [each["path"] for each in gateway.seen]
    assert (paths.count("/function/a.team/"), paths.count("/function/b.team/")) == (5, 2)
    release.set()
    await gateway.until(lambda: len(gateway.seen) == 14 and gateway.in_flight == 0)
    assert gateway.most <= 8


async def test_leases_of_long_calls_are_renewed(calls, gateway, run):
    release = asyncio.Event()

    async def slow(request):
        await release.wait()
        return web.Response()

    gateway.answer = slow
    await calls.insert([new("c1")])
    await run(lease=0.15)
    await gateway.until(lambda: len(gateway.seen) == 1)
    first = await calls.next_due(wall())

    async def renewed() -> bool:
        return await calls.next_due(wall()) > first + 0.2

    await calls.until(renewed)
    release.set()
    assert (await ended(calls, "c1")).attempts == 1
    assert len(gateway.seen) == 1


async def test_a_call_whose_owner_died_runs_again(calls, gateway, run):
    await calls.insert([new("c1")])
    (lost,) = await calls.claim("dead", wall(), 0.2, 1)
    await run()
    record = await ended(calls, "c1")
    assert (record.status, record.attempts) == (SUCCEEDED, 2)
    assert await calls.renew({"c1": lost.fence}, wall(), 1) == {"c1"}


async def test_a_call_that_is_canceled_is_given_up(calls, gateway, run):
    async def slow(request):
        await asyncio.Event().wait()

    gateway.answer = slow
    await calls.insert([new("c1"), new("c2")])
    dispatcher = await run(lease=0.15)
    await gateway.until(lambda: gateway.in_flight == 2)
    await calls.cancel("c1", "not wanted", wall())
    dispatcher.abort(["c1"])
    await gateway.until(lambda: gateway.in_flight == 1)
    await calls.cancel("c2", "by another process", wall())
    await gateway.until(lambda: gateway.in_flight == 0)  # its next renewal says so
    assert (await calls.get("c1")).status == (await calls.get("c2")).status == CANCELED


async def test_stop_puts_running_calls_back(calls, gateway, run):
    async def slow(request):
        await asyncio.Event().wait()

    gateway.answer = slow
    await calls.insert([new("c1", retries=0)])
    dispatcher = await run()
    await gateway.until(lambda: gateway.in_flight == 1)
    await dispatcher.stop()
    record = await calls.get("c1")
    assert (record.status, record.error) == (QUEUED, "the jobs process stopped while it ran")
    gateway.answer = gateway.fine
    await dispatcher.start()
    assert (await ended(calls, "c1")).status == SUCCEEDED


async def test_a_later_due_time_is_met_by_a_timer(calls, gateway, run):
    async def busy(request):
        if len(gateway.seen) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response()

    gateway.answer = busy
    await calls.insert([new("c1", retries=1)])
    await run()
    record = await ended(calls, "c1")
    assert 1.0 <= record.finished_at - record.started_at < 3.0
