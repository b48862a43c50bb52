"""The connection to the sandboxer: many calls in flight, events in between."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from core.node.runtime.base import (
    AddressInUse,
    ImageNotFound,
    ImagePullError,
    NotSupported,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeUnavailable,
)
from core.node.runtime.sandboxer.protocol import Call, Pushed, Reply, decode_message, frame, frames

__all__ = ["SandboxerClient", "failure_of"]

log = logging.getLogger(__name__)
_FAILURES: dict[str, type[RuntimeFailure]] = {each.reason: each for each in (RuntimeFailure, RuntimeUnavailable, AddressInUse, ImageNotFound, ImagePullError, NotSupported)}  # fmt: skip


def failure_of(reply: Reply) -> Exception:
    """The error that a reply stands for."""
    if reply.error == "Timeout":
        return TimeoutError(reply.message)
    return _FAILURES.get(reply.error, RuntimeFailure)(reply.message)


class SandboxerClient(asyncio.Protocol):
    """One connection, never reused after it broke. `on_event` and `on_lost` are called on the event loop."""

    def __init__(self, on_event: Callable[[RuntimeEvent], None], on_lost: Callable[[SandboxerClient], None]) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls, path: Path, on_event: Callable[[RuntimeEvent], None], on_lost: Callable[[SandboxerClient], None]
    ) -> SandboxerClient:
        """Raises `RuntimeUnavailable`."""
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_unix_connection(lambda: cls(on_event, on_lost), str(path))
        except OSError as error:
            raise RuntimeUnavailable(f"the sandboxer at {path} doesn't answer: {error.strerror or error}") from error
        return client

    async def call(self, op: str, **arguments: Any) -> Reply:
        """Raises what the operation raises, `RuntimeUnavailable` where the connection is or gets lost."""
        if self._transport is None:
            raise RuntimeUnavailable("the connection to the sandboxer is lost")
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(frame(Call(number, op, **arguments)))
            reply: Reply = await future
        finally:
            self._waiting.pop(number, None)
        if reply.error:
            raise failure_of(reply)
        return reply

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        await self._closed

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for each in frames(self._buffer):
            message = decode_message(each)
            if isinstance(message, Pushed):
                self._on_event(message.event)
                continue
            future = self._waiting.get(message.id)
            if future is not None and not future.done():
                future.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RuntimeUnavailable("the connection to the sandboxer is lost"))
        if not self._closed.done():
            self._closed.set_result(None)
        self._on_lost(self)
