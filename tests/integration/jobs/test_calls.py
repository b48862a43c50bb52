"""What callers and operators can do with queued calls: wait, cancel, replay, redrive, be called back, repeat themselves safely."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter

import pytest
from aiohttp import web

from core.api.kinds import NAMESPACE
from core.clock import parse_time
from faaslite.api.names import FUNCTION
from gateway.jobs.calls import callbacks, retry

TIMEOUT = 10.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(callbacks, "FIRST_DELAY", 0.01)


async def known(process, name: str, namespace: str = "default") -> None:
    """Jobs has heard of the Function."""
    heard = asyncio.Event()
    informer = process.jobs._functions
    informer.add_handler(lambda old, new: heard.set())
    async with asyncio.timeout(TIMEOUT):
        while informer.get(f"{namespace}/{name}") is None:
            heard.clear()
            await heard.wait()


@pytest.fixture
async def function(process, cluster):
    """The function `f`, known to jobs."""
    await cluster.function("f")
    await known(process, "f")


async def accept(process, headers=None, **options) -> str:
    status, body, _ = await process.request("POST", "/async-function/f", None, headers=headers or {}, **options)
    assert status == 202, body
    return body["callId"]


class Hold:
    """An answer of the gateway that waits until it is released."""

    def __init__(self, gateway) -> None:
        self.release = asyncio.Event()
        gateway.answer = self

    async def __call__(self, request):
        await self.release.wait()
        return web.Response(text="done")


async def test_a_wait_ends_with_the_call_and_not_before(process, function, gateway):
    hold = Hold(gateway)
    call = await accept(process)
    waiting = asyncio.create_task(process.request("GET", f"/system/calls/{call}/wait?timeout=9"))
    await gateway.until(1)
    status, record, _ = await process.request("GET", f"/system/calls/{call}/wait?timeout=0.01")
    assert (status, record["status"]) == (200, "Running")
    assert not waiting.done()
    hold.release.set()
    _, record, _ = await waiting
    assert (record["status"], record["result"]["body"]) == ("Succeeded", "done")
    assert (await process.request("GET", f"/system/calls/{call}/wait?timeout=9"))[1] == record
    for bad in ("x", "-1", "1e9", "nan"):
        assert (await process.request("GET", f"/system/calls/{call}/wait?timeout={bad}"))[0] == 400
    assert (await process.request("GET", "/system/calls/nothing/wait"))[0] == 404


async def test_cancel_ends_a_running_call_and_its_request(process, function, gateway):
    Hold(gateway)
    call = await accept(process)
    await gateway.until(1)
    status, record, _ = await process.request("POST", f"/system/calls/{call}/cancel", json={"reason": "a mistake"})
    assert (status, record["status"], record["error"]) == (200, "Canceled", "a mistake")
    status, body, _ = await process.request("POST", f"/system/calls/{call}/cancel")
    assert (status, body["error"]) == (409, "Conflict")
    async with asyncio.timeout(TIMEOUT):
        while (await process.request("GET", "/metrics", None))[1].count(b"faaslite_jobs_running 0.0") == 0:
            continue


async def test_dead_letters_are_redriven_alone_or_all(process, function, gateway):
    async def refuses(request):
        return web.json_response({"error": "HandlerError", "message": "no"}, status=400)

    gateway.answer = refuses
    calls = [await accept(process) for _ in range(3)]
    for call in calls:
        assert (await process.call(call, "DeadLetter"))["attempts"] == 1
    _, listed, _ = await process.request("GET", "/system/calls?namespace=default&status=DeadLetter")
    assert {each["id"] for each in listed["items"]} == set(calls)
    gateway.answer = None
    status, body, _ = await process.request("POST", "/system/calls/redrive", json={"calls": calls[:1]})
    assert (status, body) == (200, {"calls": calls[:1]})
    record = await process.call(calls[0], "Succeeded")
    assert (record["attempts"], len(record["tries"])) == (2, 2)
    wanted = {"namespace": "default", "function": "f"}
    status, body, _ = await process.request("POST", "/system/calls/redrive", json=wanted)
    assert set(body["calls"]) == set(calls[1:])
    for call in calls:
        await process.call(call, "Succeeded")
    assert (await process.request("POST", "/system/calls/redrive", json=wanted))[1] == {"calls": []}
    for bad in (b"[", b"[]", b'{"calls": "x"}', b'{"calls": [1]}'):
        assert (await process.request("POST", "/system/calls/redrive", data=bad))[0] == 400
    assert (await process.request("GET", "/system/calls?status=Dead"))[0] == 400


async def test_replay_is_a_new_call_with_the_old_request(process, function, gateway):
    call = await accept(process, {"X-Own": "1"}, data=b"payload")
    await process.call(call, "Succeeded")
    status, body, headers = await process.request("POST", f"/system/calls/{call}/replay", json={"revision": "f-00001"})
    assert (status, headers["Location"]) == (202, f"/system/calls/{body['callId']}")
    record = await process.call(body["callId"], "Succeeded")
    assert (record["replayOf"], record["revision"]) == (call, "f-00001")
    first, second = gateway.seen
    assert (first[3], first[2]["X-Own"]) == (second[3], second[2]["X-Own"]) == (b"payload", "1")
    assert "X-Faaslite-Revision" not in first[2] and second[2]["X-Faaslite-Revision"] == "f-00001"


async def test_an_idempotency_key_gives_the_first_answer_again(process, function, gateway):
    key = {"Idempotency-Key": "order-1"}
    first = await accept(process, key, data=b"a")
    await process.call(first, "Succeeded")
    status, body, headers = await process.request("POST", "/async-function/f", None, headers=key, data=b"a")
    assert (status, body["callId"], headers["Idempotency-Replayed"]) == (202, first, "true")
    status, body, _ = await process.request("POST", "/async-function/f", None, headers=key, data=b"b")
    assert (status, body["error"]) == (422, "IdempotencyKeyReused")
    assert await accept(process, {"Idempotency-Key": "order-2"}, data=b"b") != first
    both = await asyncio.gather(*(accept(process, {"Idempotency-Key": "order-3"}) for _ in range(20)))
    assert len(set(both)) == 1
    await process.call(both[0], "Succeeded")
    assert len(gateway.seen) == 3
    status, body, _ = await process.request("POST", "/async-function/f", None, headers={"Idempotency-Key": "x" * 300})
    assert (status, body["error"]) == (400, "BadRequest")


class Receiver:
    """Where callbacks go; answers 500 as often as `failures` says."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], dict]] = []
        self.failures = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((dict(request.headers), await request.json()))
        self.failures -= 1
        return web.Response(status=500 if self.failures >= 0 else 204)


@pytest.fixture
async def receiver():
    found = Receiver()
    app = web.Application()
    app.router.add_post("/done", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/done"
    yield found
    await runner.cleanup()


async def called_back(process, call: str, state: str) -> dict:
    async with asyncio.timeout(TIMEOUT):
        while True:
            _, record, _ = await process.request("GET", f"/system/calls/{call}")
            if record["callback"]["state"].startswith(state):
                return record
            await asyncio.sleep(0.01)


async def test_a_callback_gets_the_record_and_is_tried_again(process, function, gateway, receiver, monkeypatch):
    receiver.failures = 2
    call = await accept(process, {"X-Callback-Url": receiver.url})
    await called_back(process, call, "Delivered")
    assert len(receiver.seen) == 3
    headers, record = receiver.seen[-1]
    assert (headers["X-Call-Id"], headers["X-Faaslite-Status"], record["status"]) == (call, "Succeeded", "Succeeded")
    assert record["result"]["body"] == '{"hello": "world"}'

    monkeypatch.setattr(callbacks, "TRIES", 2)
    receiver.failures = 99
    call = await accept(process, {"X-Callback-Url": receiver.url})
    record = await called_back(process, call, "Failed")
    assert "500" in record["callback"]["state"]
    assert len(receiver.seen) == 5


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x", "file:///etc/passwd", "unix:///var/run/docker.sock", "gopher://x", "//host", "host/x", "http://", "http://u:p@host/",
        "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://host:99999/", "javascript:alert(1)", "http://" + "a" * 3000,
    ],
)  # fmt: skip
async def test_a_callback_url_that_is_none_is_refused(process, function, url):
    status, body, _ = await process.request("POST", "/async-function/f", None, headers={"X-Callback-Url": url})
    assert (status, body["error"]) == (400, "BadRequest")
    assert "X-Callback-Url" in body["message"]


async def test_a_function_that_is_deleted_leaves_its_backlog_as_dead_letters(process, function, cluster, gateway):
    async def gone(request):
        if len(gateway.seen) == 1:
            return web.json_response({"error": "FunctionNotReady", "message": "not yet"}, status=503)
        return web.json_response({"error": "FunctionNotFound", "message": "gone"}, status=404)

    gateway.answer = gone
    call = await accept(process)
    await cluster.admin.delete(FUNCTION, "f", "default")
    record = await process.call(call, "DeadLetter")
    assert record["error"] == "FunctionNotFound: gone"
    assert [each["executed"] for each in record["tries"]] == [False, True]
    assert (await process.request("POST", f"/system/calls/{call}/replay"))[0] == 404


async def test_a_full_disk_refuses_calls_and_loses_none(process, function, gateway):
    hold = Hold(gateway)
    first = await accept(process, data=b"x" * 1000)
    await gateway.until(1)
    writer = process.jobs._running.calls._writer

    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await writer.run(fill)
    refused = 0
    while not refused:
        status, body, headers = await process.request("POST", "/async-function/f", None, data=b"x" * 100_000)
        refused = status == 503
    assert (body["error"], headers["Retry-After"]) == ("QueueUnavailable", "1")
    await writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000000") and None)
    hold.release.set()
    second = await accept(process, data=b"x" * 100_000)
    for call in (first, second):
        await process.call(call, "Succeeded")


async def test_a_trace_goes_on_through_the_queue(process, function, gateway):
    trace = "0af7651916cd43dd8448eb211c80319c"
    call = await accept(process, {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    record = await process.call(call, "Succeeded")
    sent = gateway.seen[0][2].getall("traceparent")
    assert record["traceId"] == trace
    assert len(sent) == 1 and sent[0].startswith(f"00-{trace}-") and not sent[0].endswith("b7ad6b7169203331-01")


# Cron


CRON = [{"name": "n", "schedule": "0 3 * * *", "timeZone": "Europe/Oslo", "payload": {"a": 1}}]


@pytest.fixture
async def nightly(process, cluster):
    await cluster.function("g", cron=CRON)
    await known(process, "g")


async def test_the_next_instants_are_told(process, nightly):
    status, body, _ = await process.request("GET", "/system/cron/default/g/n/next?count=3")
    times = [parse_time(each) for each in body["instants"]]
    assert (status, len(times), body["timeZone"]) == (200, 3, "Europe/Oslo")
    assert times == sorted(times)
    assert (await process.request("GET", "/system/cron/default/g/n/next?count=0"))[0] == 400
    assert (await process.request("GET", "/system/cron/default/g/m/next"))[0] == 404


async def test_a_trigger_is_run_by_hand(process, nightly, gateway):
    status, body, _ = await process.request("POST", "/system/cron/default/g/n/run")
    assert status == 202
    record = await process.call(body["callId"], "Succeeded")
    assert (record["trigger"], record["cron"]) == ("cron", "n")
    _, body, _ = await process.request("POST", "/system/cron/default/g/n/run", json={"payload": {"b": 2}})
    await process.call(body["callId"], "Succeeded")
    assert [each[3] for each in gateway.seen] == [b'{"a":1}', b'{"b":2}']


async def test_backfill_runs_what_has_no_record_one_after_another(process, nightly, gateway):
    path = "/system/cron/default/g/n/backfill"
    week = {"from": "2026-03-26T00:00:00Z", "to": "2026-04-01T00:00:00Z"}
    status, body, _ = await process.request("POST", path, json={**week, "dryRun": True})
    assert (status, len(body["instants"]), body["calls"]) == (200, 6, [])
    status, body, _ = await process.request("POST", path, json=week)
    assert (status, len(body["calls"]), body["existing"]) == (202, 6, 0)
    for each in body["calls"]:
        record = await process.call(each["callId"], "Succeeded")
        assert record["scheduledAt"] == each["instant"]
    _, body, _ = await process.request("POST", path, json=week)
    assert (body["calls"], body["existing"]) == ([], 6)
    for bad in (
        {}, {"from": "x"}, {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, {"from": "2026-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"},
        {"from": "1970-01-01T00:00:00Z"},
    ):  # fmt: skip
        assert (await process.request("POST", path, json=bad))[0] == 400


async def test_cron_retries_into_the_same_record(process, cluster, gateway):
    async def third_time(request):
        return web.Response(status=200 if len(gateway.seen) == 3 else 500)

    gateway.answer = third_time
    await cluster.function("g", cron=[{**CRON[0], "retries": 2}])
    await known(process, "g")
    _, body, _ = await process.request("POST", "/system/cron/default/g/n/run")
    record = await process.call(body["callId"], "Succeeded")
    assert (record["attempts"], [each["httpStatus"] for each in record["tries"]]) == (3, [500, 500, 200])


async def test_slots_go_by_the_weights_of_namespaces_and_functions(process, cluster, gateway, monkeypatch):
    """A backlog has every slot; as they become free, each function gets the share that its weight and its namespace's give it."""
    monkeypatch.setattr(process.jobs._running.dispatcher, "_concurrency", 8)
    monkeypatch.setattr("gateway.jobs.calls.dispatcher.FIRST", 0)
    await cluster.admin.patch(NAMESPACE, "team", "", {"metadata": {"annotations": {"faaslite.dev/weight": "3"}}})
    await cluster.function("crowd")
    await cluster.function("light", "team", **{"async": {"weight": 0.5}})
    await cluster.function("heavy", "team", **{"async": {"weight": 1}})
    async with asyncio.timeout(TIMEOUT):
        while len(process.jobs._weighing.weights.namespaces) + len(process.jobs._weighing.weights.functions) < 2:  # noqa: ASYNC110 - the weights are read when they are needed, nobody is told
            await asyncio.sleep(0.01)
    gates: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def hold(request):
        gate = asyncio.Event()
        gates.put_nowait(gate)
        await gate.wait()
        return web.Response(text="done")

    gateway.answer = hold
    for target in ["crowd"] * 30 + ["light.team"] * 20 + ["heavy.team"] * 20:
        assert (await process.request("POST", f"/async-function/{target}", None))[0] == 202
    await gateway.until(8)
    assert [each[1] for each in gateway.seen] == ["/function/crowd.default/"] * 8
    for ended in range(8):
        (await gates.get()).set()
        await gateway.until(9 + ended)
    # 8 slots: 2 for `default`, and of the 6 of `team` 4 for heavy, 2 for light.
    assert Counter(each[1] for each in gateway.seen[8:]) == {
        "/function/crowd.default/": 2, "/function/heavy.team/": 4, "/function/light.team/": 2,
    }  # fmt: skip
    gateway.answer = None
    while not gates.empty():
        (await gates.get()).set()
