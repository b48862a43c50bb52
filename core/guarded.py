"""uvicorn's HTTP protocol with bounds on what one client can do to the others.

- A request's head has a size, a number of headers and a time to come in (414, 431, 408).
- Pipelined requests are parsed a little at a time: what a client has sent ahead waits unparsed, then in its socket.
- Requests begin in turn between clients where there are many (`core.starts`).
- A connection whose request was refused for being one too many is not read for a second: that is what the reply asks for.
- Connections are counted in all and for each address.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from core.asgi import GONE, HOLD
from core.starts import Starts

__all__ = ["CONNECTIONS", "CONNECTIONS_PER_ADDRESS", "HEAD_SECONDS", "Guarded", "Guards"]

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers; tokens are the longest of them."""
MAX_URL = 16 * 1024
MAX_HEADERS = 200
HEAD_SECONDS = 20.0
"""Until a connection's first request, and for each head."""
CONNECTIONS = 8192
CONNECTIONS_PER_ADDRESS = 4096
_SLICE = 8 * 1024
_REASONS = {400: "Bad Request", 408: "Request Timeout", 414: "URI Too Long", 431: "Request Header Fields Too Large"}


class Guards:
    """What the connections of one server share. `client_of` tells whose a request (ASGI scope) is; without it, its address's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client_of: Callable[[Any], Hashable] | None = None) -> None:
        self.starts = Starts(loop)
        self.client_of = client_of or (lambda scope: (scope.get("client") or ("",))[0])
        self.connections: Counter[str] = Counter()
        self.total = 0
        self.open: set[Guarded] = set()

    def look(self, now: float) -> None:
        """End connections whose head doesn't come. Called now and then by the server."""
        for each in tuple(self.open):
            if each.head_since is not None and now - each.head_since > HEAD_SECONDS:
                each.late()


class _Flow(FlowControl):
    """Nothing more is read while something that was read waits to be parsed."""

    def __init__(self, transport: Any, unfed: deque[memoryview]) -> None:
        super().__init__(transport)
        self._unfed = unfed

    def resume_reading(self) -> None:
        if not self._unfed:
            super().resume_reading()


class Guarded(HttpToolsProtocol):
    """`head_since` is when the head that hasn't come yet was begun, None outside of a head."""

    def __init__(self, *arguments: Any, guards: Guards, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guards = guards
        self._unfed: deque[memoryview] = deque()
        self._feeding = False
        self._head = 0
        self._url = 0
        self._refused = 0
        self._running: RequestResponseCycle | None = None
        self._counted = False
        self.head_since: float | None = None

    # Connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self._unfed)
        guards, self._address = self._guards, self.client[0] if self.client else ""
        if guards.total >= CONNECTIONS or guards.connections[self._address] >= CONNECTIONS_PER_ADDRESS:
            transport.abort()
            return
        self._counted = True
        guards.total += 1
        guards.connections[self._address] += 1
        guards.open.add(self)
        self.head_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.released()
        self.head_since = None
        self._unfed.clear()
        super().connection_lost(exc)
        if (running := self._running) is not None:
            running.disconnected = True  # uvicorn tells only the newest request of the connection
            running.message_event.set()
            scope: Any = running.scope
            if (gone := scope.get(GONE)) is not None:
                gone()

    def released(self) -> None:
        """The connection has ended, or is somebody else's now."""
        guards = self._guards
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
        self._unset_keepalive_if_required()
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
        self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._url = self._refused = 0
        self.head_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += len(url)
        if self._url > MAX_URL:
            self._refused = 414
            raise ValueError("the URL is too long")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            self._refused = 431
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.head_since = None
        super().on_headers_complete()

    def _refuse(self, code: int) -> None:
        """Answer in place of the application and close; behind a reply that is on its way, only close."""
        self.head_since = None
        self._unfed.clear()
        if self.cycle is None or self.cycle.response_complete:
            text = _REASONS[code].encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (code, text, len(text), text)
            )
        self.transport.close()

    # Requests

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        guards = self._guards
        guards.starts.begin(
            functools.partial(guards.client_of, cycle.scope), functools.partial(self._start, cycle, app)
        )

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        scope: Any = self._running.scope if self._running is not None else {}
        self._running = None
        if (seconds := scope.get(HOLD)) and not self.transport.is_closing():
            self.flow.pause_reading()
            # Not all of a crowd at the same moment: they would be read in one turn of the loop.
            self.loop.call_later(seconds * random.uniform(1, 2), self.go_on)  # noqa: S311
        else:
            self.go_on()

    def go_on(self) -> None:
        """Take up the next request."""
        if self.transport.is_closing():
            return
        super().on_response_complete()
        if self._unfed and not self._feeding:
            self.loop.call_soon(self._feed_more)

    def _feed_more(self) -> None:
        if self.parser is not None and not self._feeding:
            self._unset_keepalive_if_required()
            self._feed()
            if not self.pipeline:
                self.flow.resume_reading()
