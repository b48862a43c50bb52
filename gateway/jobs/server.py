"""The Unix socket that jobs listens on."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from core.serving import AsgiServer

__all__ = ["SocketServer"]

DRAIN = 5.0
"""Seconds that requests are given to end in `stop`."""


class SocketServer:
    """Serves `app` at `path`, for the socket file's owner alone."""

    def __init__(self, app: Any, path: Path) -> None:
        self._app = app
        self._path = path
        self._server: AsgiServer | None = None

    async def start(self) -> None:
        """Raises OSError where the socket can't be bound; a socket file that a dead process left is replaced."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError:
            listener.close()
            raise
        self._server = AsgiServer(self._app, listener, drain=DRAIN)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is None:
            return
        await self._server.stop()
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
