"""HTTP/1.1 to the gateway, for many short calls at once: requests are one write each, connections are kept and used again.

It speaks to one host that we know, so it does without redirects, cookies, compression and the rest of a client for the whole Web, and
takes a fifth of its time.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import shuffle
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

__all__ = ["Broken", "Gate", "Reply", "Sender", "Unreachable"]

KEPT = 8.0
"""Seconds that an idle connection is used again; less than the gateway keeps it, so that it isn't closed under a request."""
CONNECT = 5.0
SOCKETS = "gateway-*.sock"
MOST_IDLE = 2048


class Unreachable(Exception):
    """No connection could be made: nobody saw the request."""


class Broken(Exception):
    """The connection ended before the reply did."""


class Reply(NamedTuple):
    """`headers` by their names in lower case; `body` up to the limit, `truncated` where there was more."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool


def _nothing() -> None:
    """Nobody wants to know."""


class Gate:
    """Opens once, at the time `at` (seconds since the epoch): what was handed to it is sent then, in one go."""

    def __init__(self, at: float) -> None:
        self.at = at
        self._event = asyncio.Event()
        self._ready: list[Callable[[], None]] = []

    def open(self) -> None:
        self._event.set()
        for action in self._ready:
            action()
        self._ready.clear()

    async def opened(self) -> None:
        await self._event.wait()

    def add(self, action: Callable[[], None]) -> None:
        """Do it when the gate opens, or now where it is open."""
        if self._event.is_set():
            action()
        else:
            self._ready.append(action)


class Sender:
    """To `url`, `http://HOST:PORT`; by the Unix socket of one of the gateway's workers where there are any in the folder `sockets`: what comes
    that way was allowed when it was accepted, and needs no TLS."""

    def __init__(self, url: str, sockets: Path | None = None) -> None:
        parts = urlsplit(url)
        self._sockets = sockets
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._host = parts.netloc
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    def request(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """The bytes of a request."""
        return f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + self.fields(method, headers, body) + b"\r\n" + body

    def fields(self, method: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """The lines of a request's header, each with its end."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        length = f"Content-Length: {len(body)}\r\n" if body or method not in ("GET", "HEAD", "DELETE") else ""
        return f"Host: {self._host}\r\n{lines}{length}".encode("latin-1")

    async def send(
        self,
        method: str,
        request: bytes,
        limit: int,
        timeout: float,
        gate: Gate | None = None,
        sent: Callable[[], None] = _nothing,
    ) -> Reply:
        """The whole reply, `limit` bytes of its body kept. Raises `Unreachable`, `Broken`.

        With a `gate` all is made ready now, and sent when it opens; `sent` is called at that moment.
        """
        try:
            connection = self._reusable() or await self._connect()
        except Unreachable:
            if gate is None:
                raise
            await gate.opened()
            return await self.send(method, request, limit, timeout)
        loop = asyncio.get_running_loop()
        patience = loop.call_later(timeout, connection.give_up, "no reply came in time")
        try:
            reply = connection.prepare(method, limit)
            if gate is not None:
                gate.add(functools.partial(connection.send, request, sent))
            elif connection.gone:
                raise Broken("the connection was closed")
            else:
                connection.write(request)
            found = await reply
        except Broken:
            connection.abort()
            if gate is None or connection.used:
                raise
        except BaseException:
            connection.abort()
            raise
        else:
            if connection.reusable and len(self._idle) < MOST_IDLE:
                connection.idle_since = loop.time()
                self._idle.append(connection)
            else:
                connection.abort()
            return found
        finally:
            connection.done()
            patience.cancel()
        # The connection was lost before the gate opened: nobody has seen the request.
        await gate.opened()
        return await self.send(method, request, limit, timeout, None)

    async def close(self) -> None:
        ends = [each.closed for each in self._open]
        for each in list(self._open):
            each.abort()
        if ends:
            await asyncio.wait(ends)
        self._idle.clear()

    def _reusable(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle and (self._idle[0].gone or now - self._idle[0].idle_since > KEPT):
            self._idle.popleft().abort()
        while self._idle:
            found = self._idle.pop()
            if not found.gone:
                return found
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        paths = sorted(self._sockets.glob(SOCKETS)) if self._sockets is not None else []
        shuffle(paths)
        for path in paths:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT):
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self._open), str(path))
                return connection
        try:
            async with asyncio.timeout(CONNECT):
                _, connection = await loop.create_connection(lambda: _Connection(self._open), *self._address)
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{self._host}: {error or 'no answer'}") from error
        return connection


class _Connection(asyncio.Protocol):
    """One exchange at a time."""

    def __init__(self, everyone: set[_Connection]) -> None:
        self._open = everyone
        self._reply: asyncio.Future[Reply] | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.reusable = False
        self.used = False
        """Whether the request that it is ready for was written."""
        self.idle_since = 0.0

    @property
    def gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def prepare(self, method: str, limit: int) -> asyncio.Future[Reply]:
        """Be ready for the reply to a request, which `write` sends."""
        self._method = method
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._left = limit
        self._truncated = self._started = self.reusable = self.used = False
        self._reply = asyncio.get_running_loop().create_future()
        return self._reply

    def write(self, request: bytes) -> None:
        assert self.transport is not None
        self.used = True
        self.transport.write(request)

    def send(self, request: bytes, sent: Callable[[], None]) -> None:
        """As `write`, where it isn't gone."""
        if not self.gone:
            self.write(request)
            sent()

    def done(self) -> None:
        self._reply = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def give_up(self, why: str) -> None:
        self._fail(why)
        self.abort()

    def _fail(self, why: str) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(Broken(why))

    # The transport's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(f"the reply isn't HTTP: {error}")
            self.abort()

    def eof_received(self) -> bool:
        if (
            self._reply is not None
            and self._started
            and "content-length" not in self._headers
            and "transfer-encoding" not in self._headers
        ):
            self.on_message_complete()  # a body that ends with the connection
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        self._fail(f"the connection broke{f': {error}' if error else ''}")
        if not self.closed.done():
            self.closed.set_result(None)

    # The parser's

    def on_message_begin(self) -> None:
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._started = self._parser.get_status_code() >= 200
        if self._method == "HEAD" and self._started:
            self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        if len(body) > self._left:
            self._truncated = True
            body = body[: self._left]
        self._left -= len(body)
        self._body += body

    def on_message_complete(self) -> None:
        if self._reply is None or self._reply.done() or not self._started:
            return
        self.reusable = self._parser.should_keep_alive() and not self.gone and self._method != "HEAD"
        self._reply.set_result(Reply(self._parser.get_status_code(), self._headers, bytes(self._body), self._truncated))
