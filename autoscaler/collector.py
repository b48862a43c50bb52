"""The socket on which gateways report: lines of `faaslite.api.wire` in, notices out. Knows nothing of scaling.

A message is handed on in the loop iteration in which its bytes arrive. A line that can't be read is counted and skipped;
a line without end closes its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import msgspec

from faaslite.api.wire import Hello, Notice, Poke, Report, decode, encode

__all__ = ["Collector", "Sink"]

log = logging.getLogger(__name__)

LONGEST_LINE = 4 << 20
"""Bytes. A report of 20,000 revisions is half of it."""


class Sink(Protocol):
    """Who gets the messages. `source` is unique per connection; none of these may block."""

    def poked(self, source: str, message: Poke) -> None: ...

    def reported(self, source: str, message: Report) -> None: ...

    def disconnected(self, source: str) -> None: ...


class _Connection(asyncio.Protocol):
    def __init__(self, collector: Collector, source: str) -> None:
        self._collector = collector
        self._rest = b""
        self.source = source
        self.gateway = ""
        self.transport: asyncio.WriteTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's doesn't derive from asyncio's
        self._collector.connected(self)

    def data_received(self, data: bytes) -> None:
        if not self.gateway and (self._rest + data).startswith(b"GET "):
            self._rest = b""
            self._collector.asked(self, data)
            return
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        for line in lines:
            if line:
                self._collector.received(self, line)
        if len(self._rest) > LONGEST_LINE:
            log.warning("gateway %s sent a line of over %d bytes, closing its connection", self.gateway, LONGEST_LINE)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._collector.lost(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        self._rest = b""
        if self.transport is not None:
            self.transport.abort()


class Collector:
    """Serves the Unix socket at `path` and hands messages to `sink`. A connection that begins with `GET /metrics` gets what `render` says."""

    def __init__(self, path: Path, sink: Sink, render: Callable[[], bytes] | None = None) -> None:
        self._path = path
        self._render = render
        self._sink = sink
        self._server: asyncio.Server | None = None
        self._connections: dict[str, _Connection] = {}
        self._count = 0
        self.garbage = 0
        """Lines that could not be read, since the start."""

    async def start(self) -> None:
        """Raises OSError where the socket can't be bound; a socket file that a dead process left is replaced."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, str(self._path))
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        if self._server is None:
            return
        self._server.close()
        ends = [each.closed for each in self._connections.values()]
        for connection in list(self._connections.values()):
            connection.abort()
        if ends:
            await asyncio.wait(ends)
        await self._server.wait_closed()
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def notify(self, source: str, notice: Notice) -> None:
        """Send to one gateway; nothing happens where it is gone."""
        connection = self._connections.get(source)
        if connection is not None and connection.transport is not None:
            connection.transport.write(encode(notice))

    def _accept(self) -> _Connection:
        self._count += 1
        return _Connection(self, f"connection-{self._count}")

    def connected(self, connection: _Connection) -> None:
        self._connections[connection.source] = connection

    def lost(self, connection: _Connection) -> None:
        if self._connections.pop(connection.source, None) is not None:
            self._sink.disconnected(connection.source)

    def asked(self, connection: _Connection, request: bytes) -> None:
        """One HTTP request, which ends its connection."""
        assert connection.transport is not None
        if request.split(b" ", 2)[1:2] == [b"/metrics"] and self._render is not None:
            body, status = self._render(), b"200 OK"
        else:
            body, status = b"there is /metrics\n", b"404 Not Found"
        head = b"HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n" % (
            status,
            len(body),
        )
        connection.transport.write(head + body)
        connection.transport.close()

    def received(self, connection: _Connection, line: bytes) -> None:
        try:
            message = decode(line)
        except msgspec.DecodeError as error:
            self.garbage += 1
            log.warning("gateway %s sent an unreadable line: %s", connection.gateway or connection.source, error)
            return
        match message:
            case Poke():
                self._sink.poked(connection.source, message)
            case Report():
                self._sink.reported(connection.source, message)
            case Hello():
                self._greet(connection, message.gateway)
            case Notice():
                self.garbage += 1

    def _greet(self, connection: _Connection, gateway: str) -> None:
        """A gateway that connects again replaces its old connection, whose numbers would count twice."""
        for other in list(self._connections.values()):
            if other is not connection and other.gateway == gateway:
                self.lost(other)
                other.abort()
        connection.gateway = gateway
