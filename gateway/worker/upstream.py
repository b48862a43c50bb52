"""One connection to an instance (or to `jobs`): the way of a call out, and of its reply back to the client.

A connection has one call at a time. Every outcome is told to the `Outcomes` (the activator), which decides what follows.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from gateway.worker.call import LARGE, Call
from gateway.worker.errors import BadHead
from gateway.worker.http1 import Chunked, ReplyHead, parse_reply

if TYPE_CHECKING:
    from gateway.worker.pool import Pool

__all__ = ["Outcomes", "UpstreamConnection"]


class Outcomes(Protocol):
    def finish(self, call: Call, now: float) -> None:
        """The client has the whole reply. `now` is of the monotonic clock."""

    def refused(self, call: Call, why: str) -> None:
        """No connection could be made."""

    def lost(self, call: Call, reused: bool) -> None:
        """The connection ended before the reply did; `reused`: it had carried calls before, so it may just have been idle."""

    def busy(self, call: Call) -> None:
        """The instance is at its limit and didn't look at the call."""

    def garbled(self, call: Call, why: str) -> None:
        """The reply isn't HTTP."""


_HEAD, _LENGTH, _CHUNKED, _UNTIL_CLOSE, _TUNNEL = range(5)


class UpstreamConnection(asyncio.Protocol):
    """One connection to an instance."""

    __slots__ = (
        "_buffer", "_chunked", "_dechunk", "_keep", "_left", "_outcomes", "_paused", "_pool", "_reply", "_reused", "_seen", "_state", "_whole", "call",
        "closed", "idle_since", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.call: Call | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self.idle_since = 0.0
        self._pool = pool
        self._outcomes = pool.outcomes
        self._state = _HEAD
        self._buffer = b""
        self._left = 0
        self._chunked = Chunked()
        self._dechunk = False
        self._keep = True
        self._paused = False
        self._reused = False
        self._seen = b""  # the last reply's head, with the empty line
        self._reply = ReplyHead(0)
        self._whole = (
            -1
        )  # the length of a small reply with that head; -1 where there is none that could go the short way

    # The call goes out

    def start(self, call: Call) -> None:
        """Send what there is of `call`; more of its body comes through `send_body`."""
        self.call = call
        call.connection = self
        # Where it is closing just now nothing is written, and `connection_lost` says so.
        if call.body is None:
            self.transport.write(call.head)
        else:
            self.transport.writelines((call.head, *call.body))
            if call.body_size > self._pool.settings.replay:
                call.body = None
            call.client.on_sent(call)

    def send_body(self, call: Call, part: bytes) -> None:
        """`part` is already counted in the call's `body_size`."""
        if call.body is not None:
            if call.body_size > self._pool.settings.replay:
                call.body = None
            else:
                call.body.append(part)
        self.transport.write(part)

    def pause_writing(self) -> None:
        if self.call is not None:
            self.call.client.pause_reading()

    def resume_writing(self) -> None:
        if self.call is not None:
            self.call.client.resume_reading()

    def pause_reading(self) -> None:
        """The client is slower than the instance."""
        if not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # The reply comes back

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.abort()  # nobody asked: what this connection says next can't be trusted
            return
        state = self._state
        if state == _HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            # The usual reply, whole and with a head like the last one's: everything that `_on_head` and `_complete` do, at once.
            if call.usual and len(data) == self._whole and data.startswith(self._seen):
                reply = self._reply
                client = call.client
                call.status = reply.status
                call.sent = reply.length
                client.transport.write(
                    b"".join((reply.head, b"X-Call-Id: ", call.id, b"\r\n\r\n", data[-reply.length :]))
                )
                self.call = None
                if self._paused:
                    self.resume_reading()
                self._reused = True
                now = monotonic()
                self._pool.give_back(self, now)
                self._outcomes.finish(call, now)
                client.on_reply_end(now)
                return
            try:
                self._on_head(call, data)
            except BadHead as error:
                self._on_garbled(call, error.message)
        elif state == _LENGTH:
            self._on_content(call, data)
        elif state == _CHUNKED:
            try:
                self._on_chunks(call, data)
            except BadHead as error:
                self._on_garbled(call, error.message)
        else:
            call.sent += len(data)
            call.client.send(data)

    def _on_head(self, call: Call, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > 2 * self._pool.settings.max_head:
                    raise BadHead("the reply's head is too long")
                self._buffer = data
                return
            at = end + 4
            head = data[:at]
            if head == self._seen:
                reply = self._reply
            else:
                reply = self._reply = parse_reply(data[: end + 2])
                self._seen = head
                self._whole = at + reply.length if reply.simple and 0 < reply.length < LARGE else -1
            if reply.status >= 200 or reply.status == 101:
                break
            if reply.status != 100 and call.client.takes_chunks:  # 100 was answered by the gateway
                call.client.send(reply.head + b"\r\n")
            data = data[at:]
        if reply.simple and call.method != b"HEAD":
            self._begin(call, reply.status)
            self._left = reply.length
            content = data[at:] if len(data) - at < LARGE else memoryview(data)[at:]
            self._on_content(call, content, reply.head + call.client.reply_tail(call))
            return
        self._on_other_head(call, reply, data, at)

    def _begin(self, call: Call, status: int) -> None:
        """The final reply goes to the client, so there is no other one."""
        call.status = status
        call.reply_begun = True
        call.body = None

    def _on_other_head(self, call: Call, reply: ReplyHead, data: bytes, at: int) -> None:
        """Everything that isn't a final reply of known length on a connection that stays."""
        if reply.status == 101:
            self._on_switch(call, reply, data[at:])
            return
        if reply.busy and call.revision is not None:
            self._on_busy(call, reply.keep and reply.length == len(data) - at)
            return
        client = call.client
        self._keep = reply.keep
        if call.method == b"HEAD" or reply.status in (204, 304) or reply.length == 0:
            self._begin(call, reply.status)
            framing = b"Transfer-Encoding: chunked\r\n" if reply.chunked and call.method == b"HEAD" else b""
            client.send(reply.head + framing + client.reply_tail(call))
            self._keep = self._keep and at == len(data)
            self._complete(call)
            return
        if reply.chunked:
            self._dechunk = not client.takes_chunks
            framing = b"" if self._dechunk else b"Transfer-Encoding: chunked\r\n"
            if self._dechunk:
                client.close_after()
            self._chunked = Chunked()
            self._state = _CHUNKED
            self._on_chunks(call, data[at:], reply.head + framing + client.reply_tail(call), reply.status)
            return
        self._begin(call, reply.status)
        if reply.length > 0:
            self._left = reply.length
            self._on_content(call, data[at:], reply.head + client.reply_tail(call))
            return
        client.close_after()
        self._keep = False
        self._state = _UNTIL_CLOSE
        call.sent = len(data) - at
        client.send(data[at:], reply.head + client.reply_tail(call))

    def _on_switch(self, call: Call, reply: ReplyHead, ahead: bytes) -> None:
        if not call.upgrade or not reply.upgrade:
            raise BadHead("an upgrade that nobody asked for")
        self._begin(call, 101)
        self._keep = False
        self._state = _TUNNEL
        call.client.begin_tunnel(reply.head + b"Connection: upgrade\r\nUpgrade: " + reply.upgrade + b"\r\n", call)
        call.sent = len(ahead)
        call.client.send(ahead)

    def _on_busy(self, call: Call, whole: bool) -> None:
        """`whole`: nothing more of the refusal is to come. Otherwise the connection isn't worth waiting for."""
        call.connection = self.call = None
        if whole and call.client.request_complete:
            self._reused = True
            self._pool.give_back(self, monotonic())
        else:
            self.close()
        self._outcomes.busy(call)

    def _on_content(self, call: Call, data: bytes | memoryview, lead: bytes = b"") -> None:
        """Of a body whose length is known; `lead` is what goes to the client before it."""
        left = self._left - len(data)
        if left < 0:
            self._keep = False
            data = data[:left]
        self._left = left
        call.sent += len(data)
        call.client.send(data, lead)
        if left > 0:
            self._state = _LENGTH
        else:
            self._complete(call)

    def _on_chunks(self, call: Call, data: bytes, lead: bytes = b"", status: int = 0) -> None:
        """`lead` and `status` are those of a reply that begins. Raises BadHead."""
        content: list[bytes] | None = [] if self._dechunk else None
        end = self._chunked.feed(data, 0, content)
        if lead:
            self._begin(call, status)
        part = b"".join(content) if content is not None else data if end < 0 else data[:end]
        call.sent += len(part)
        call.client.send(part, lead)
        if end >= 0:
            self._keep = self._keep and end == len(data)
            self._complete(call)

    def _complete(self, call: Call) -> None:
        """The client has all of the reply; this connection is free if the instance has all of the request."""
        client = call.client
        now = monotonic()
        self.call = call.connection = None
        self._state = _HEAD
        if self._paused:
            self.resume_reading()
        if self._keep and client.request_complete:
            self._reused = True
            self._pool.give_back(self, now)
        else:
            self.close()
        self._outcomes.finish(call, now)
        client.on_reply_end(now)

    # Ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.drop(self)
        if not self.closed.done():
            self.closed.set_result(None)
        call = self.call
        if call is None:
            return
        if exc is None and self._state in (_UNTIL_CLOSE, _TUNNEL):
            call.client.close_after()
            self._complete(call)
        else:
            self._on_broken(call)

    def _on_broken(self, call: Call) -> None:
        self.call = call.connection = None
        self._outcomes.lost(call, self._reused and not self._buffer)

    def _on_garbled(self, call: Call, why: str) -> None:
        self.call = call.connection = None
        self.transport.abort()
        self._outcomes.garbled(call, why)

    def close(self) -> None:
        """End it once what was written is sent."""
        self._pool.unlist(self)
        self.transport.close()

    def abort(self) -> None:
        """End it now; its call, if it has one, isn't told."""
        if self.call is not None:
            self.call.connection = None
            self.call = None
        self._pool.unlist(self)
        self.transport.abort()
