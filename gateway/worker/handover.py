"""The connection to jobs: calls under `/async-function/` are handed over to be recorded, and calls that jobs has made come back.

Handed over is what is plain: a POST for a function that this worker knows, with a body of known length that may be queued. Everything else goes to jobs as
a request of its own, by `Gateway.jobs`, and gets the same answers.

While jobs is away (it was killed, say) calls wait for it: they have ids, so handing one over again is safe, whatever became of the first time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, cast

import msgspec

from gateway.handover import (
    ACCEPT,
    ANSWER,
    CANCEL,
    DRAIN,
    DROPPED,
    EXECUTE,
    EXECUTED,
    LARGEST_BODY,
    Accept,
    Answer,
    Executed,
    Frames,
    pack,
    unpack_answers,
    unpack_executes,
    unpack_numbers,
)
from gateway.worker.call import Call
from gateway.worker.errors import JOBS_UNAVAILABLE, Failure
from gateway.worker.executions import Executions
from gateway.worker.fields import RequestFields
from gateway.worker.http1 import RequestLine
from gateway.worker.router import Route
from gateway.worker.upstream import UpstreamConnection

if TYPE_CHECKING:
    from gateway.worker.worker import Gateway

__all__ = ["Handover"]

log = logging.getLogger(__name__)

MOST = 512
"""Calls in one message."""
LARGEST = 4 << 20
"""Bytes of bodies in one message, about."""
PATIENCE = 10.0
"""Seconds that a call waits for jobs to come back, or for its answer after that."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
ASYNC = b"/async-function/"
_OWN = {b"x-callback-url": 0, b"idempotency-key": 1, b"traceparent": 2}


class Handover:
    """To the jobs process that listens at `path`. Refusals are told through the activator, as those of other calls."""

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._loop = gateway.loop
        self._path = path
        self._activator = gateway.activator
        self._draining = False
        self.executions = Executions(gateway, self._tell)
        self._waiting: deque[tuple[Call, Accept]] = deque()
        self._sent: dict[int, tuple[Call, Accept]] = {}
        """Of the one message that is on its way."""
        self._transport: asyncio.Transport | None = None
        self._flushing = False
        self._numbers = 0
        self._lost_at = -PATIENCE
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run(), name="handing over to jobs")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def drain(self) -> None:
        """Take no more calls to make, and let those that run end."""
        self._draining = True
        if (jobs := self._open()) is not None:
            jobs.write(pack(DRAIN, []))
        await self.executions.none()

    def _tell(self, ended: list[Executed]) -> None:
        if (jobs := self._open()) is not None:
            jobs.write(pack(EXECUTED, ended))

    def _open(self) -> asyncio.Transport | None:
        """The connection, if it can be written to: one that has broken is closed some turns before that is said."""
        found = self._transport
        return None if found is None or found.is_closing() else found

    def sender(self, route: Route, line: RequestLine, fields: RequestFields) -> Callable[[Call], None] | None:
        """What hands over a call of this request; None where it isn't plain, or jobs has been away for long."""
        if line.method != b"POST" or fields.chunked or fields.length > LARGEST_BODY:
            return None
        if self._transport is None and monotonic() - self._lost_at > PATIENCE:
            return None
        if line.path.startswith((b"@", b":"), len(ASYNC) + len(route.name)):
            return None  # a part of a function, which calls aren't queued for

        def send(call: Call) -> None:
            if call.client.request_complete:
                self._submit(call, route, line, fields)
                return
            call.connection = cast(UpstreamConnection, _Arriving(lambda: self._submit(call, route, line, fields)))
            call.client.on_sent(call)

        return send

    def _submit(self, call: Call, route: Route, line: RequestLine, fields: RequestFields) -> None:
        call.connection = None
        self._numbers += 1
        self._waiting.append((call, _accept(self._numbers, call, route, line, fields)))
        if not self._sent and not self._flushing and self._transport is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """What waits, up to a limit, as one message."""
        self._flushing = False
        jobs = self._open()
        if jobs is None or self._sent:
            return
        size = 0
        while self._waiting and len(self._sent) < MOST and size < LARGEST:
            call, accept = self._waiting.popleft()
            if not call.done:
                size += len(accept.body)
                self._sent[accept.number] = call, accept
        if self._sent:
            jobs.write(pack(ACCEPT, [accept for _, accept in self._sent.values()]))

    def on_answers(self, answers: list[Answer]) -> None:
        for answer in answers:
            found = self._sent.pop(answer.number, None)
            if found is not None and not found[0].done:
                self._answer(found[0], answer)
        if self._waiting:
            self._flush()

    def _answer(self, call: Call, answer: Answer) -> None:
        if answer.status != 202:
            retry_after = 1 if answer.status == 503 else 0
            self._activator.reject(call, Failure(answer.status, answer.reason, retry_after), answer.message)
            return
        call.id = name = answer.id.encode("ascii")
        client, now = call.client, monotonic()
        call.status = 202
        client.transport.write(
            b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\nLocation: /system/calls/%s\r\n%s%s"
            b'{"callId":"%s"}'
            % (
                len(name) + 13, name, b"Idempotency-Replayed: true\r\n" if answer.replayed else b"", client.reply_tail(call), name,
            )
        )  # fmt: skip
        self._activator.finish(call, now)
        client.on_reply_end(now)

    # The connection

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                _, connection = await self._loop.create_unix_connection(lambda: _Connection(self), str(self._path))
            except OSError:
                self._give_up(monotonic() - PATIENCE)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            try:
                self._transport = connection.transport
                if self._draining:
                    self._transport.write(pack(DRAIN, []))
                self._flush()
                await connection.ended
            finally:
                self._transport = None
                self._lost_at = monotonic()
                connection.transport.abort()
                self.executions.cancel_all()
            # What wasn't answered goes first when there is a connection again.
            self._waiting.extendleft(reversed(self._sent.values()))
            self._sent.clear()

    def _give_up(self, before: float) -> None:
        """Calls that began before that time wait in vain."""
        while self._waiting and self._waiting[0][0].started < before:
            call, _ = self._waiting.popleft()
            self._activator.reject(call, JOBS_UNAVAILABLE, f"jobs was not there for {PATIENCE:g} s")


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._frames = Frames()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, message in self._frames.feed(data):
                if kind == ANSWER:
                    self._handover.on_answers(unpack_answers(message))
                elif kind == EXECUTE:
                    self._handover.executions.begin(unpack_executes(message))
                elif kind == CANCEL:
                    self._handover.executions.cancel(unpack_numbers(message))
                else:
                    raise ValueError(f"a message of the unknown kind {kind}")
        except (ValueError, msgspec.DecodeError) as error:
            log.error("jobs said something unreadable: %s", error)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class _Arriving:
    """Stands where a call has its connection to an instance, until its body is whole."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Callable[[], None]) -> None:
        self._whole = whole

    def send_body(self, call: Call, part: bytes) -> None:
        assert call.body is not None
        call.body.append(part)
        if call.client.request_complete:
            self._whole()

    def pause_reading(self) -> None:
        """Nothing comes from there."""

    def resume_reading(self) -> None:
        """Nothing comes from there."""

    def abort(self) -> None:
        """The call was withdrawn; it is seen to be done."""


def _accept(number: int, call: Call, route: Route, line: RequestLine, fields: RequestFields) -> Accept:
    """From the head that jobs would get as a request: what isn't for the function is cut out of that already."""
    own = ["", "", ""]
    headers: list[tuple[str, str]] = []
    for field in call.head[len(line.start) : -4].split(b"\r\n"):
        name, _, value = field.partition(b":")
        lower = name.lower()
        if lower not in DROPPED:
            headers.append((lower.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
        elif (place := _OWN.get(lower)) is not None:
            own[place] = value.strip(b" \t").decode("latin-1")
    target, _, query = line.path.partition(b"?")
    below = target.split(b"/", 3)[3:]  # "", async-function, NAME, what is below
    return Accept(
        number,
        call.id.decode("ascii"),
        route.namespace,
        route.name,
        "/" + below[0].decode("latin-1") if below else "/",
        query.decode("latin-1"),
        tuple(headers),
        b"".join(call.body) if call.body else b"",
        fields.revision.decode("latin-1"),
        own[2],
        own[0],
        own[1],
    )
