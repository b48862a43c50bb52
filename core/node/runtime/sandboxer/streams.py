"""Who looks on at a container's streams: an attachment gets what the log gets, and may hold the container up, but not for long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .protocol import Reply

__all__ = ["PATIENCE", "Attachment", "Driver"]

PATIENCE = 10.0
"""Seconds for which an attachment that takes nothing may keep the container waiting; then it is dropped."""


class Driver(Protocol):
    """The connection of a driver that has a process's streams."""

    on_lost: Callable[[], None] | None
    on_end_input: Callable[[], None] | None

    def give(self, reply: Reply, descriptors: Sequence[int]) -> None: ...

    def write(self, data: bytes) -> None: ...


class Attachment:
    """`writers` are pipes of its own by stream, which don't block. `on_room` is called when it takes more again, or never will."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, writers: Mapping[str, int], on_room: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._writers = dict(writers)
        self._pending: dict[str, bytes] = {}
        self._on_room = on_room
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False

    @property
    def blocked(self) -> bool:
        return bool(self._pending)

    def feed(self, stream: str, data: bytes) -> None:
        """What the container said. Afterwards it may be `blocked`, and should be given no more until it isn't."""
        if stream not in self._writers:
            return
        if self._pending:
            self._pending[stream] = self._pending.get(stream, b"") + data
            return
        self._write(stream, data)

    def _write(self, stream: str, data: bytes) -> None:
        writer = self._writers[stream]
        try:
            rest = data[os.write(writer, data) :]
        except BlockingIOError:
            rest = data
        except OSError:  # nobody reads it any more
            self._loop.remove_writer(writer)
            self._pending.pop(stream, None)
            os.close(self._writers.pop(stream))
            return
        if not rest:
            self._pending.pop(stream, None)
            self._loop.remove_writer(writer)
            return
        self._pending[stream] = rest
        self._loop.add_writer(writer, self._writable, stream)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PATIENCE, self.close)

    def _writable(self, stream: str) -> None:
        self._write(stream, self._pending[stream])
        for other, data in list(self._pending.items()):
            if other in self._writers and other != stream:
                self._write(other, data)
        if not self._pending:
            self._room()

    def _room(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ending:
            self.close()
        self._on_room()

    def finish(self) -> None:
        """The container has ended: close once everything was taken."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Nobody is served any more."""
        blocked = self.blocked
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pending.clear()
        for writer in self._writers.values():
            self._loop.remove_writer(writer)
            os.close(writer)
        self._writers.clear()
        if blocked:
            self._on_room()
