"""An ASGI application on a listening socket: uvicorn's HTTP protocol without its `Server`, which installs signal handlers and polls."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

__all__ = ["AsgiServer"]

DRAIN = 3.0
"""Seconds that requests are given to end in `stop`."""
_BACKLOG = 2048


class AsgiServer:
    """A component that serves `app` on `listener` (TCP or Unix, bound; `stop` closes it), with TLS where a context is given."""

    def __init__(
        self, app: Any, listener: socket.socket, context: ssl.SSLContext | None = None, *, drain: float = DRAIN
    ) -> None:
        self._config = Config(
            _ending_quietly(app), interface="asgi3", http=HttpToolsProtocol, ws="none", lifespan="off", access_log=False, log_config=None,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        self._listener = listener
        self._context = context
        self._drain = drain
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Returns once connections are accepted."""
        self._config.load()
        make = functools.partial(_Protocol, config=self._config, server_state=self._state, app_state={})
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        if self._listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=self._listener, backlog=_BACKLOG)
        else:
            self._server = await loop.create_server(make, sock=self._listener, ssl=self._context, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Takes no more requests, lets those that run end for some seconds, then cancels them."""
        if self._server is None:
            return
        self._server.close()
        connections: set[Any] = set(self._state.connections)
        for connection in connections:
            connection.shutdown()
        if tasks := set(self._state.tasks):
            await asyncio.wait(tasks, timeout=self._drain)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # the protocols learn that nobody listens: an end without a reply is then no fault
        if tasks := {task for task in self._state.tasks if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._server.wait_closed()
        self._server = None


class _Protocol(HttpToolsProtocol):
    """uvicorn's, over a transport that sends head and body of a reply together."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(cast(asyncio.Transport, _Gathering(transport)))


class _Gathering:
    """A transport that passes on what was written in one turn of the event loop as one piece: one TLS record, one system call."""

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _ending_quietly(app: Any) -> Any:
    """`app`, whose calls may be cancelled: uvicorn would log that as an exception of theirs."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call
