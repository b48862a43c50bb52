"""HTTP/1.1 to the gateway, for many short calls at once: requests are one write each, connections are kept and used again.

It speaks to one host that we know, so it does without redirects, cookies, compression and the rest of a client for the whole Web, and
takes a fifth of its time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

__all__ = ["Broken", "Reply", "Sender", "Unreachable"]

KEPT = 8.0
"""Seconds that an idle connection is used again; less than the gateway keeps it, so that it isn't closed under a request."""
CONNECT = 5.0
MOST_IDLE = 512


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


class Sender:
    """To `url`, `http://HOST:PORT`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._host = parts.netloc
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    async def send(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes, limit: int, timeout: float
    ) -> Reply:
        """The whole reply, `limit` bytes of its body kept. Raises `Unreachable`, `Broken`."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        length = f"Content-Length: {len(body)}\r\n" if body or method not in ("GET", "HEAD", "DELETE") else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{lines}{length}\r\n".encode("latin-1")
        connection = self._reusable() or await self._connect()
        try:
            async with asyncio.timeout(timeout):
                reply = await connection.exchange(method, head + body, limit)
        except TimeoutError:
            connection.abort()
            raise Broken("no reply came in time") from None
        except BaseException:
            connection.abort()
            raise
        if connection.reusable and len(self._idle) < MOST_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        return reply

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
        self.idle_since = 0.0

    @property
    def gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    async def exchange(self, method: str, request: bytes, limit: int) -> Reply:
        if self.transport is None or self.transport.is_closing():
            raise Broken("the connection was closed")
        self._method = method
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._left = limit
        self._truncated = False
        self._started = False
        self.reusable = False
        self._reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await self._reply
        finally:
            self._reply = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

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
