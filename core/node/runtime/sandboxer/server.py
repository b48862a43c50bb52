"""The control socket: calls in, replies and events out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from core import trace
from core.node.runtime.base import RuntimeEvent, RuntimeFailure

from .protocol import Call, Pushed, Reply, decode_call, frame, frames
from .service import Service

__all__ = ["Connections", "DriverConnection"]

log = logging.getLogger(__name__)


class Connections:
    """All drivers connected. Events that no one is there for are lost: a driver lists when it connects."""

    def __init__(self) -> None:
        self.service: Service | None = None
        self.open: set[DriverConnection] = set()
        self.streaming: set[DriverConnection] = set()
        """Those with a process's streams: no events go there."""

    def push(self, event: RuntimeEvent) -> None:
        data = frame(Pushed(event))
        for each in self.open:
            each.write(data)


class DriverConnection(asyncio.Protocol):
    """One driver."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._buffer = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self.on_lost: Callable[[], None] | None = None
        self.on_end_input: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Calls under way go on: their driver asks again when it is back."""
        self._connections.open.discard(self)
        self._connections.streaming.discard(self)
        self._transport = None
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for each in frames(self._buffer):
                self._called(decode_call(each))
        except (ValueError, msgspec.DecodeError) as error:
            log.warning("a driver sent what isn't a call: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def _called(self, call: Call) -> None:
        service = self._connections.service
        assert service is not None
        if trace.ON and call.sandbox is not None:
            trace.mark("called", f"{call.sandbox.namespace}/{call.sandbox.name}")
        if call.op == "end_input":
            if self.on_end_input is not None:
                self.on_end_input()
            return
        if call.op in service.STREAMS:
            self._connections.open.discard(self)
            self._connections.streaming.add(self)
        try:
            reply = service.try_now(call)
        except RuntimeFailure as error:
            reply = Reply(call.id, error=error.reason, message=str(error))
        if reply is not None:
            self.write(frame(reply))
            return
        task = asyncio.create_task(self._serve(service, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, service: Service, call: Call) -> None:
        try:
            if call.op in service.STREAMS:
                await getattr(service, call.op)(call, self)
                return
            if call.op not in service.OPERATIONS:
                raise RuntimeFailure(f"there is no operation {call.op}")
            reply = await getattr(service, call.op)(call)
        except RuntimeFailure as error:
            reply = Reply(call.id, error=error.reason, message=str(error))
        except TimeoutError:
            reply = Reply(call.id, error="Timeout", message=f"{call.op} took over {call.seconds} s")
        except Exception as error:
            log.exception("%s failed", call.op)
            reply = Reply(call.id, error=RuntimeFailure.reason, message=f"{type(error).__name__}: {error}")
        self.write(frame(reply))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def give(self, reply: Reply, descriptors: Sequence[int]) -> None:
        """A reply with descriptors, on a connection on which nothing else waits to be sent. Raises OSError where the driver has gone."""
        if self._transport is None or self._transport.get_write_buffer_size():
            raise ConnectionResetError("the driver has gone")
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as ours:
            socket.send_fds(ours, [frame(reply)], list(descriptors))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()
