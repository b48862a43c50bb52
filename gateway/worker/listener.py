"""Clients' connections: where a request's walk through the gateway begins and where its reply leaves.

`ClientConnection._on_head` is that walk: head -> route -> call -> activator -> instance (`gateway.worker.entry` for all that isn't the plain call of
a public function); the reply comes back through `gateway.worker.upstream`. A connection has one call at a time, what a client sends ahead waits in the buffer, so replies are in order.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from gateway.worker import entry, errors
from gateway.worker.body import RequestBody
from gateway.worker.call import LARGE, Call
from gateway.worker.errors import BadHead, Failure
from gateway.worker.fields import RequestFields, parse_request_fields, with_host
from gateway.worker.http1 import RequestLine, check_incomplete
from gateway.worker.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.worker.concurrency import Revision
    from gateway.worker.router import Route
    from gateway.worker.worker import Gateway

    Guard = Callable[[Call, Revision | None], None]

__all__ = ["ClientConnection"]

_NO_LINE = RequestLine(b"", False, False, None, b"", b"")

# What the bytes that come next are.
_HEAD, _BODY, _AHEAD, _DISCARD, _TUNNEL, _LINGER = range(6)


class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_block",
        "_body",
        "_buffer",
        "_call",
        "_close",
        "_fields",
        "_http10",
        "_line",
        "_no_body",
        "_paused",
        "_peer",
        "_scheme",
        "_seen",
        "_special",
        "_state",
        "_write_paused",
        "armed",
        "expires",
        "gateway",
        "transport",
        "trusted",
    )  # fmt: skip
    has_span = True

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway, *, trusted: bool = False) -> None:
        self.expires = NEVER
        self.armed = NEVER
        self.gateway = gateway
        self._state = _HEAD
        self._buffer = b""
        self._call: Call | None = None
        self._body = RequestBody()
        self._close = False
        self._http10 = False
        self._no_body = False
        self._paused = False
        self._write_paused = False
        self._peer = b""
        self.trusted = trusted
        self._scheme = b"http"
        self._special = False  # the reply's head has more to say than the call's id
        # The last head that came alone, with its line and fields: clients repeat themselves.
        self._seen = b""
        self._line = _NO_LINE
        self._block = b"\n"  # equal to no block
        self._fields = RequestFields()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0].encode("ascii") if isinstance(peer, tuple) else b"unix"
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = b"https"
        gateway = self.gateway
        gateway.connections.add(self)
        self._special = gateway.draining
        self.wait_until(gateway.loop.time() + gateway.settings.header_timeout)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            try:
                self._on_head(data)
            except BadHead as error:
                self._refuse(error.failure, error.message)
        elif state in (_BODY, _DISCARD):
            try:
                self._on_body(data)
            except BadHead as error:
                self._on_bad_body(error)
        elif state == _AHEAD:
            self._buffer += data
            if len(self._buffer) > self.gateway.settings.pipeline:
                self.pause_reading()
        elif state == _TUNNEL:
            self._on_tunnel(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        gateway = self.gateway
        gateway.wheel.forget(self)
        gateway.on_connection_lost(self)
        self._state = _LINGER
        self._buffer = b""
        call, self._call = self._call, None
        if call is not None:
            gateway.activator.cancel(call)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._call is not None and self._call.connection is not None:
            self._call.connection.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._call is None:
            self._next()
        elif self._call.connection is not None:
            self._call.connection.resume_reading()

    # A request comes in

    def _on_head(self, data: bytes) -> None:
        """The walk of a request. `data` begins with a head; its body and what is sent ahead may follow. Raises BadHead."""
        gateway = self.gateway
        body: bytes | None = None
        if data == self._seen:
            line = self._line
            fields = self._fields
            self._state = _AHEAD
        else:
            end = data.find(b"\r\n\r\n")
            if end < 4 or end > gateway.settings.max_head:
                self._on_partial_head(data, end)
                return
            line_end = data.find(b"\r\n")
            if not line_end:
                self._on_partial_head(data, end)
                return
            text = data[:line_end]
            line = gateway.lines.known(text) or gateway.lines.read(text)
            block = data[line_end + 2 : end + 2]
            if line.authority:
                block = with_host(block, line.authority)
            if block == self._block:
                fields = self._fields
            else:
                fields = self._fields = parse_request_fields(
                    block, self._peer, trust_forwarded=gateway.settings.trust_forwarded, scheme=self._scheme
                )
                self._block = block
            self._seen = b""
            if fields.plain and not line.http10:
                self._http10 = False
            else:
                self._look_closer(line, fields)
            self._no_body = line.method == b"HEAD"
            if not fields.plain and (fields.length or fields.chunked):
                body = self._begin_body(fields, data, end + 4, limited=gateway.router.is_call(line))
            else:
                self._state = _AHEAD
                if len(data) > end + 4:
                    self._buffer = data[end + 4 :]
                else:
                    self._seen = data
                    self._line = line

        name = line.name
        route = gateway.functions.get(name) if name is not None else None
        if route is None or route.direct is None or not (fields.plain or not fields.revision):
            entry.enter(self, line, fields, body, route)
            return
        self.call_function(line.start, line, fields, body, route, route.direct)

    def _look_closer(self, line: RequestLine, fields: RequestFields) -> None:
        """What an old version, or a field that is meant for us, says about the connection. Raises BadHead."""
        if line.http10:
            self._http10 = self._special = True
            if fields.chunked:
                raise BadHead("Transfer-Encoding in HTTP/1.0")
            self._close = not fields.keep_alive
        else:
            self._http10 = False
            if not fields.has_host:
                raise BadHead("no Host")
            if fields.close:
                self._close = self._special = True

    def call_function(
        self,
        start: bytes,
        line: RequestLine,
        fields: RequestFields,
        body: bytes | None,
        route: Route,
        revision: Revision,
        guard: Guard | None = None,
    ) -> None:
        """Make the call and give it to the activator. `start` is the request line that the instance gets."""
        gateway = self.gateway
        now = monotonic()
        deadline = now + revision.timeout
        if now >= revision.told_until:
            revision.tell_deadline(now, gateway.wall_offset)
        told = revision.told
        call_id = trace = gateway.ids.pop()
        if not gateway.ids:
            gateway.refill_ids()
        upgrade = False
        if not fields.plain:
            if fields.deadline and fields.deadline - gateway.wall_offset < deadline:
                deadline = fields.deadline - gateway.wall_offset
                told = b"%.3f\r\n\r\n" % fields.deadline
            call_id = fields.call_id or call_id
            if fields.traced:
                trace = b""
            upgrade = fields.upgrade and not self._http10
        if trace:
            head = b"".join((
                start, fields.forward, b"X-Call-Id: ", call_id, b"\r\ntraceparent: 00-", trace, b"-", gateway.spans.pop(),
                b"-01\r\nX-Faaslite-Deadline: ", told,
            ))  # fmt: skip
        else:
            head = b"".join((start, fields.forward, b"X-Call-Id: ", call_id, b"\r\nX-Faaslite-Deadline: ", told))
            if gateway.activator.tracing is not None:
                head = gateway.activator.tracing.join(head, gateway.spans.pop())
        usual = self._state == _AHEAD and not self._special and not self._no_body
        call = Call(self, line.method, line.idempotent, head, call_id, revision, route.stats, now, deadline, usual)
        if body is not None:
            call.body = [body] if body else []
            call.body_size = len(body)
            call.expect = fields.expect and not body and not self._http10
        if upgrade:
            call.upgrade = True
        self._call = call
        self.expires = deadline
        if deadline < self.armed:
            gateway.wheel.arm(self)
        if guard is None:
            gateway.activator.admit(call, revision)
        else:
            guard(call, revision)

    def _on_partial_head(self, data: bytes, end: int) -> None:
        """No whole head within the limit, or empty lines before it (RFC 9112, 2.2)."""
        settings = self.gateway.settings
        start = 0
        while data.startswith(b"\r\n", start):
            start += 2
        if start:
            if start > 8:
                raise BadHead("empty lines in place of a request")
            if len(data) > start:
                self._on_head(data[start:])
            return
        if end < 0 and not self._buffer and data:
            self.wait_until(min(self.expires, self.gateway.loop.time() + settings.header_timeout))
        check_incomplete(data if end < 0 else data[: end + 4], settings.max_head)
        if end >= 0:
            raise BadHead("malformed request line")
        self._buffer = data

    def _begin_body(self, fields: RequestFields, data: bytes, at: int, *, limited: bool) -> bytes:
        """What of the body is in `data`; sets up for what follows."""
        self._body.begin(fields, self.gateway.settings.max_body if limited else NEVER)
        self._state = _BODY
        return self._take_body(data, at) if at < len(data) else b""

    def _take_body(self, data: bytes, at: int) -> bytes:
        """The part of `data` from `at` that is of the body; the rest was sent ahead. Raises BadHead."""
        end = self._body.feed(data, at)
        if end < 0:
            return data[at:] if at else data
        self._state = _AHEAD
        if end < len(data):
            self._buffer = data[end:]
        return data[at:end]

    def _on_body(self, data: bytes) -> None:
        discard = self._state == _DISCARD
        part = self._take_body(data, 0)
        if discard:
            if self._state == _AHEAD:
                self.gateway.loop.call_soon(self._next)  # not at once: the stack must not grow with what is sent ahead
            elif self._body.size > self.gateway.settings.replay:
                self._linger()
            return
        call = self._call
        if call is None:
            return
        call.body_size += len(part)
        connection = call.connection
        if connection is not None:
            connection.send_body(call, part)
        elif call.body is not None:
            call.body.append(part)
            if call.body_size > self.gateway.settings.replay:
                self.pause_reading()

    def _on_bad_body(self, error: BadHead) -> None:
        """The end of the body can't be known any more, so neither can that of the request."""
        self._close = True
        if self._call is not None:
            self.gateway.activator.reject(self._call, error.failure, error.message)
        else:
            self._linger()

    def call_jobs(self, call: Call, fields: RequestFields, body: bytes | None) -> None:
        """`call` is what this connection waits for now; who made it sends it."""
        if body is not None:
            call.body = [body] if body else []
            call.body_size = len(body)
            call.expect = fields.expect and not body and not self._http10
        self._call = call
        self.wait_until(call.deadline)

    # A reply goes out

    @property
    def takes_chunks(self) -> bool:
        return not self._http10

    @property
    def request_complete(self) -> bool:
        """Whether all of the request has come in (and was passed on, where its call has a connection)."""
        return self._state != _BODY

    def reply_tail(self, call: Call) -> bytes:
        """The fields that the gateway adds to an instance's reply, and the empty line."""
        if not (self._special or call.waited >= 0 or call.extra):
            return b"X-Call-Id: %s\r\n\r\n" % call.id
        waited = b"X-Faaslite-Cold-Start: %d\r\n" % (call.waited * 1000) if call.waited >= 0 else b""
        return b"X-Call-Id: %s\r\n%s%s%s\r\n" % (call.id, call.extra, waited, self._connection_field())

    def send(self, data: bytes | memoryview, lead: bytes = b"") -> None:
        """Write `lead` and `data` at once."""
        if not lead:
            self.transport.write(data)
        elif len(data) < LARGE:
            self.transport.write(b"".join((lead, data)))
        else:
            self.transport.writelines((lead, data))

    def close_after(self) -> None:
        """The end of this reply can only be said by closing."""
        self._close = self._special = True

    def on_sent(self, call: Call) -> None:
        """What had come of the request is on its way to an instance, which takes the rest now."""
        if call.expect:
            call.expect = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.resume_reading()

    def on_reply_end(self, now: float) -> None:
        """The reply is written whole. `now` is of the monotonic clock."""
        self._call = None
        if self._state == _BODY:
            self._linger()  # the instance didn't want the rest of the request
        elif self._close:
            self._finish()
        else:
            self._state = _HEAD
            self.expires = expires = now + self.gateway.settings.idle_timeout
            if expires < self.armed:
                self.gateway.wheel.arm(self)
            if self._buffer or self._paused:
                self.gateway.loop.call_soon(self._next)  # not at once: the stack must not grow with what is sent ahead

    def fail(self, call: Call, failure: Failure, message: str) -> None:
        """Answer `call` with an error of the gateway's own."""
        self._call = None
        self.answer(failure, message, call.id, call.extra)

    def begin_tunnel(self, head: bytes, call: Call) -> None:
        """The instance has switched protocols: from here on bytes are passed through, both ways."""
        self.transport.write(head + b"X-Call-Id: %s\r\n\r\n" % call.id)
        self._close = True
        self._state = _TUNNEL
        self.wait_until(self.gateway.loop.time() + self.gateway.settings.tunnel_timeout)
        ahead, self._buffer = self._buffer, b""
        if ahead:
            self._on_tunnel(ahead)

    def _on_tunnel(self, data: bytes) -> None:
        self.expires = self.gateway.loop.time() + self.gateway.settings.tunnel_timeout
        call = self._call
        if call is not None and call.connection is not None:
            call.body_size += len(data)
            call.connection.transport.write(data)

    def answer(self, failure: Failure, message: str, call_id: bytes, extra: bytes = b"") -> None:
        call_id = call_id or b"%032x" % self.gateway.random.getrandbits(128)
        if self._state == _BODY and (self._fields.expect or self._body.left > self.gateway.settings.replay):
            self._close = True  # the body may never come, or isn't worth skipping
        self.transport.write(
            errors.render(
                failure, message, call_id, connection=extra + self._connection_field(), body=not self._no_body
            )
        )
        self._after_answer()

    def answer_empty(self, fields: bytes) -> None:
        self.transport.write(b"HTTP/1.1 204 No Content\r\n%s%s\r\n" % (fields, self._connection_field()))
        self._after_answer()

    def answer_text(self, status: bytes, text: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\n%s\r\n%s"
            % (status, len(text), self._connection_field(), b"" if self._no_body else text)
        )
        self._after_answer()

    def _after_answer(self) -> None:
        if self._state == _BODY and not self._close:
            self._state = _DISCARD
            self.wait_until(self.gateway.loop.time() + self.gateway.settings.header_timeout)
            self.resume_reading()
        else:
            self.on_reply_end(monotonic())

    def _refuse(self, failure: Failure, message: str) -> None:
        """What follows can't be told apart any more: answer, and close."""
        self._close = True
        self._state = _BODY
        self.answer(failure, message, b"")

    def _connection_field(self) -> bytes:
        if self.gateway.draining:
            self._close = True
        if self._close:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self._http10 else b""

    # Between requests, and ends

    def _next(self) -> None:
        """Begin with what was sent ahead."""
        if self._call is not None or self._state not in (_HEAD, _AHEAD) or self._write_paused:
            return
        if self._state == _AHEAD:  # the end of a body that nobody wanted
            self._state = _HEAD
            self.wait_until(self.gateway.loop.time() + self.gateway.settings.idle_timeout)
        self.resume_reading()
        data, self._buffer = self._buffer, b""
        if data:
            self.data_received(data)

    def pause_reading(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def wait_until(self, expires: float) -> None:
        """Call `on_timer` soon after `expires`."""
        self.expires = expires
        if expires < self.armed:
            self.gateway.wheel.arm(self)

    def on_timer(self, now: float) -> None:
        self.expires = NEVER
        call = self._call
        if call is not None:
            if self._state == _BODY and not call.reply_begun:
                self._close = True
            self.gateway.activator.expire(call)
        elif self._state == _HEAD and self._buffer:
            self._refuse(errors.REQUEST_TIMEOUT, "the request's head didn't come in time")
        elif self._state == _LINGER:
            self.abort()
        else:
            self._finish()

    def drain(self) -> None:
        """Close as soon as the call that is on its way is answered, or none has come for a moment."""
        self._special = True
        settings = self.gateway.settings
        if self._call is not None:
            self._call.usual = False
        elif self._state == _HEAD:
            self.wait_until(self.gateway.loop.time() + min(settings.drain_idle, settings.drain_grace / 2))
        elif self._state == _DISCARD:
            self._finish()

    def _linger(self) -> None:
        """Send what is written and end our side, but read on for a moment: a reset could overtake the reply (RFC 9112, 9.6)."""
        self._state = _LINGER
        self._buffer = b""
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.wait_until(self.gateway.loop.time() + self.gateway.settings.linger_timeout)

    def _finish(self) -> None:
        """Close once all that was written is sent. A client that reads nothing of it doesn't hold the connection for good."""
        self._state = _LINGER
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.wait_until(self.gateway.loop.time() + self.gateway.settings.idle_timeout)

    def abort(self) -> None:
        """Break it: the client must not take what it has for a whole reply."""
        self._call = None
        self._state = _LINGER
        self.transport.abort()
