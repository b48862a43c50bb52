"""HTTP/1.1 on one connection: requests in, in order; replies out, in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

import httptools

from .reply import Reply, failure, head

__all__ = ["Application", "Connection", "Exchange"]

MAX_HEADER_BYTES = 64 << 10
MAX_QUEUED = 16
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Application(Protocol):
    """What connections hand their requests to."""

    max_body: int
    draining: bool
    websockets: bool
    """Whether handshakes of WebSockets are dispatched as such."""

    def admit(self, exchange: Exchange) -> bool:
        """Headers are here: take the call, or answer at once and return False (the body is then thrown away)."""

    def dispatch(self, exchange: Exchange) -> None:
        """The whole request is here."""

    def release(self, exchange: Exchange) -> None:
        """An admitted exchange ended: answered, or its connection is gone."""


class Exchange:
    """One request and its reply. Header names are in lower case."""

    __slots__ = (
        "_chunked", "_started", "admitted", "body", "call", "call_id", "complete", "connection", "deadline", "finished", "headers",
        "keep_alive", "method", "on_disconnect", "parts", "size", "target", "timer", "too_large", "version", "websocket",
    )  # fmt: skip

    def __init__(self, connection: Connection, method: str, target: bytes, headers: list[tuple[bytes, bytes]], version: str, keep_alive: bool) -> None:  # fmt: skip
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.parts: list[bytes] = []
        self.size = 0
        self.body = b""
        self.call_id = ""
        self.deadline: float | None = None
        self.call: Any = None
        self.timer: Any = None
        self.websocket = False
        self.on_disconnect: Any = None
        self.admitted = self.complete = self.finished = self.too_large = False
        self._started = self._chunked = False

    @property
    def started(self) -> bool:
        """Whether the status line is out."""
        return self._started

    def send(self, reply: Reply) -> None:
        """The whole reply; nothing where one was sent already."""
        if self.finished or self._started:
            return
        bare = reply.status in (204, 304)
        close = self._closes()
        data = head(reply.status, reply.headers, -2 if bare else len(reply.body), close)
        if self.method != "HEAD" and not bare:
            data += reply.body
        self._started = True
        self.connection.write(data)
        self.finish()

    def start(self, status: int, headers: list[tuple[bytes, bytes]], length: int | None = None) -> None:
        """Begin a streamed reply; `length` where it is known."""
        bare = status in (204, 304)
        self._chunked = length is None and not bare and self.version != "1.0"
        if length is None and not bare and not self._chunked:
            self.keep_alive = False  # HTTP/1.0 has no other end than the connection's
        framing = -2 if bare or (length is None and not self._chunked) else -1 if length is None else length
        if self.finished:
            return
        self._started = True
        self.connection.write(head(status, headers, framing, self._closes()))

    def switch(self, answer: bytes) -> None:
        """The connection changes its protocol: from here on the exchange has no deadline, and ends with the connection."""
        self._started = True
        self.keep_alive = False
        self.deadline = None
        if self.timer is not None:
            self.timer.cancel()
        self.connection.write(answer)

    async def write(self, data: bytes) -> None:
        """A part of a streamed reply; waits while the client doesn't read."""
        if data and not self.finished and self.method != "HEAD":
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            await self.connection.drain()

    def finish(self, broken: bool = False) -> None:
        """The reply is out; `broken` where it could not be ended properly and the client has to see that."""
        if self.finished:
            return
        if self._chunked and not broken and self.method != "HEAD":
            self.connection.write(b"0\r\n\r\n")
        self.finished = True
        self.connection.replied(self, broken)

    def abandon(self) -> None:
        """The client is gone."""
        self.finished = True
        if self.on_disconnect is not None:
            self.on_disconnect()

    def _closes(self) -> bool:
        if self.connection.application.draining:
            self.keep_alive = False
        return not self.keep_alive


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, application: Application, connections: set[Connection]) -> None:
        self.application = application
        self._connections = connections
        self._transport: Any = None
        self._parser: Any = None
        self._queue: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._target = b""
        self._drained: asyncio.Future[None] | None = None
        self._closed = False
        self._moving = False
        self._rest: bytes | None = None
        self._tunnel: Any = None

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if self._rest is not None:
            self._hold(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = b""
            self._hold(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._bad_request(str(error))
        if len(self._queue) > MAX_QUEUED:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that has sent its last request still gets its replies."""
        if self._tunnel is not None:
            return False
        for each in self._queue:
            each.keep_alive = False
        return any(each.complete for each in self._queue)

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._connections.discard(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        while self._queue:
            exchange = self._queue.popleft()
            exchange.abandon()
            if exchange.admitted and not exchange.complete:
                self.application.release(exchange)

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # httptools

    def on_message_begin(self) -> None:
        self._headers, self._target, self._header_bytes = [], b"", 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        method = parser.get_method().decode("latin-1")
        exchange = Exchange(
            self, method, self._target or b"/", self._headers, parser.get_http_version(), parser.should_keep_alive()
        )
        if parser.should_upgrade():
            exchange.keep_alive = False  # nothing that comes after it is read as a request
            exchange.websocket = self.application.websockets and any(
                name == b"upgrade" and value.lower() == b"websocket" for name, value in exchange.headers
            )
        self._reading = exchange
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self._begin(exchange)

    def on_body(self, data: bytes) -> None:
        exchange = self._reading
        if exchange is None or exchange.finished or exchange.too_large:
            return
        exchange.size += len(data)
        if exchange.size > self.application.max_body:
            self._too_large(exchange)
        else:
            exchange.parts.append(data)

    def on_message_complete(self) -> None:
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.complete = True
        exchange.body = exchange.parts[0] if len(exchange.parts) == 1 else b"".join(exchange.parts)
        exchange.parts.clear()
        if self._queue and self._queue[0] is exchange:
            if exchange.finished:
                self._next()
            elif exchange.admitted:
                self.application.dispatch(exchange)

    # Replies

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._transport.write(data)

    async def drain(self) -> None:
        if self._drained is not None and not self._closed:
            await asyncio.shield(self._drained)

    def take(self, tunnel: Any) -> None:
        """From here on what comes is `tunnel`'s, as bytes (`feed`), and so is what came already."""
        self._tunnel = tunnel
        rest, self._rest = self._rest, None
        self.resume()
        if rest:
            tunnel.feed(rest)

    def pause(self) -> None:
        """Read nothing."""
        if not self._closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._closed:
            self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()

    def replied(self, exchange: Exchange, broken: bool) -> None:
        """The reply of the first exchange is written."""
        if self._closed:
            return
        if broken or not exchange.keep_alive:
            self._close()
        elif exchange.complete:
            self._next()

    def close_idle(self) -> None:
        """Close unless a request is under way."""
        if self._tunnel is not None:
            self._tunnel.drain()
        elif not self._queue:
            self._close()

    def _hold(self, data: bytes) -> None:
        """What comes after a request to change the protocol, before that is answered."""
        self._rest = (self._rest or b"") + data
        if len(self._rest) > MAX_HEADER_BYTES:
            self.pause()

    def _begin(self, exchange: Exchange) -> None:
        expects = False
        for name, value in exchange.headers:
            if name == b"expect" and value.lower() == b"100-continue":
                expects = True
            elif name == b"content-length" and value.isdigit() and int(value) > self.application.max_body:
                exchange.too_large = True
        exchange.admitted = self.application.admit(exchange)
        if not exchange.admitted:
            return
        if exchange.too_large:
            self._too_large(exchange)
        elif expects and not exchange.complete:
            self.write(_CONTINUE)

    def _next(self) -> None:
        """Go on with the requests that came while this one was answered (a loop, however many those are)."""
        if self._moving:
            return
        self._moving = True
        try:
            while self._queue and self._queue[0].finished and self._queue[0].complete and not self._closed:
                self._queue.popleft()
                if self._queue:
                    following = self._queue[0]
                    self._begin(following)
                    if following.complete and following.admitted and not following.finished:
                        self.application.dispatch(following)
        finally:
            self._moving = False
        if not self._closed and len(self._queue) <= MAX_QUEUED:
            self._transport.resume_reading()

    def _too_large(self, exchange: Exchange) -> None:
        exchange.too_large = True
        exchange.keep_alive = False
        exchange.parts.clear()
        if self._queue and self._queue[0] is exchange:
            message = f"the body is over {self.application.max_body} bytes"
            exchange.send(failure(413, "PayloadTooLarge", message, exchange.call_id))
            if exchange.admitted:
                self.application.release(exchange)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the request's line and headers are over 64 KiB")

    def _bad_request(self, message: str) -> None:
        if any(each.complete for each in self._queue):
            for each in self._queue:  # the earlier requests were fine: answer them, then close
                each.keep_alive = each.keep_alive and each.complete and each is not self._queue[-1]
            return
        reply = failure(400, "BadRequest", message, "")
        self.write(head(400, reply.headers, len(reply.body), True) + reply.body)
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.close()
