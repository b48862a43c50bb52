"""Readiness as containers announce it: a datagram socket per container, in a host folder that is mounted into it.

The folder outlives the agent: a new agent binds the socket anew in the same place, and finds the mark of a container that was
ready before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["NotifySocket"]

_NAME, _MARK = "notify", "ready"


class NotifySocket:
    """`folder` is mounted into the container, its parent holds the mark. `on_ready` is called at the first READY=1."""

    def __init__(self, folder: Path, on_ready: Callable[[], None]) -> None:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._mark = folder.parent / f"{folder.name}.{_MARK}"
        self._on_ready = on_ready
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / _NAME)
        # A socket's path has 108 bytes at most, a folder's may have more: go by the folder's descriptor.
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.bind(f"/proc/self/fd/{handle}/{_NAME}")
        finally:
            os.close(handle)
        os.chmod(folder / _NAME, 0o666)  # noqa: S103 - the container's user is anybody; the folder is its own
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)

    @property
    def ready(self) -> bool:
        return self._mark.exists()

    def _readable(self) -> None:
        try:
            message = self._socket.recv(4096)
        except BlockingIOError:
            return
        if b"READY=1" in message.split(b"\n") and not self.ready:
            self._mark.touch()
            self._on_ready()

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
