"""The channels of a command or an attachment: standard streams, the final status, and sizes of the terminal.

Over a WebSocket each message begins with its channel's number (`v4.channel.k8s.io`; `v5` adds `[255, channel]`, which ends a channel;
k8s.io/apimachinery, `remotecommand`). Over SPDY each channel is a stream, named by its header `streamtype`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from core.node.streams.links import WebSocket
from core.node.streams.multiplex import Arrived, Multiplexer, Opened

__all__ = ["CLOSE", "ERROR", "RESIZE", "STDERR", "STDIN", "STDOUT", "V4", "V5", "Channels", "SpdyChannels", "WebSocketChannels", "exit_status", "failure_status", "terminal_size"]  # fmt: skip

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_TYPES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_STREAMS_SECONDS = 30.0
_MAX_SIZE = 0xFFFF
_encode = msgspec.json.encode


class Channels(Protocol):
    async def receive(self) -> tuple[int, bytes] | None:
        """A piece of a channel; `(CLOSE, bytes([channel]))` is a channel's end. None once the client has gone."""

    async def send(self, channel: int, data: bytes) -> None:
        """Waits while the client doesn't read. Raises ConnectionError where it has gone."""

    async def finish(self, status: bytes) -> None:
        """The last word: returns when the client has read it, and all before it. Nobody else may be receiving."""

    async def close(self) -> None: ...


def exit_status(code: int) -> bytes:
    """The `Status` that tells a client of a command's end."""
    if code == 0:
        return _encode({"metadata": {}, "status": "Success"})
    return _encode({
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    })  # fmt: skip


def failure_status(message: str) -> bytes:
    """The `Status` of a stream that broke for another reason than the command's own."""
    found = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    return _encode(found)


def terminal_size(data: bytes) -> tuple[int, int] | None:
    """Columns and rows of a message `{"Width": W, "Height": H}`; None for what is no size."""
    try:
        said: Any = msgspec.json.decode(data)
        width, height = said["Width"], said["Height"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    if type(width) is not int or type(height) is not int or not (0 < width <= _MAX_SIZE and 0 < height <= _MAX_SIZE):
        return None
    return width, height


class WebSocketChannels:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._ends = socket.subprotocol == V5

    async def receive(self) -> tuple[int, bytes] | None:
        while True:
            message = await self._socket.receive()
            if message is None:
                return None
            if message and (message[0] != CLOSE or self._ends):
                return message[0], message[1:]

    async def send(self, channel: int, data: bytes) -> None:
        await self._socket.send(bytes((channel,)) + data)

    async def finish(self, status: bytes) -> None:
        await self.send(ERROR, status)
        await self._socket.finish()

    async def close(self) -> None:
        await self._socket.close()


class SpdyChannels:
    """The client opens the streams that it wants, in any order; `wanted` are the channels that have to be there before it begins."""

    def __init__(self, multiplexer: Multiplexer, wanted: frozenset[int]) -> None:
        self._multiplexer = multiplexer
        self._wanted = wanted
        self._streams: dict[int, int] = {}
        self._channels: dict[int, int] = {}
        self._events = multiplexer.events()

    async def ready(self) -> bool:
        """Whether all streams that are wanted were opened in time."""
        try:
            async with asyncio.timeout(_STREAMS_SECONDS):
                while not self._wanted <= self._streams.keys():
                    event = await anext(self._events, None)
                    if event is None:
                        return False
                    if isinstance(event, Opened):
                        await self._opened(event.stream, event.headers)
        except (TimeoutError, OSError):
            return False
        return True

    async def _opened(self, stream: int, headers: Mapping[str, str]) -> None:
        channel = _TYPES.get(headers.get("streamtype", ""))
        if channel is None or channel in self._streams:
            await self._multiplexer.refuse(stream)
            return
        self._streams[channel], self._channels[stream] = stream, channel
        await self._multiplexer.accept(stream)

    async def receive(self) -> tuple[int, bytes] | None:
        async for event in self._events:
            if isinstance(event, Opened):
                await self._opened(event.stream, event.headers)
                continue
            channel = self._channels.get(event.stream)
            if channel is None:
                continue
            if isinstance(event, Arrived) and event.data:
                return channel, event.data
            return CLOSE, bytes((channel,))
        return None

    async def send(self, channel: int, data: bytes) -> None:
        if channel in self._streams:
            await self._multiplexer.send(self._streams[channel], data)

    async def finish(self, status: bytes) -> None:
        for channel, stream in self._streams.items():
            await self._multiplexer.send(stream, status if channel == ERROR else b"", fin=True)
        await self._multiplexer.finish()

    async def close(self) -> None:
        await self._multiplexer.close()
