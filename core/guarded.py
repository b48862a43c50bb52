"""HTTP/1.1 of a server's connections, parsed by httptools, with bounds on what one client can do to the others.

- A request's head has a size, a number of headers and a time to come in (414, 431, 408).
- Pipelined requests are parsed a little at a time: what a client has sent ahead waits unparsed, then in its socket.
- Requests begin in turn between clients where there are many (`core.starts`).
- A connection whose request was refused for being one too many is not read for a second: that is what the reply asks for.
- Connections are counted in all and for each address.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any, cast
from urllib.parse import unquote

import httptools

from core.asgi import GONE, HOLD
from core.exchange import Exchange, Flow
from core.starts import Starts

__all__ = ["CONNECTIONS", "CONNECTIONS_PER_ADDRESS", "HEAD_SECONDS", "Guarded", "Guards"]

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers; tokens are the longest of them."""
MAX_URL = 16 * 1024
MAX_HEADERS = 200
HEAD_SECONDS = 20.0
"""Until a connection's first request, and for each head."""
IDLE_SECONDS = 75.0
"""Between a reply and the next request, and until somebody looks."""
CONNECTIONS = 8192
CONNECTIONS_PER_ADDRESS = 4096
_SLICE = 8 * 1024
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_REASONS = {400: "Bad Request", 408: "Request Timeout", 414: "URI Too Long", 431: "Request Header Fields Too Large"}


class Guards:
    """What the connections of one server share. `client_of` tells whose a request (ASGI scope) is; without it, its address's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client_of: Callable[[Any], Hashable] | None = None) -> None:
        self.starts = Starts(loop)
        self.client_of = client_of or (lambda scope: (scope.get("client") or ("",))[0])
        self.loop = loop
        self.connections: Counter[str] = Counter()
        self.total = 0
        self.open: set[Guarded] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        """Requests that run."""

    def look(self, now: float) -> None:
        """End connections whose head doesn't come, or that ask nothing any more. Called now and then by the server."""
        for each in tuple(self.open):
            if each.head_since is not None and now - each.head_since > HEAD_SECONDS:
                each.late()
            elif each.idle_since is not None and now - each.idle_since > IDLE_SECONDS:
                each.transport.close()


class Guarded(asyncio.Protocol):
    """A connection. `head_since` is when the head that hasn't come yet was begun, None outside of a head; `idle_since` when its last reply had ended."""

    def __init__(self, app: Any, guards: Guards) -> None:
        self.app = app
        self.guards = guards
        self.loop = guards.loop
        self.parser: Any = httptools.HttpRequestParser(self)
        # What comes after `Connection: close` is let be, so that the request before it gets its reply.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.transport: asyncio.Transport
        self.flow: Flow
        self.extensions: dict[str, Any] = {}
        """Of each request's scope."""
        self.pipeline: deque[Exchange] = deque()
        self._unfed: deque[memoryview] = deque()
        self._newest: Exchange | None = None
        self._running: Exchange | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._continues = False
        self._feeding = False
        self._head = 0
        self._refused = 0
        self._counted = False
        self.head_since: float | None = None
        self.idle_since: float | None = None

    # Connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = Flow(self.transport, self._unfed)
        self._local = _address(transport.get_extra_info("sockname"))
        self._client = _address(transport.get_extra_info("peername"))
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        guards, self._address = self.guards, self._client[0] if self._client else ""
        if guards.total >= CONNECTIONS or guards.connections[self._address] >= CONNECTIONS_PER_ADDRESS:
            self.transport.abort()
            return
        self._counted = True
        guards.total += 1
        guards.connections[self._address] += 1
        guards.open.add(self)
        self.head_since = self.loop.time()

    def connection_lost(self, error: Exception | None) -> None:
        self.released()
        self.head_since = self.idle_since = None
        self._unfed.clear()
        self.parser = None
        for each in (self._newest, self._running):
            if each is not None:
                each.disconnected = each.disconnected or not each.complete
                each.wake()
        self.flow.resume_writing()
        if (running := self._running) is not None and (gone := running.scope.get(GONE)) is not None:
            gone()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def shutdown(self) -> None:
        """End with the reply that is on its way."""
        if self._newest is None or self._newest.complete:
            self.transport.close()
        else:
            self._newest.keep_alive = False

    def released(self) -> None:
        """The connection has ended, or is somebody else's now."""
        guards = self.guards
        if self._counted:
            self._counted = False
            guards.total -= 1
            guards.connections[self._address] -= 1
            if not guards.connections[self._address]:
                del guards.connections[self._address]
            guards.open.discard(self)

    def late(self) -> None:
        if self._head:
            self._refuse(408)
        else:
            self.transport.close()
        self.head_since = None

    # Bytes in

    def data_received(self, data: bytes) -> None:
        self.idle_since = None
        self._unfed.append(memoryview(data))
        if not self._feeding:
            self._feed()

    def _feed(self) -> None:
        """Give the parser what has come, until requests wait behind the one that runs."""
        self._feeding = True
        try:
            while self._unfed and self.parser is not None and not self.transport.is_closing():
                if self.pipeline:
                    self.flow.pause_reading()
                    return
                data = self._unfed.popleft()
                if len(data) > _SLICE:
                    self._unfed.appendleft(data[_SLICE:])
                    data = data[:_SLICE]
                self._parse(data)
        finally:
            self._feeding = False

    def _parse(self, data: memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = b"".join((data[upgrade.args[0] :], *self._unfed))
            self._unfed.clear()
            self.on_upgrade(rest)
            return
        except httptools.HttpParserError:
            self._refuse(self._refused or 400)
            return
        if self.head_since is not None:
            self._head += len(data)
            if self._head >= MAX_HEAD:
                self._refuse(431)
        elif self._running is None and not self.pipeline:
            self.head_since = self.loop.time()  # blank lines before a head, or the rest of a body that nobody wants

    def on_upgrade(self, rest: bytes) -> None:
        """A request wants another protocol; `rest` is what came behind it and isn't parsed. It is lost unless somebody keeps it."""
        if self._newest is not None:
            self._newest.keep_alive = False

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._continues = False
        self._head = self._refused = 0
        self.head_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_URL:
            self._refused = 414
            raise ValueError("the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        headers, name = self._headers, name.lower()
        if len(headers) >= MAX_HEADERS:
            self._refused = 431
            raise ValueError("too many headers")
        if name == b"expect" and value.lower() == b"100-continue":
            self._continues = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_since = None
        parser, url = self.parser, self._url
        if url.startswith(b"/") and b"#" not in url:
            raw, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw, query = parsed.path, parsed.query or b""
        path, version = raw.decode("ascii"), parser.get_http_version()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._local,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": "",
            "headers": self._headers,
            "state": {},
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw,
            "query_string": query,
            "extensions": self.extensions,
        }
        if parser.should_upgrade():
            self.asked_to_upgrade(scope)
        before = self._newest
        made = self._newest = Exchange(
            self, scope, version != "1.0" and bool(parser.should_keep_alive()), self._continues
        )
        if before is None or before.complete:
            self._begin(made)
        else:
            self.flow.pause_reading()
            self.pipeline.append(made)

    def asked_to_upgrade(self, scope: dict[str, Any]) -> None:
        """A request that wants another protocol is about to begin."""

    def on_body(self, part: bytes) -> None:
        if self._newest is not None and not self._newest.complete:
            self._newest.add(part)

    def on_message_complete(self) -> None:
        if self._newest is not None and not self._newest.complete:
            self._newest.more_body = False
            self._newest.wake()

    def _refuse(self, code: int) -> None:
        """Answer in place of the application and close; behind a reply that is on its way, only close."""
        self.head_since = None
        self._unfed.clear()
        if self._newest is None or self._newest.complete:
            text = _REASONS[code].encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (code, text, len(text), text)
            )
        self.transport.close()

    # Requests

    def _begin(self, exchange: Exchange) -> None:
        self._running = exchange
        self.guards.starts.begin(exchange.client, exchange.start)

    def on_response_complete(self) -> None:
        """The reply of the request that runs has been written."""
        seconds = None if self._running is None else self._running.scope.get(HOLD)
        self._running = None
        if seconds and not self.transport.is_closing():
            self.flow.pause_reading()
            # Not all of a crowd at the same moment: they would be read in one turn of the loop.
            self.loop.call_later(seconds * random.uniform(1, 2), self.go_on)  # noqa: S311
        else:
            self.go_on()

    def go_on(self) -> None:
        """Take up the next request."""
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(self.pipeline.popleft())
        else:
            self.idle_since = self.loop.time()
        if self._unfed and not self._feeding:
            self.loop.call_soon(self._feed_more)

    def _feed_more(self) -> None:
        if self.parser is not None and not self._feeding:
            self.idle_since = None
            self._feed()
            if not self.pipeline:
                self.flow.resume_reading()


def _address(told: Any) -> tuple[str, int | None] | None:
    """As ASGI wants it: host and port, or the path of a Unix socket; None where it has none."""
    if isinstance(told, tuple):
        return str(told[0]), int(told[1])
    return (told, None) if told and isinstance(told, str) else None
