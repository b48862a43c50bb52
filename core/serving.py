"""An ASGI application on a listening socket, with TLS or without."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable, Hashable
from typing import Any, cast

from core.exchange import Exchange
from core.guarded import Guarded, Guards
from core.tls import Secured

__all__ = [
    "CHUNKS",
    "UPGRADE",
    "WHOLE",
    "AsgiServer",
    "Chunks",
    "Take",
    "Whole",
    "chunks_of",
    "framed",
    "take_over",
    "whole_of",
]

DRAIN = 3.0
"""Seconds that requests are given to end in `stop`."""
_BACKLOG = 2048
_LOOK = 5.0
"""Seconds between looks at connections whose head doesn't come."""
UPGRADE = "faaslite.upgrade"
"""The ASGI extension of requests with an `Upgrade` header: its `take` gives the connection away, to be read and written as it is.

Who takes it writes the reply (101, or any other) by himself, closes the writer, and returns without having sent anything.
"""
CHUNKS = "faaslite.chunks"
"""The ASGI extension of all requests: its `begin` gives the reply's `Chunks`."""
_HELD = 1 << 20
_STREAM_LIMIT = 64 << 10
WHOLE = "faaslite.whole"
"""The ASGI extension of all requests: its `begin` gives the reply's `Whole`."""

Take = Callable[[], tuple[asyncio.StreamReader, asyncio.StreamWriter]]
Whole = Callable[[int, bytes, bytes], bool]
"""Sends a whole reply in one go: `core.exchange.Exchange.whole`."""


def take_over(scope: Any) -> Take | None:
    """How to take the connection of a request that wants another protocol; None where it doesn't, or this server can't."""
    found = (scope.get("extensions") or {}).get(UPGRADE)
    return cast(Take, found["take"]) if found else None


class Chunks:
    """The body of a chunked reply, written past ASGI: one call for bytes that many replies may share. What is sent by ASGI before and after keeps its place."""

    __slots__ = ("_exchange", "write")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        transport = exchange.transport
        self.write: Callable[[bytes], None] = transport.send if isinstance(transport, Secured) else transport.write
        """With what is `framed`."""

    def ready(self) -> bool:
        """Whether `write` may be called: the reply has begun and hasn't ended, and its client takes what it is sent."""
        exchange = self._exchange
        return bool(exchange.chunked and not (exchange.disconnected or exchange.complete or exchange.flow.write_paused))


def framed(data: bytes) -> bytes:
    """As a chunk of HTTP/1.1; `data` isn't empty, as that would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunks_of(scope: Any) -> Chunks | None:
    """What to write a request's chunks with; None where the server isn't this one."""
    found = (scope.get("extensions") or {}).get(CHUNKS)
    return cast(Chunks, found["begin"]()) if found else None


def whole_of(scope: Any) -> Whole | None:
    """What to send a request's whole reply with; None where the server isn't this one."""
    found = (scope.get("extensions") or {}).get(WHOLE)
    return cast(Whole, found["begin"]()) if found else None


class AsgiServer:
    """A component that serves `app` on `listener` (TCP or Unix, bound; `stop` closes it), with TLS where a context is given. `client_of`
    tells whose a request (ASGI scope) is, for fair turns; without it, its address's."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        context: ssl.SSLContext | None = None,
        *,
        drain: float = DRAIN,
        client_of: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self._app = app
        self._listener = listener
        self._context = context
        self._drain = drain
        self._server: asyncio.Server | None = None
        self._secured: set[Secured] = set()
        self._client_of = client_of
        self._guards: Guards | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Returns once connections are accepted."""
        loop = asyncio.get_running_loop()
        guards = self._guards = Guards(loop, self._client_of)
        make: Callable[[], asyncio.Protocol] = functools.partial(_Protocol, self._app, guards)
        self._listener.setblocking(False)
        if self._listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=self._listener, backlog=_BACKLOG)
        else:
            if (context := self._context) is not None:
                make = functools.partial(Secured, loop, context, make, self._secured)
            self._server = await loop.create_server(make, sock=self._listener, backlog=_BACKLOG)
        self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._guards is not None:
            self._guards.look(loop.time())
        self._timer = loop.call_later(_LOOK, self._look)

    async def stop(self) -> None:
        """Takes no more requests, lets those that run end for some seconds, then cancels them."""
        if self._server is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._server.close()
        guards = self._guards
        assert guards is not None
        connections = set(guards.open)
        for connection in connections:
            connection.shutdown()
        if tasks := set(guards.tasks):
            await asyncio.wait(tasks, timeout=self._drain)
        for connection in connections | guards.open:
            connection.transport.abort()
        await asyncio.sleep(0)  # the protocols learn that nobody listens: an end without a reply is then no fault
        if tasks := {task for task in guards.tasks if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for secured in tuple(self._secured):
            secured.abort()
        await self._server.wait_closed()
        self._server = None


class _Protocol(Guarded):
    """A connection that requests for another protocol may take.

    A client certificate is in the scope's `tls` extension (https://asgi.readthedocs.io/en/latest/specs/tls.html): `client_cert_chain` with the
    certificate alone.
    """

    _held: bytearray | None = None
    """What came after a request for another protocol, until it is decided; then it is the taker's, or the next request."""

    def connection_made(self, transport: Any) -> None:
        self.extensions = {CHUNKS: {"begin": self._chunks}, WHOLE: {"begin": self._whole}}
        super().connection_made(transport)
        secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if secured is not None and (shown := secured.getpeercert(binary_form=True)):
            self.extensions["tls"] = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(shown)]}

    def asked_to_upgrade(self, scope: dict[str, Any]) -> None:
        if not any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        ):
            scope["extensions"] = {**self.extensions, UPGRADE: {"take": self._take}}

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
            if len(self._held) > _HELD:
                self.transport.abort()
            return
        super().data_received(data)

    def on_response_complete(self) -> None:
        if isinstance(transport := self.transport, Secured):
            transport.flush()  # now, not in the next turn: nothing more comes
        super().on_response_complete()

    def on_upgrade(self, rest: bytes) -> None:
        self._held = bytearray(rest)

    def go_on(self) -> None:
        super().go_on()
        held, self._held = self._held, None
        if held:
            self.data_received(bytes(held))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.extensions = {}  # it refers back to the protocol

    def _chunks(self) -> Chunks:
        assert self._running is not None
        return Chunks(self._running)

    def _whole(self) -> Whole:
        assert self._running is not None
        return self._running.whole

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        transport = self.transport
        if transport.is_closing():
            raise ConnectionResetError("the client closed the connection")
        self.idle_since = None
        self.released()
        assert self._running is not None
        self._running.disconnected = True  # nothing is to be sent for this request
        reader = asyncio.StreamReader(_STREAM_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._held:
            reader.feed_data(bytes(self._held))
        self.flow.resume_reading()
        return reader, asyncio.StreamWriter(transport, protocol, reader, self.loop)
