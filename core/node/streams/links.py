"""Connections whose HTTP part is over: WebSockets (RFC 6455), message by message, and bare ones, piece by piece.

Reading and writing wait for each other's sides; nothing is kept but what one call is about. `websockets`' protocol without I/O does the framing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from core.serving import Take
from core.upgrade import PIECE, close_writer

__all__ = ["BareLink", "HandshakeRefused", "Link", "WebSocket"]

MAX_MESSAGE = 4 << 20
FINISH_SECONDS = 600.0
"""How long a client that was told everything may take to read it (its output may be going through a pager)."""
PING_SECONDS = 30.0
"""A client that vanished without a word is found out by what isn't acknowledged."""

_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.WARNING)


class HandshakeRefused(Exception):
    """The client's request for another protocol can't be granted; the message says why."""


class Link(Protocol):
    """What both kinds of connections can do."""

    async def receive(self) -> bytes | None:
        """The next message or piece; None once the other side has gone."""

    async def send(self, data: bytes) -> None:
        """Waits while the other side doesn't read. Raises ConnectionError where it has gone."""

    async def finish(self) -> None:
        """Everything was said: returns when the other side has read it, and closed."""

    async def close(self) -> None:
        """Now, whoever reads."""


class BareLink:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes | None:
        try:
            return await self._reader.read(PIECE) or None
        except OSError:
            return None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while await self.receive() is not None:
                    pass

    async def close(self) -> None:
        await close_writer(self._writer)


class _Handshake(ServerProtocol):
    """Kubernetes has a protocol with a `/` in its name, which no token may have (RFC 6455, 4.1)."""

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        lines = headers.get_all("Sec-WebSocket-Protocol")
        if not lines and Subprotocol("") in (self.available_subprotocols or ()):
            return None
        return self.select_subprotocol([Subprotocol(each.strip()) for line in lines for each in line.split(",")])


class WebSocket:
    """The server's end. `scope` is that of the request (ASGI); `protocols` are ours, the best one first; "" is none.

    Raises `HandshakeRefused`. Nothing is sent before `open`, so that whoever serves can still say no.
    """

    def __init__(self, scope: Any, protocols: Sequence[str]) -> None:
        self._protocol = _Handshake(
            subprotocols=[Subprotocol(each) for each in protocols], max_size=MAX_MESSAGE, logger=_quiet
        )
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        head = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target)]
        head += [b"%b: %b" % (name, value) for name, value in scope["headers"]]
        self._protocol.receive_data(b"\r\n".join([*head, b"", b""]))
        request = next(iter(self._protocol.events_received()), None)
        if not isinstance(request, Request):
            raise HandshakeRefused(f"this is no WebSocket handshake: {self._protocol.handshake_exc}")
        self._response = self._protocol.accept(request)
        if self._response.status_code != 101:
            raise HandshakeRefused(
                f"{self._protocol.handshake_exc}; this server speaks {', '.join(filter(None, protocols))}"
            )
        self.subprotocol = str(self._protocol.subprotocol or "")
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._over = False
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, take: Take) -> None:
        """Take the connection and say yes."""
        self._reader, self._writer = take()
        self._protocol.send_response(self._response)
        self._flush()
        self._ping_later()

    def _flush(self) -> None:
        writer = cast(asyncio.StreamWriter, self._writer)
        for data in self._protocol.data_to_send():
            if data and not writer.is_closing():
                writer.write(data)

    def _ping_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        with contextlib.suppress(InvalidState):
            self._protocol.send_ping(b"")
            self._flush()
            self._ping_later()

    async def receive(self) -> bytes | None:
        """None after the other side's close frame, its end, or what isn't a WebSocket's."""
        reader, writer = cast(asyncio.StreamReader, self._reader), cast(asyncio.StreamWriter, self._writer)
        while not self._messages:
            if self._over:
                return None
            try:
                data = await reader.read(PIECE)
                if data:
                    self._protocol.receive_data(data)
                else:
                    self._protocol.receive_eof()
                    self._over = True
                for event in self._protocol.events_received():
                    if isinstance(event, Frame):
                        self._take_frame(event)
                if self._protocol.close_expected():
                    self._over = True
                self._flush()
                await writer.drain()
            except OSError:
                self._over = True
        return self._messages.popleft()

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._over = True
        elif frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._messages.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                self._parts = []

    async def send(self, data: bytes) -> None:
        try:
            self._protocol.send_binary(data)
        except InvalidState as error:
            raise ConnectionResetError("the client has gone") from error
        self._flush()
        await cast(asyncio.StreamWriter, self._writer).drain()

    async def finish(self) -> None:
        """By the closing handshake: the other side answers our close frame, or closes, when it has come to it."""
        reader = cast(asyncio.StreamReader, self._reader)
        with contextlib.suppress(InvalidState):
            self._protocol.send_close(1000)
        self._flush()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(FINISH_SECONDS):
                while not self._over and (data := await reader.read(PIECE)):
                    self._protocol.receive_data(data)
                    events = self._protocol.events_received()
                    self._over = any(isinstance(each, Frame) and each.opcode is Opcode.CLOSE for each in events)

    async def close(self) -> None:
        """With a close frame of code 1000, where the other side still listens."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is None:
            return
        with contextlib.suppress(InvalidState):
            self._protocol.send_close(1000)
        self._flush()
        await close_writer(self._writer)
