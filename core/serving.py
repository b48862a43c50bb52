"""An ASGI application on a listening socket: uvicorn's HTTP protocol without its `Server`, which installs signal handlers and polls."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Hashable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from core.guarded import Guarded, Guards
from core.tls import Secured

__all__ = ["CHUNKS", "UPGRADE", "AsgiServer", "Chunks", "Take", "chunks_of", "framed", "take_over"]

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

Take = Callable[[], tuple[asyncio.StreamReader, asyncio.StreamWriter]]


def take_over(scope: Any) -> Take | None:
    """How to take the connection of a request that wants another protocol; None where it doesn't, or this server can't."""
    found = (scope.get("extensions") or {}).get(UPGRADE)
    return cast(Take, found["take"]) if found else None


class Chunks:
    """The body of a chunked reply, written past ASGI: one call for bytes that many replies may share. What is sent by ASGI before and after keeps its place."""

    __slots__ = ("_cycle", "_transport", "write")

    def __init__(self, cycle: Any, transport: Any) -> None:
        self._cycle = cycle
        self._transport = transport
        self.write: Callable[[bytes], None] = transport.send if isinstance(transport, Secured) else transport.write
        """With what is `framed`."""

    def ready(self) -> bool:
        """Whether `write` may be called: the reply has begun and hasn't ended, and its client takes what it is sent."""
        cycle = self._cycle
        return bool(
            cycle.chunked_encoding and not (cycle.disconnected or cycle.response_complete or cycle.flow.write_paused)
        )


def framed(data: bytes) -> bytes:
    """As a chunk of HTTP/1.1; `data` isn't empty, as that would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunks_of(scope: Any) -> Chunks | None:
    """What to write a request's chunks with; None where the server isn't this one."""
    found = (scope.get("extensions") or {}).get(CHUNKS)
    return cast(Chunks, found["begin"]()) if found else None


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
        self._config = Config(
            _ending_quietly(app), interface="asgi3", http=Guarded, ws="none", lifespan="off", access_log=False, log_config=None,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        self._listener = listener
        self._context = context
        self._drain = drain
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._secured: set[Secured] = set()
        self._client_of = client_of
        self._guards: Guards | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Returns once connections are accepted."""
        self._config.load()
        loop = asyncio.get_running_loop()
        guards = self._guards = Guards(loop, self._client_of)
        make: Callable[[], asyncio.Protocol] = functools.partial(
            _Protocol, config=self._config, server_state=self._state, app_state={}, guards=guards
        )
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
        connections: set[Any] = set(self._state.connections)
        for connection in connections:
            connection.shutdown()
        if tasks := set(self._state.tasks):
            await asyncio.wait(tasks, timeout=self._drain)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        for secured in tuple(self._secured):
            secured.abort()
        await asyncio.sleep(0)  # the protocols learn that nobody listens: an end without a reply is then no fault
        if tasks := {task for task in self._state.tasks if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._server.wait_closed()
        self._server = None


class _Protocol(Guarded):
    """uvicorn's with bounds; requests for another protocol may take the connection.

    A client certificate is in the scope's `tls` extension (https://asgi.readthedocs.io/en/latest/specs/tls.html), which uvicorn doesn't
    fill: `client_cert_chain` with the certificate alone.
    """

    _held: bytearray | None = None
    """What came after a request for another protocol, until it is decided; then it is the taker's, or the next request."""

    def connection_made(self, transport: Any) -> None:
        self._extensions: dict[str, Any] = {CHUNKS: {"begin": self._chunks}}
        super().connection_made(transport)
        secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if secured is not None and (shown := secured.getpeercert(binary_form=True)):
            self._extensions["tls"] = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(shown)]}

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade() and not any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        ):
            self.scope["extensions"] = {**self._extensions, UPGRADE: {"take": self._take}}

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

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._extensions = {}  # it refers back to the protocol

    def _chunks(self) -> Chunks:
        return Chunks(self._running, self.transport)

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        transport = self.transport
        if transport.is_closing():
            raise ConnectionResetError("the client closed the connection")
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.released()
        self.cycle.disconnected = True  # nothing is to be sent for this request
        reader = asyncio.StreamReader(_STREAM_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._held:
            reader.feed_data(bytes(self._held))
        self.flow.resume_reading()
        return reader, asyncio.StreamWriter(transport, protocol, reader, self.loop)


def _ending_quietly(app: Any) -> Any:
    """`app`, whose calls may be cancelled: uvicorn would log that as an exception of theirs."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call
