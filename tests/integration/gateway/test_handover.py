"""Calls that a worker hands over to jobs and makes for it: both ends of the connection are the real ones, over a real queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.clock import wall
from gateway import handover as wire
from gateway.jobs.accepting import Accepting
from gateway.jobs.calls.base import (
    ASYNC,
    CANCELED,
    CRON,
    FAILED,
    RUNNING,
    SUCCEEDED,
    CallRecord,
    Mark,
    NewCall,
    Request,
)
from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.calls.sender import Gate
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.doorway import Doorway
from gateway.jobs.functions import FunctionView

TIMEOUT = 10.0


class Functions:
    """As an informer: those that jobs knows."""

    def __init__(self, *names: str) -> None:
        self.synced = True
        self._known = {
            f"default/{name}": msgspec.convert(
                {
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"async": {"retries": 0, "deadLetter": False}},
                },
                FunctionView,
            )
            for name in names
        }

    def get(self, key: str) -> FunctionView | None:
        return self._known.get(key)

    async def wait_synced(self) -> None: ...


class Jobs:
    """What jobs is to a worker; `run` False leaves out the executions."""

    def __init__(self, folder: Path, *functions: str) -> None:
        self.folder = folder
        self.functions = Functions(*(functions or ("hello",)))
        self.inserts: list[int] = []

    async def start(self, *, run: bool = True) -> Jobs:
        self.calls = await SqliteCalls.open(self.folder / "calls.db")
        self.changed = asyncio.Event()
        self.calls.listen(lambda kind, call: self.changed.set())
        self.doorway = Doorway(wire.socket_of(self.folder / "jobs.sock"))
        # Nobody listens at the address: what is executed came by the connection.
        self.dispatcher = Dispatcher(self.calls, "http://127.0.0.1:1", owner="jobs", workers=self.doorway)

        async def insert(calls: Any) -> Any:
            self.inserts.append(len(calls))
            return await self.dispatcher.insert(calls)

        await self.doorway.start(Accepting(self.functions, self.calls, insert, wall))  # type: ignore[arg-type]
        if run:
            await self.dispatcher.start()
        return self

    async def stop(self) -> None:
        await self.dispatcher.stop()
        await self.doorway.stop()
        await self.calls.close()

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(TIMEOUT):
            while not (found := await condition()):
                self.changed.clear()
                await self.changed.wait()
            return found

    async def ended(self, call: str) -> CallRecord:
        async def has_ended() -> CallRecord | None:
            record = await self.calls.get(call)
            assert record is not None
            return record if record.finished_at else None

        found: CallRecord = await self.until(has_ended)
        return found


@pytest.fixture
async def jobs(world) -> AsyncIterator[Jobs]:
    found = await Jobs(world.folder).start()
    yield found
    with contextlib.suppress(Exception):
        await found.stop()


async def connected(world, jobs: Jobs) -> None:
    await world.until(lambda: bool(jobs.doorway.links))


async def ready(world, jobs: Jobs, **function: Any) -> Any:
    world.function(**function)
    instance = await world.instance()
    await world.serve()
    await connected(world, jobs)
    return instance


async def test_a_call_is_recorded_and_made_as_it_came(world, jobs):
    instance = await ready(world, jobs, timeout=7.0)
    reply = await world.ask(
        "/async-function/hello/a%2Fb?x=1", "POST", b"payload", "X-Call-Id: mine", "X-One: 1", "Authorization: Bearer t",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    assert (reply.status, reply.body) == (202, b'{"callId":"mine"}')
    assert (reply.fields["x-call-id"], reply.fields["location"]) == ("mine", "/system/calls/mine")
    record = await jobs.ended("mine")
    assert (record.status, record.attempts, record.result["body"]) == (SUCCEEDED, 1, "hello")
    (request,) = instance.requests
    assert (request.line, request.body) == ("POST /a%2Fb?x=1 HTTP/1.1", b"payload")
    assert (request.fields["x-one"], request.fields["authorization"]) == ("1", "Bearer t")
    assert request.fields["x-call-id"] == "mine"
    assert request.fields["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert wall() < float(request.fields["x-faaslite-deadline"]) < wall() + 7.1
    assert "x-callback-url" not in request.fields
    kept = await jobs.calls.request("mine")
    assert not {name for name, _ in kept.headers} & {each.decode() for each in wire.DROPPED}


async def test_a_crowd_shares_commits_and_messages(world, jobs):
    await ready(world, jobs)
    peers = [await world.peer() for _ in range(60)]
    replies = await asyncio.gather(*(each.ask("/async-function/hello", "POST", b"x") for each in peers))
    assert {each.status for each in replies} == {202}
    assert len({each.fields["x-call-id"] for each in replies}) == 60
    assert sum(jobs.inserts) == 60
    assert len(jobs.inserts) < 30, jobs.inserts
    for each in replies:
        assert (await jobs.ended(each.fields["x-call-id"])).status == SUCCEEDED


async def test_a_body_in_pieces_is_handed_over_whole(world, jobs):
    instance = await ready(world, jobs)
    peer = await world.peer()
    body = bytes(range(256)) * 2000
    peer.write(
        b"POST /async-function/hello HTTP/1.1\r\nHost: t\r\nX-Call-Id: big\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    for at in range(0, len(body), 100_000):
        peer.write(body[at : at + 100_000])
        await world.settled()
    assert (await peer.reply("POST")).status == 202
    assert (await jobs.ended("big")).status == SUCCEEDED
    assert instance.requests[0].body == body
    peer.write(b"POST /async-function/hello HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await peer.reply()).status == 100
    peer.write(b"abc")
    assert (await peer.reply("POST")).status == 202


async def test_what_is_not_plain_goes_as_a_request_of_its_own(world, jobs, read, make_reply):
    seen = []

    async def handler(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                seen.append(await read(reader))
                writer.write(make_reply(b"{}", "202 Accepted"))
        writer.close()

    server = await asyncio.start_unix_server(handler, world.jobs)
    await ready(world, jobs)
    peer = await world.peer()
    peer.write(
        b"POST /async-function/hello HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert (await peer.reply("POST")).status == 202
    await peer.ask("/async-function/hello", "POST", b"x" * (wire.LARGEST_BODY + 1))
    await peer.ask("/async-function/nobody", "POST", b"x", "X-Faaslite-Revision: nobody-00001")
    await peer.ask("/async-function/hello@tag", "POST", b"x")
    assert [len(each.body) for each in seen] == [3, wire.LARGEST_BODY + 1, 1, 1]
    assert seen[2].fields["x-faaslite-revision"] == "nobody-00001"
    await world.worker.stop()
    server.close()


async def test_refusals_have_their_reasons(world, jobs):
    await ready(world, jobs)
    world.function("fresh")  # jobs hasn't heard of it yet
    await world.settled()
    key = ("Idempotency-Key: k",)
    first = await world.ask("/async-function/hello", "POST", b"a", *key)
    again = await world.ask("/async-function/hello", "POST", b"a", *key)
    assert again.fields["idempotency-replayed"] == "true"
    assert again.body == first.body
    assert again.fields["x-call-id"] == first.fields["x-call-id"]
    for target, status, reason, *fields in (
        ("/async-function/hello", 422, "IdempotencyKeyReused", *key),
        ("/async-function/fresh", 404, "FunctionNotFound"),
        ("/async-function/hello", 400, "BadRequest", "X-Callback-Url: ftp://x/"),
        ("/async-function/hello", 400, "BadRequest", "X-Faaslite-Revision: No Name"),
    ):
        found = await world.ask(target, "POST", b"b", *fields)
        assert (found.status, found.error["error"]) == (status, reason)
    other = Functions("hello", "fresh")
    jobs.functions._known.update(other._known)
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: one")
    assert (await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: one")).status == 202
    found = await world.ask("/async-function/fresh", "POST", b"", "X-Call-Id: one")
    assert (found.status, found.error["message"]) == (400, "the call id one is in use")


async def test_a_call_that_jobs_fails_on_is_answered_too(world, jobs, monkeypatch):
    await ready(world, jobs)
    monkeypatch.setattr("gateway.jobs.accepting.queueing", lambda function: 1 / 0)
    assert (await world.ask("/async-function/hello", "POST", b"")).status == 500


async def test_a_private_function_takes_calls_of_those_who_may(world, jobs):
    await ready(world, jobs, http={"visibility": "private"})
    assert (await world.ask("/async-function/hello", "POST", b"x")).status == 401
    assert (await world.ask("/async-function/hello", "POST", b"x", "Authorization: Bearer nobody")).status == 403
    found = await world.ask("/async-function/hello", "POST", b"x", "Authorization: Bearer maybe", "X-Call-Id: c")
    assert found.status == 202
    assert "authorization" not in dict((await jobs.calls.request("c")).headers)
    assert sum(jobs.inserts) == 1


async def test_jobs_dies_before_it_answers_and_comes_back(world):
    """The caller sees neither: what was handed over is handed over again, and recorded once."""
    path = wire.socket_of(world.jobs)
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def deaf(reader, writer):
        got.put_nowait(await reader.read(65536))
        writer.transport.abort()

    server = await asyncio.start_unix_server(deaf, path)
    world.function()
    await world.instance()
    await world.serve()
    await world.until(lambda: world.worker.gateway.handover._transport is not None)
    async with asyncio.timeout(TIMEOUT):
        asking = asyncio.create_task(world.ask("/async-function/hello", "POST", b"x", "X-Call-Id: c"))
        while b"async" in (message := await got.get()) or not message:
            continue
    server.close()
    assert not asking.done()
    ((_, sent),) = wire.Frames().feed(message)
    queue = Jobs(world.folder)
    await queue.start(run=False)
    # The process that died had recorded it.
    queue.doorway.accepting.add(wire.unpack_accepts(sent), lambda answer: None)
    assert (await asking).status == 202
    assert sum((await queue.calls.counts()).values()) == 1
    await queue.stop()


async def test_jobs_stays_away(world, monkeypatch):
    """503 at once where it never was, and after a while where it was."""
    world.function()
    await world.serve()
    assert (await world.ask("/async-function/hello", "POST", b"x")).error["error"] == "JobsUnavailable"
    queue = await Jobs(world.folder).start(run=False)
    await connected(world, queue)
    await queue.stop()
    monkeypatch.setattr("gateway.worker.handover.PATIENCE", 0.05)
    found = await world.ask("/async-function/hello", "POST", b"x")
    assert (found.status, found.error["error"]) == (503, "JobsUnavailable")


async def test_replies_of_every_sort(world, jobs):
    answers: list[bytes] = []

    async def scripted(reader, writer):
        while True:
            await read_one(reader)
            writer.write(answers.pop(0))

    async def read_one(reader):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 0" in head.lower() or b"content-length" not in head.lower()

    world.function()
    await world.instance(scripted)
    await world.serve()
    await connected(world, jobs)

    async def outcome(name: str, *pieces: bytes) -> CallRecord:
        answers.append(b"".join(pieces))
        assert (await world.ask("/async-function/hello", "POST", b"", f"X-Call-Id: {name}")).status == 202
        return await jobs.ended(name)

    record = await outcome("a", b"HTTP/1.1 201 Created\r\ncontent-type: text/x\r\nTransfer-Encoding: chunked\r\n\r\n",
                           b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")  # fmt: skip
    assert (record.status, record.http_status) == (SUCCEEDED, 201)
    assert record.result == {"contentType": "text/x", "encoding": "utf-8", "body": "abcde", "truncated": False}
    record = await outcome("b", b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"y" * 200_000)
    assert (len(record.result["body"]), record.result["truncated"]) == (64 << 10, True)
    record = await outcome("c", b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (record.status, record.http_status, record.result["body"]) == (SUCCEEDED, 204, "")
    record = await outcome("d", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    assert (record.status, record.error) == (FAILED, "the function answered 404")
    record = await outcome("e", b"nonsense\r\n\r\n")
    assert (record.status, record.http_status) == (FAILED, 502)
    assert record.error.startswith("BadReply: ")


async def test_a_function_without_an_instance_waits_for_one(world, jobs):
    world.function()
    await world.serve(queue_timeout=0.1)
    await connected(world, jobs)
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: c")

    await world.until(lambda: jobs.dispatcher.finished["Retried"] > 0)
    record = await jobs.calls.get("c")
    assert (record.attempts, record.error.partition(":")[0]) == (0, "ActivationTimeout")
    await world.instance()
    assert (await jobs.ended("c")).status == SUCCEEDED


def limit(world, **limits: str) -> None:
    annotations = {f"faaslite.dev/{name}": value for name, value in limits.items()}
    world.api.put("namespaces", {"metadata": {"name": "default", "annotations": annotations}})


async def test_a_call_in_flight_counts_for_the_quota_without_a_credential(world, jobs):
    """What was accepted is trusted: nobody is asked again who may, but the namespace's quota holds."""
    maya = "Authorization: Bearer maya"
    limit(world, concurrency="1")
    instance = await ready(world, jobs, http={"visibility": "private"})
    instance.gate.clear()
    assert (await world.ask("/async-function/hello", "POST", b"x", maya, "X-Call-Id: c")).status == 202
    request = await instance.arrived.get()
    assert "authorization" not in request.fields
    found = await world.ask("/function/hello", "GET", b"", maya)
    assert (found.status, found.error["error"]) == (429, "QuotaExceeded")
    instance.gate.set()
    assert (await jobs.ended("c")).status == SUCCEEDED
    assert (await world.ask("/function/hello", "GET", b"", maya)).status == 200, "its place was given back"
    assert world.worker.gateway.quotas.of("default").refused["concurrency"] == 1


async def test_a_call_over_the_quota_is_made_later_and_that_is_no_try(world, jobs):
    """These calls have no retries: one that counted would be their end."""
    limit(world, concurrency="1")
    instance = await ready(world, jobs)
    instance.gate.clear()
    holder = asyncio.create_task(world.ask())
    await instance.arrived.get()
    assert (await world.ask("/async-function/hello", "POST", b"x", "X-Call-Id: c")).status == 202
    await world.until(lambda: jobs.dispatcher.finished["Retried"] > 0)
    record = await jobs.calls.get("c")
    assert (record.attempts, record.http_status, record.error.partition(":")[0]) == (0, 429, "QuotaExceeded")
    assert record.due - record.tries[0].ended >= 1, "Retry-After says no less"
    assert len(instance.requests) == 1
    instance.gate.set()
    assert (await holder).status == 200
    record = await jobs.ended("c")
    assert (record.status, record.attempts, [each.executed for each in record.tries]) == (SUCCEEDED, 1, [False, True])


async def test_a_function_that_says_what_the_gateway_says_has_been_tried(world, jobs, read, make_reply):
    words = asyncio.Queue()

    async def handler(reader, writer):
        while True:
            await read(reader)
            status, reason = words.get_nowait()
            writer.write(make_reply(f'{{"error": "{reason}"}}'.encode(), status))

    world.function()
    await world.instance(handler)
    await world.serve()
    await connected(world, jobs)
    for status, reason in (("429 Too Many", "QuotaExceeded"), ("503 Unavailable", "QueueFull")):
        words.put_nowait((status, reason))
        assert (await world.ask("/async-function/hello", "POST", b"x", f"X-Call-Id: {reason}")).status == 202
        record = await jobs.ended(reason)
        assert (record.status, record.attempts, record.http_status) == (FAILED, 1, int(status[:3]))


def tick(name: str, at: float, **given: Any) -> tuple[NewCall, tuple[str, str, str], Mark]:
    """A cron call of the function `hello`, to be armed for its instant."""
    key = ("default", "hello", name)
    call = NewCall(
        id=name,
        namespace="default",
        function="hello",
        trigger=CRON,
        cron=name,
        accepted_at=at,
        scheduled_at=at,
        **given,
    )
    return call, key, Mark("u", "f", at)  # fmt: skip


async def test_calls_that_are_armed_go_to_workers_when_their_gate_opens(world, jobs):
    instance = await ready(world, jobs)
    at = wall() + 60
    gate = Gate(at)
    request = Request("PUT", "/p", "q=1", (("Content-Type", "text/x"),), b"payload")
    calls = [tick(f"t{number}", at, request=request, max_age=3600.0) for number in range(300)]
    armed = await jobs.dispatcher.arm(calls[:250], gate)
    assert len(armed) == 250 and jobs.dispatcher.running == 250
    await world.settled()
    assert instance.requests == []
    gate.open()
    for name in armed:
        record = await jobs.ended(name)
        assert (record.status, record.attempts, record.tries[0].began) == (SUCCEEDED, 1, at)
    assert {each.fields["x-call-id"] for each in instance.requests} == armed
    first = instance.requests[0]
    assert (first.line, first.body, first.fields["content-type"]) == ("PUT /p?q=1 HTTP/1.1", b"payload", "text/x")
    assert first.fields["x-faaslite-cron"] == first.fields["x-call-id"]
    assert jobs.dispatcher.running == 0 and not jobs.dispatcher.busy


async def test_an_armed_call_that_is_canceled_or_put_back_is_not_sent(world, jobs):
    instance = await ready(world, jobs)
    at = wall() + 60
    gate = Gate(at)
    await jobs.dispatcher.arm([tick("a", at), tick("b", at)], gate)
    assert await jobs.calls.cancel("a", "no more", wall())
    await world.until(lambda: jobs.dispatcher.running == 1)
    await jobs.dispatcher.stop()
    gate.open()
    await world.settled()
    a, b = await jobs.calls.get("a"), await jobs.calls.get("b")
    assert (a.status, b.status, b.attempts, b.due) == (CANCELED, "Queued", 0, at)
    assert instance.requests == []


async def test_an_armed_call_whose_worker_has_gone_is_made_by_http(world, jobs):
    await ready(world, jobs)
    gate = Gate(wall())
    await jobs.dispatcher.arm([tick("a", gate.at)], gate)
    for each in list(jobs.doorway.links):
        each.draining = True
    gate.open()
    await world.until(lambda: jobs.dispatcher.finished["Retried"] > 0)  # nobody listens at that address
    record = await jobs.calls.get("a")
    assert (record.attempts, record.error.partition(":")[0]) == (0, "the gateway can't be reached")


async def test_large_calls_are_handed_over_in_several_messages(world, jobs, monkeypatch):
    """A worker takes no message over its limit, and a thousand calls of a megabyte each would be one."""
    monkeypatch.setattr(wire, "LARGEST_FRAME", 6 << 20)
    world.function()
    instance = await world.instance()
    body = b"x" * (1 << 20)
    calls = [
        NewCall(id=f"c{n}", namespace="default", function="hello", trigger=ASYNC, accepted_at=wall(), request=Request(body=body))
        for n in range(10)
    ]  # fmt: skip
    await world.serve()
    await connected(world, jobs)
    (link,) = jobs.doorway.links
    await jobs.dispatcher.insert(calls)
    for each in calls:
        assert (await jobs.ended(each.id)).status == SUCCEEDED
    assert [link] == list(jobs.doorway.links), "its connection was not broken"
    assert {len(each.body) for each in instance.requests} == {len(body)}


async def test_a_canceled_call_is_given_up(world, jobs):
    instance = await ready(world, jobs)
    instance.gate.clear()
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: c")
    async with asyncio.timeout(TIMEOUT):
        await instance.arrived.get()
        assert (await jobs.calls.get("c")).status == RUNNING
        await jobs.calls.cancel("c", "enough", wall())
        await instance.lost.wait()
    assert (await jobs.calls.get("c")).status == CANCELED
    assert jobs.dispatcher.running == 0


async def test_a_worker_that_is_lost_is_a_lost_try(world, jobs):
    instance = await ready(world, jobs)
    instance.gate.clear()
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: c")
    async with asyncio.timeout(TIMEOUT):
        await instance.arrived.get()
        for link in list(jobs.doorway.links):
            link.transport.abort()
        await instance.lost.wait()  # the worker gives up what nobody would hear of
    record = await jobs.ended("c")
    assert (record.status, record.error) == (FAILED, "the connection broke")


async def test_a_worker_that_drains_ends_its_calls_and_gets_no_more(world, jobs):
    instance = await ready(world, jobs)
    instance.gate.clear()
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: c")
    async with asyncio.timeout(TIMEOUT):
        await instance.arrived.get()
        (link,) = jobs.doorway.links
        stopping = asyncio.create_task(world.worker.stop())
        await world.until(lambda: link.draining)
        assert jobs.doorway.pick() is None
        assert not stopping.done()
        instance.gate.set()
        assert (await jobs.ended("c")).status == SUCCEEDED
        await stopping
    world.worker = None


async def test_the_deadline_holds(world, jobs):
    instance = await ready(world, jobs, timeout=0.1)
    instance.gate.clear()
    await world.ask("/async-function/hello", "POST", b"", "X-Call-Id: c")
    record = await jobs.ended("c")
    assert (record.status, record.http_status) == (FAILED, 504)
