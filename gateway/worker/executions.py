"""Calls that jobs has this worker make: the part of a client's connection in the gateway, without the connection.

They take the way of every call from the activator on, and what comes back of a reply is gathered and told to jobs, many in one message.
They were allowed when they were accepted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, cast

from gateway.handover import Execute, Executed
from gateway.worker import errors
from gateway.worker.call import Call
from gateway.worker.errors import BadHead, Failure
from gateway.worker.fields import RequestFields
from gateway.worker.http1 import RequestLines
from gateway.worker.timers import NEVER

if TYPE_CHECKING:
    from gateway.worker.listener import ClientConnection
    from gateway.worker.worker import Gateway

__all__ = ["Executions"]

_CONTENT_TYPE = re.compile(rb"\r\n(?i:content-type):[ \t]*([^\r\n]*)")
_RETRY_AFTER = re.compile(rb"\r\n(?i:retry-after):[ \t]*([^\r\n]*)")
_NOBODY = RequestFields()
_SPARE = 64 << 10
"""Bytes of a reply that are gathered beside those of its body which are wanted: its head."""


class Executions:
    """Those of one worker. `tell` sends what has ended to jobs."""

    def __init__(self, gateway: Gateway, tell: Callable[[list[Executed]], None]) -> None:
        self.gateway = gateway
        self._tell = tell
        self._running: dict[int, _Execution] = {}
        self._ended: list[Executed] = []
        self._lines = RequestLines()
        self._none = asyncio.Event()
        self._none.set()

    def begin(self, orders: list[Execute]) -> None:
        for order in orders:
            self._none.clear()
            execution = self._running[order.number] = _Execution(self, order)
            execution.begin(self._lines)
        self._lines.forget()

    def cancel(self, numbers: list[int]) -> None:
        """Jobs doesn't want the replies any more."""
        for number in numbers:
            if (found := self._running.get(number)) is not None:
                found.cancel()

    def cancel_all(self) -> None:
        """There is nobody any more who would be told."""
        self.cancel(list(self._running))
        self._ended.clear()

    async def none(self) -> None:
        """Returns when none is running."""
        await self._none.wait()

    def over(self, number: int, result: Executed | None) -> None:
        if self._running.pop(number, None) is None:
            return
        if result is not None:
            if not self._ended:
                self.gateway.loop.call_soon(self._flush)
            self._ended.append(result)
        if not self._running:
            self._none.set()

    def _flush(self) -> None:
        ended, self._ended = self._ended, []
        if ended:
            self._tell(ended)


class _Execution:
    """What `Call.client` is for the activator and the connections to instances: its whole request is there, and it takes any reply."""

    __slots__ = ("_call", "_executions", "_gateway", "_limit", "_order", "_parts", "_size", "armed", "expires")

    takes_chunks = False  # so the body comes without the framing of its chunks
    request_complete = True
    has_span = False  # it is jobs'

    def __init__(self, executions: Executions, order: Execute) -> None:
        self._executions = executions
        self._gateway = executions.gateway
        self._order = order
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = order.limit + _SPARE
        self._call: Call | None = None
        self.expires = self.armed = NEVER

    def begin(self, lines: RequestLines) -> None:
        """As `ClientConnection` begins a call. Whatever stands in its way is its reply."""
        order, gateway = self._order, self._gateway
        try:
            text = f"{order.method} {order.target} HTTP/1.1".encode("latin-1")
            line = lines.known(text) or lines.read(text)
        except BadHead as error:
            self._fail(error.failure, error.message)
            return
        route = gateway.functions.get(line.name) if line.name is not None else None
        if route is None:
            self._fail(errors.FUNCTION_NOT_FOUND, "there is no such function")
            return
        if order.revision:
            revision = route.by_name.get(order.revision)
            if revision is None:
                self._fail(errors.FUNCTION_NOT_FOUND, f"there is no revision {order.revision!r}")
                return
        else:
            revision = route.single or route.choose(gateway.random)
        if revision is None:
            self._fail(errors.FUNCTION_NOT_READY, route.message)
            return
        now = monotonic()
        deadline = now + revision.timeout
        told = b"X-Faaslite-Deadline: %.3f\r\n\r\n" % (deadline + gateway.wall_offset)
        call = self._call = Call(
            cast("ClientConnection", self), line.method, line.idempotent, line.start + order.fields + told, order.id.encode("latin-1"),
            revision, route.stats, now, deadline,
        )  # fmt: skip
        if order.body:
            call.body, call.body_size = [order.body], len(order.body)
        self.expires = deadline
        gateway.wheel.arm(self)
        if route.quota is not None:
            gateway.access.guard(route, _NOBODY, trusted=True)(call, revision)
        else:
            gateway.activator.admit(call, revision)

    def cancel(self) -> None:
        call, self._call = self._call, None
        self._gateway.wheel.forget(self)
        self._executions.over(self._order.number, None)
        if call is not None:
            self._gateway.activator.cancel(call)

    # What the activator tells a client

    def wait_until(self, expires: float) -> None:
        self.expires = expires
        if expires < self.armed:
            self._gateway.wheel.arm(self)

    def on_timer(self, now: float) -> None:
        self.expires = NEVER
        if self._call is not None:
            self._gateway.activator.expire(self._call)

    def fail(self, call: Call, failure: Failure, message: str) -> None:
        self._fail(failure, message, call.waited)

    def abort(self) -> None:
        """Half a reply came."""
        self._over(Executed(self._order.number, 0))

    def _fail(self, failure: Failure, message: str, waited: float = -1.0) -> None:
        body = errors.error_body(failure.reason, message, self._order.id)
        retry = str(failure.retry_after) if failure.retry_after else ""
        kind = "application/json"
        self._over(Executed(self._order.number, failure.status, body, kind, retry, waited, False, failure.reason))

    def _over(self, result: Executed) -> None:
        self._call = None
        self._gateway.wheel.forget(self)
        self._executions.over(self._order.number, result)

    # What a connection to an instance does with a client

    @property
    def transport(self) -> _Execution:
        return self

    def write(self, data: bytes | memoryview) -> None:
        if self._size < self._limit:
            self._parts.append(bytes(data))
        self._size += len(data)

    def send(self, data: bytes | memoryview, lead: bytes = b"") -> None:
        if lead:
            self.write(lead)
        self.write(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        for part in parts:
            self.write(part)

    def reply_tail(self, call: Call) -> bytes:
        return b"\r\n"

    def on_reply_end(self, now: float) -> None:
        call, order = self._call, self._order
        if call is None:
            return
        head, _, body = b"".join(self._parts).partition(b"\r\n\r\n")
        kind, retry = _CONTENT_TYPE.search(head), _RETRY_AFTER.search(head) if call.status >= 400 else None
        size = self._size - len(head) - 4
        self._over(
            Executed(
                order.number,
                call.status,
                body[: order.limit],
                kind[1].decode("latin-1") if kind else "",
                retry[1].decode("latin-1") if retry else "",
                call.waited,
                size > order.limit,
            )
        )

    def begin_tunnel(self, head: bytes, call: Call) -> None:
        raise BadHead("an upgrade that nobody asked for")

    def close_after(self) -> None:
        """There is no connection whose end would say something."""

    def on_sent(self, call: Call) -> None:
        """All of the request was there."""

    def pause_reading(self) -> None:
        """Nothing more is read."""

    def resume_reading(self) -> None:
        """Nothing more is read."""
