"""Hints between processes of one machine: this Pod is ready (or isn't any more), said while its status is still on its way through the API.

A node agent sends one datagram to each socket `ready-*.sock` of a folder that only the platform's user may enter; whoever wants to know listens at
a socket there. Nothing is promised: a hint may be lost, or come before or after the Pod's own event. The API stays the truth, so that a
listener lets go of a hint that the API doesn't confirm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from core.clock import monotonic, wall
from core.sockets import bind_private

__all__ = ["CURRENT", "Hint", "HintListener", "HintSender"]

log = logging.getLogger(__name__)

CURRENT = 1.0
"""Seconds after which a hint is too old to say anything: its listener was busy, and events have overtaken it."""
_PREFIX, _SUFFIX = "ready-", ".sock"
_LARGEST = 4096
_SETTLED = 0.1
_AT_ONCE = 64


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """`pod` is `namespace/name`, `address` its IP, "" where it is ready no more; `at` is of the machine's monotonic clock, in seconds."""

    pod: str
    uid: str
    address: str
    at: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Hint).decode


class HintSender:
    """Sends to whoever listens in `folder`. Never waits: who doesn't read misses hints."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._seen = -1
        self._paths: list[str] = []
        self._socket: socket.socket | None = None

    def send(self, pod: str, uid: str, address: str) -> None:
        paths = self._listeners()
        if not paths:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        data = _encode(Hint(pod, uid, address, monotonic()))
        for path in paths:
            # Nobody there, or one that reads too slowly: the API tells it.
            with contextlib.suppress(OSError):
                self._socket.sendto(data, path)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _listeners(self) -> list[str]:
        """The folder is read again only where it has changed, or may have in the moment in which it was read: its time is no finer than that."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed != self._seen:
                names = (each for each in os.listdir(self._folder) if each.startswith(_PREFIX))
                self._paths = [os.path.join(self._folder, each) for each in sorted(names) if each.endswith(_SUFFIX)]
                self._seen = changed if wall() - changed / 1e9 > _SETTLED else -1
        except OSError:
            self._paths = []
        return self._paths


class HintListener:
    """Calls `heard(hint)` on the event loop for every hint that is not too old. `name` is unique among the folder's listeners."""

    def __init__(self, folder: Path, name: str, heard: Callable[[Hint], None]) -> None:
        self.path = folder / f"{_PREFIX}{name}{_SUFFIX}"
        self._heard = heard
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """In place of what a dead process of that name left. Raises OSError."""
        listener = self._socket = bind_private(self.path, socket.SOCK_DGRAM)
        asyncio.get_running_loop().add_reader(listener, self._readable, listener)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self.path.unlink(missing_ok=True)

    def _readable(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = listener.recv(_LARGEST)
            except OSError:  # nothing left
                return
            try:
                hint = _decode(data)
            except msgspec.DecodeError as error:
                log.warning("%s: not a hint: %s", self.path, error)
                continue
            if 0 <= monotonic() - hint.at <= CURRENT:
                self._heard(hint)
