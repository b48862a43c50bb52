"""Executes calls that are due, through the gateway, under a lease that is renewed while the request is out.

Nothing polls: the dispatcher sleeps until something was inserted (`wake`), an execution ended, or the next call falls due.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from core import clock as clocks
from faaslite.api.names import HEADER_CALL_ID, HEADER_COLD_START, HEADER_CRON, HEADER_REVISION
from gateway.handover import Executed
from gateway.jobs.calls.base import (
    Calls,
    CallsError,
    Claimed,
    ClaimNow,
    CronKey,
    End,
    Inserted,
    LeaseLost,
    Mark,
    NewCall,
    Outcome,
    Try,
)
from gateway.jobs.calls.fair import EQUAL, Weights
from gateway.jobs.calls.retry import Answer, Next, after
from gateway.jobs.calls.sender import Broken, Gate, Reply, Sender, Unreachable
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.calls.trace import NoTracing, Span, Tracing
from gateway.jobs.histogram import Histogram

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

LEASE = 30.0
CONCURRENCY = 1024
PER_FUNCTION = 256
FIRST = 1024
"""Slots over `CONCURRENCY` for functions that have nothing running: slow calls of some never keep the first call of another waiting."""
TRIES_KEPT = 20
LARGEST_RESULT = 64 << 10
"""Bytes of a reply's body that the record keeps."""
LONGEST_CALL = 86400.0 + 60.0
"""Seconds: a function's timeout is the gateway's to keep, this only ends a request that nobody will answer."""
TROUBLE = 1.0
"""Seconds until the queue is tried again after it failed."""


class Link(Protocol):
    """A gateway worker that makes calls, see `gateway.jobs.doorway`."""

    def execute(
        self,
        call: str,
        method: str,
        target: str,
        fields: bytes,
        body: bytes,
        revision: str,
        limit: int,
        done: Callable[[Executed | None], None],
    ) -> int: ...

    def cancel(self, number: int) -> None: ...


class Workers(Protocol):
    def pick(self) -> Link | None: ...


class _Cancelable(Protocol):
    def cancel(self) -> object: ...


class _GatewayError(msgspec.Struct):
    error: str = ""
    message: str = ""


_OVER_QUOTA = (429, "QuotaExceeded")
_decode_error = msgspec.json.Decoder(_GatewayError).decode


class Dispatcher:
    """`gateway_url` is `http://HOST:PORT`, `sockets` the folder of the gateway workers' Unix sockets; `clock` gives seconds since the epoch.

    `weights` is what slots are divided by, and may change. Calls go to one of `workers`, many in one message, where one is connected; else by HTTP.
    """

    def __init__(
        self,
        calls: Calls,
        gateway_url: str,
        *,
        owner: str,
        clock: Callable[[], float] = clocks.wall,
        concurrency: int = CONCURRENCY,
        per_function: int = PER_FUNCTION,
        lease: float = LEASE,
        largest_result: int = LARGEST_RESULT,
        tracing: Tracing | None = None,
        sockets: Path | None = None,
        workers: Workers | None = None,
        weights: Weights = EQUAL,
    ) -> None:
        self._calls = calls
        self._workers = workers
        self._weights = weights
        self._url = gateway_url.rstrip("/")
        self._tracing = tracing or NoTracing()
        self._owner = owner
        self._clock = clock
        self._concurrency = concurrency
        self._per_function = per_function
        self._lease = lease
        self._largest = largest_result
        self._running: dict[str, tuple[Claimed, _Cancelable]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[tuple[str, str]] = Counter()
        self._ending: set[str] = set()
        self._over: list[_Over] = []
        """Calls that have ended and are still to be recorded."""
        self._recording: asyncio.Task[None] | None = None
        self._early: set[str] = set()
        """Calls that wait at a gate."""
        self._backlog = True
        """Whether calls may be waiting for others to end."""
        self._wake = asyncio.Event()
        self._sender = Sender(self._url, sockets)
        self._loops: list[asyncio.Task[None]] = []
        self.finished: Counter[str] = Counter()
        """How many executions ended, by what became of the call."""
        self.executed: Counter[tuple[str, str, str]] = Counter()
        """Answers of the gateway by (namespace, function, class of status), since somebody took them from here."""
        self.waits = Histogram()
        """Seconds from when a call was accepted (a cron call: from its instant) to its first execution."""
        self.runs = Histogram()
        """Seconds of executions."""
        calls.listen(self._heard)

    async def start(self) -> None:
        self._wake.set()
        self._loops = [
            asyncio.create_task(self._run(), name="dispatcher"),
            asyncio.create_task(self._renew(), name="dispatcher leases"),
        ]

    async def stop(self) -> None:
        """Requests that are out are given up, and their calls go back into the queue: they will run again."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.cancel()
        if self._recording is not None:
            await asyncio.wait([self._recording])
        running, unsent = list(self._running.values()), set(self._early)
        tasks = [*loops, *self._tasks]
        for _, each in running:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for call, _ in running:
            try:
                due, early = self._clock(), call.id in unsent
                if early:  # nothing was sent yet
                    due = max(due, call.accepted_at)
                why = "" if early else "the jobs process stopped while it ran"
                await self._calls.again(call.id, call.fence, due, why, executed=not early)
            except CallsError as error:
                log.info("call %s was not put back: %s", call.id, error)
        await self._sender.close()

    async def insert(self, calls: Sequence[NewCall], marks: Mapping[CronKey, Mark] | None = None) -> list[Inserted]:
        """Record calls that are due now, and begin at once those that there is room for: one commit instead of two.

        Where others wait already these go behind them.
        """
        if not self._loops or self._backlog:
            return await self._calls.insert(calls, marks)
        room = self._concurrency - len(self._running)
        taken: dict[str, NewCall] = {}
        busy = self._busy.copy()
        for call in calls:
            key = (call.namespace, call.function)
            if not call.skip and len(taken) < room and busy[key] < self._per_function:
                taken[call.id] = call
                busy[key] += 1
        answers = await self._calls.insert(calls, marks, ClaimNow(self._owner, self._lease, frozenset(taken)))
        for answer in answers:
            if answer.fence:
                self._begin(claimed_now(taken[answer.id], answer.fence))
        return answers

    async def arm(self, calls: Sequence[tuple[NewCall, CronKey, Mark]], gate: Gate) -> set[str]:
        """Record cron calls ahead of their instant and make their requests ready, to be sent when `gate` opens.

        Answers the ids of those for which that was done: none where the queue is another's too, or there is no room.
        """
        if not self._loops or not isinstance(self._calls, SqliteCalls):
            return set()
        room = self._concurrency - len(self._running)
        chosen: dict[str, NewCall] = {}
        busy = self._busy.copy()
        for call, _, _ in calls:
            key = (call.namespace, call.function)
            if len(chosen) < room and busy[key] < self._per_function:
                chosen[call.id] = call
                busy[key] += 1
        armed = await self._calls.arm([each for each in calls if each[0].id in chosen], self._owner, self._lease)
        for each in armed:
            self._begin(claimed_now(chosen[each], 1), gate)
        return armed

    def wake(self) -> None:
        """Something was inserted."""
        self._wake.set()

    def abort(self, calls: Iterable[str]) -> None:
        """Give up on calls that were canceled."""
        for call in calls:
            if found := self._running.get(call):
                found[1].cancel()

    @property
    def busy(self) -> Mapping[tuple[str, str], int]:
        """Executions by (namespace, function)."""
        return self._busy

    @property
    def running(self) -> int:
        return len(self._running)

    async def step(self) -> float | None:
        """Claim and begin what can run now; returns when to look again (None: when woken)."""
        now = self._clock()
        self._backlog = True
        room, each = self._concurrency - len(self._running), self._per_function
        if room <= 0:
            room, each = room + FIRST, 1
            if room <= 0:
                return None
        claimed = await self._calls.claim(self._owner, now, self._lease, room, self._busy, each, self._weights)
        for call in claimed:
            self._begin(call)
        self._backlog = len(claimed) >= room or any(count >= each for count in self._busy.values())
        due = await self._calls.next_due(now)
        # Another process that dies tells nobody: its leases are looked at when they may have lapsed.
        return min(due or math.inf, now + self._lease)

    def _begin(self, call: Claimed, gate: Gate | None = None) -> None:
        self._busy[call.namespace, call.function] += 1
        if self._workers is not None and self._workers.pick() is not None:
            handed = _Handed(self, call, gate)
            self._running[call.id] = (call, handed)
            if gate is None:
                handed.send()
            else:
                self._early.add(call.id)
                gate.add(handed.send)
            return
        self.by_http(call, gate)

    def by_http(self, call: Claimed, gate: Gate | None = None) -> None:
        task = asyncio.create_task(self._execute(call, gate))
        self._running[call.id] = (call, task)
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._task_ended, call))

    def _heard(self, kind: str, call: str) -> None:
        """Of what this or another process did to the queue."""
        if kind != "ended":
            self._wake.set()
        elif call in self._running and call not in self._ending:
            self.abort([call])

    def _task_ended(self, call: Claimed, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("call %s: the dispatcher failed, its lease will lapse", call.id, exc_info=error)
        self.ended(call)

    def drop(self, call: Claimed) -> None:
        """It was given up, before or after it was sent."""
        self._early.discard(call.id)
        self.ended(call)

    def ended(self, call: Claimed) -> None:
        """It isn't executed any more."""
        found = self._running.get(call.id)
        if found is not None and found[0] is call:
            del self._running[call.id]
        key = (call.namespace, call.function)
        self._busy[key] -= 1
        if self._busy[key] <= 0:
            del self._busy[key]
        # What waits for its trigger's earlier call isn't counted as a backlog.
        if self._backlog or call.cron:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                due = await self.step()
            except CallsError as error:
                log.warning("the queue of calls failed: %s", error)
                due = self._clock() + TROUBLE
            except Exception:
                log.exception("dispatching failed")
                due = self._clock() + TROUBLE
            loop = asyncio.get_running_loop()
            timer = None if due is None else loop.call_later(max(due - self._clock(), 0.001), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            held = {call.id: call.fence for call, _ in self._running.values()}
            if not held:
                continue
            try:
                lost = await self._calls.renew(held, self._clock(), self._lease)
            except CallsError as error:
                log.warning("leases of %d calls were not renewed: %s", len(held), error)
                continue
            # A call that ended meanwhile is not lost.
            self.abort(each for each in lost if each in self._running and self._running[each][0].fence == held[each])

    async def _execute(self, call: Claimed, gate: Gate | None) -> None:
        began = self._clock()
        span = self._tracing.begin(call, began)
        request = self._request_of(call, span)
        if gate is not None:
            self._early.add(call.id)

        def sent() -> None:
            nonlocal began
            began = self._clock()
            self._early.discard(call.id)

        try:
            answer, result = await self._send(call, request, gate, sent)
        finally:
            self._early.discard(call.id)
        if gate is not None:
            began = max(began, gate.at)
        await self._record([self.judge(call, span, began, answer, result)])

    def now(self) -> float:
        return self._clock()

    def begin_span(self, call: Claimed, now: float) -> Span:
        return self._tracing.begin(call, now)

    def order(self, call: Claimed, span: Span) -> tuple[str, bytes]:
        """Target and fields of its request."""
        request = call.request
        target = f"/function/{call.function}.{call.namespace}{request.path}"
        if request.query:
            target = f"{target}?{request.query}"
        headers = [*request.headers, (HEADER_CALL_ID, call.id), ("traceparent", span.traceparent)]
        if call.cron:
            headers.append((HEADER_CRON, call.cron))
        return target, self._sender.fields(request.method, headers, request.body)

    def hand(
        self, call: Claimed, target: str, fields: bytes, done: Callable[[Executed | None], None]
    ) -> tuple[Link, int] | None:
        """The worker that makes the call now, and under which number; None where none is connected."""
        self._early.discard(call.id)
        link = self._workers.pick() if self._workers is not None else None
        if link is None:
            return None
        request = call.request
        return link, link.execute(
            call.id, request.method, target, fields, request.body, call.options.revision, self._largest, done
        )

    def over(self, call: Claimed, span: Span, began: float, result: Executed | None) -> None:
        """A worker has made the call, or was lost."""
        if result is None or not result.status:
            answer, kept = Answer(0, "", "the connection broke"), None
        else:
            headers = {"content-type": result.content_type, "retry-after": result.retry_after}
            reply = Reply(result.status, headers, result.body, result.truncated)
            waited = result.waited if result.waited >= 0 else None
            answer, kept = _answer(reply, waited, result.reason), _result(reply)
        self._over.append(self.judge(call, span, began, answer, kept))
        if self._recording is None:
            self._recording = asyncio.create_task(self._record_all(), name="recording ends")

    def judge(self, call: Claimed, span: Span, began: float, answer: Answer, result: object) -> _Over:
        """What becomes of a call that was answered so; from here on it is on its way out."""
        now = self._clock()
        self.runs.add(now - began)
        if call.attempts == 1 and not call.refusals:
            self.waits.add(began - (call.scheduled_at or call.accepted_at))
        then = after(call, answer, now, random.random())  # noqa: S311 - jitter
        this = Try(began, now, answer.status, answer.cold_start, answer.error, then.executed, self._owner)
        if answer.status:
            self.executed[call.namespace, call.function, f"{answer.status // 100}xx"] += 1
        self._ending.add(call.id)
        return _Over(call, span, answer, result, then, this)

    async def _record_all(self) -> None:
        """What ends while one group is written goes into the next."""
        try:
            while self._over:
                group, self._over = self._over, []
                await self._record(group)
                for each in group:
                    self.ended(each.call)
        finally:
            self._recording = None

    async def _record(self, group: list[_Over]) -> None:
        """The ends of these calls, and those that go back into the queue."""
        ends = [each for each in group if each.then.status]
        try:
            if ends:
                held = await self._calls.finish_all([each.end() for each in ends])
                for each, was in zip(ends, held, strict=True):
                    self._told(each, was)
            for each in group:
                if not each.then.status:
                    self._told(each, await self._again(each))
        except CallsError as error:
            log.warning("the ends of up to %d calls were not recorded, they will run again: %s", len(group), error)
        finally:
            for each in group:
                self._ending.discard(each.call.id)
                each.span.end(each.this, each.then.status)

    async def _again(self, over: _Over) -> bool:
        call, answer, this = over.call, over.answer, over.this
        due = (this.ended or 0.0) + over.then.delay
        try:
            await self._calls.again(
                call.id,
                call.fence,
                due,
                answer.error,
                http_status=answer.status,
                executed=over.then.executed,
                tries=told(call, this),
            )
        except LeaseLost:
            return False
        self._wake.set()  # to be told when it is due
        return True

    def _told(self, over: _Over, held: bool) -> None:
        if held:
            self.finished[over.then.status or "Retried"] += 1
        else:
            log.info("call %s went to another claim or was canceled while it ran", over.call.id)

    def _request_of(self, call: Claimed, span: Span) -> bytes:
        target, fields = self.order(call, span)
        if call.options.revision:
            fields += f"{HEADER_REVISION}: {call.options.revision}\r\n".encode("latin-1")
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (
            call.request.method.encode("latin-1"), target.encode("latin-1"), fields, call.request.body,
        )  # fmt: skip

    async def _send(
        self, call: Claimed, request: bytes, gate: Gate | None, sent: Callable[[], None]
    ) -> tuple[Answer, object]:
        try:
            reply = await self._sender.send(call.request.method, request, self._largest, LONGEST_CALL, gate, sent)
        except Unreachable as error:
            return Answer(0, "GatewayUnreachable", f"the gateway can't be reached: {error}"), None
        except Broken as error:
            return Answer(0, "", f"{error}"), None
        return _answer(reply, _cold_start(reply)), _result(reply)


class _Over(NamedTuple):
    """A call that was executed, and what becomes of it."""

    call: Claimed
    span: Span
    answer: Answer
    result: object
    then: Next
    this: Try

    def end(self) -> End:
        outcome = Outcome(self.then.status, self.answer.status, self.result, self.answer.error)
        return End(self.call.id, self.call.fence, outcome, self.this.ended or 0.0, told(self.call, self.this))


class _Handed:
    """A call that a worker makes, once `send` has given it to one."""

    __slots__ = ("_began", "_call", "_dispatcher", "_gate", "_open", "_order", "_span", "_to")

    def __init__(self, dispatcher: Dispatcher, call: Claimed, gate: Gate | None) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._gate = gate
        self._open = True
        self._began = 0.0
        self._to: tuple[Link, int] | None = None
        self._span = dispatcher.begin_span(call, dispatcher.now())
        self._order = dispatcher.order(call, self._span)

    def send(self) -> None:
        if not self._open:
            return
        self._began = max(self._dispatcher.now(), self._gate.at if self._gate is not None else 0.0)
        self._to = self._dispatcher.hand(self._call, *self._order, self._done)
        if self._to is None:  # the workers have gone since
            self._open = False
            self._dispatcher.by_http(self._call)

    def _done(self, result: Executed | None) -> None:
        if self._open:
            self._open = False
            self._dispatcher.over(self._call, self._span, self._began, result)

    def cancel(self) -> None:
        if self._open:
            self._open = False
            if self._to is not None:
                self._to[0].cancel(self._to[1])
            self._dispatcher.drop(self._call)


def claimed_now(call: NewCall, fence: int) -> Claimed:
    """The first claim of a call that was just inserted."""
    return Claimed(
        id=call.id, namespace=call.namespace, function=call.function, trigger=call.trigger, cron=call.cron, scheduled_at=call.scheduled_at,
        accepted_at=call.accepted_at, attempts=1, refusals=0, retries=call.retries, max_age=call.max_age, fence=fence, request=call.request,
        since=call.accepted_at, options=call.options,
    )  # fmt: skip


def told(call: Claimed, this: Try) -> tuple[Try, ...]:
    """What is known of a call's tries, with this one; one that nobody told the end of is added as lost."""
    before = list(call.tries)
    known = sum(each.executed for each in before)
    if known < call.attempts - 1 and len(before) < TRIES_KEPT:
        before += [Try(began=0.0, error="the process that ran it was lost")] * (call.attempts - 1 - known)
    return (*before, this)[-TRIES_KEPT:]


def _cold_start(reply: Reply) -> float | None:
    waited = reply.headers.get(HEADER_COLD_START.lower(), "")
    try:
        return float(waited) / 1000 if waited else None
    except ValueError:
        return None


def _answer(reply: Reply, cold_start: float | None, reason: str | None = None) -> Answer:
    """`reason` is why the gateway itself refused the call, "" where it didn't; None where only the reply can tell."""
    if reply.status < 400:
        return Answer(reply.status, cold_start=cold_start)
    try:
        said = _decode_error(reply.body)
    except msgspec.DecodeError:
        said = _GatewayError()
    seconds = reply.headers.get("retry-after", "")
    message = said.message or f"the function answered {reply.status}"
    error = f"{said.error}: {message}" if said.error else message
    if reason is None:  # a function may use these words with another status
        reason = said.error if reply.status == 503 or (reply.status, said.error) == _OVER_QUOTA else ""
    return Answer(reply.status, reason, error, float(seconds) if seconds.isdecimal() else None, cold_start)


def _result(reply: Reply) -> dict[str, object]:
    kind = reply.headers.get("content-type", "")
    try:
        text, encoding = reply.body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(reply.body).decode(), "base64"
    return {"contentType": kind, "encoding": encoding, "body": text, "truncated": reply.truncated}
