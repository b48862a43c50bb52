"""An ASGI application on a Unix socket: uvicorn's protocol without its `Server`, which installs signal handlers and polls."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

__all__ = ["SocketServer"]

DRAIN = 5.0
"""Seconds that requests are given to end in `stop`."""


class SocketServer:
    def __init__(self, app: Any, path: Path) -> None:
        self._config = Config(
            app, interface="asgi3", http=HttpToolsProtocol, ws="none", lifespan="off", access_log=False, log_config=None,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=60,
        )  # fmt: skip
        self._path = path
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError where the socket can't be bound; a socket file that a dead process left is replaced."""
        self._config.load()
        make = functools.partial(HttpToolsProtocol, config=self._config, server_state=self._state, app_state={})
        self._server = await asyncio.get_running_loop().create_unix_server(make, str(self._path), backlog=1024)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Takes no more requests, lets those that run end for some seconds, then cancels them."""
        if self._server is None:
            return
        self._server.close()
        connections: set[Any] = set(self._state.connections)
        for connection in connections:
            connection.shutdown()
        if tasks := set(self._state.tasks):
            _, left = await asyncio.wait(tasks, timeout=DRAIN)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)
        for connection in list(connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._server.wait_closed()
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
