"""Port-forwarding: each connection of a client's to one of a Pod's ports, over a WebSocket's channels or SPDY's streams.

Over a WebSocket (`v4.channel.k8s.io`) the ports are named beforehand, each with two channels, for data and for errors, and both begin with the
port's number (two bytes, little-endian). Over SPDY the client opens a pair of streams, `error` and `data`, for each connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from core.node.streams.links import WebSocket
from core.node.streams.multiplex import Arrived, Ended, Multiplexer, Opened
from core.upgrade import close_writer, cut

__all__ = ["Dial", "forward_channels", "forward_streams"]

log = logging.getLogger(__name__)

Dial = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connect to a port of the Pod. Raises OSError, whose text the client is shown."""

PIECE = 32 << 10
KEPT = 256 << 10
"""Bytes kept of one connection that the Pod hasn't read; then the client isn't read."""
PATIENCE = 30.0
"""Seconds that a Pod may leave its connection unread while that holds up the client's other ones."""
PAIR_SECONDS = 30.0


class Stuck(OSError):
    """The Pod doesn't read what comes for it."""


class Dropped(OSError):
    """The client has given a connection up."""


class Inbox:
    """What came for the Pod and wasn't written yet; b"" is the end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: OSError) -> None:
        """Nothing more comes, and what came is worth nothing: the connection ends with this."""
        self._room.set()
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # seen: the connection may have ended by itself

    async def put(self, data: bytes) -> None:
        """Waits while too much is kept. Raises `Stuck`. Nothing where it has failed."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._room.wait()
        except TimeoutError:
            raise Stuck(f"the Pod has not read its connection for {PATIENCE:g} s") from None
        if self.failed.done():
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > KEPT:
            self._room.clear()
        self._news.set()

    async def get(self) -> list[bytes]:
        """Everything kept."""
        await self._news.wait()
        self._news.clear()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._room.set()
        return pieces


async def _inward(inbox: Inbox, writer: asyncio.StreamWriter) -> None:
    while True:
        for data in await inbox.get():
            if not data:
                writer.write_eof()
                return
            writer.write(data)
        await writer.drain()


async def _outward(reader: asyncio.StreamReader, send: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await reader.read(PIECE):
        await send(data)


async def forward(port: int, dial: Dial, inbox: Inbox, send: Callable[[bytes], Awaitable[None]]) -> None:
    """One connection, until the Pod has closed it. Raises OSError where it can't be made or breaks."""
    reader, writer = await dial(port)
    inward = asyncio.ensure_future(_inward(inbox, writer))
    outward = asyncio.ensure_future(_outward(reader, send))
    try:
        waited: set[asyncio.Future[None]] = {inward, outward, inbox.failed}
        while not outward.done():
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # the client may have said everything, and the Pod not yet
    finally:
        for each in (inward, outward):
            each.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)
        await (cut(writer) if outward.cancelled() else close_writer(writer))


def _why(error: OSError, port: int, pod: str) -> bytes:
    return f"error forwarding port {port} to pod {pod}: {error.strerror or error}".encode()


# WebSocket


async def forward_channels(socket: WebSocket, ports: Sequence[int], dial: Dial, pod: str) -> None:
    """Until every connection has ended, or the client has gone."""
    inboxes = [Inbox() for _ in ports]
    working = {asyncio.ensure_future(_channel(socket, number, port, dial, inboxes[number], pod)) for number, port in enumerate(ports)}  # fmt: skip
    reading = asyncio.ensure_future(_dispatch(socket, inboxes))
    try:
        for number, port in enumerate(ports):
            for channel in (2 * number, 2 * number + 1):
                await socket.send(bytes((channel,)) + port.to_bytes(2, "little"))
        left: set[asyncio.Future[None]] = {*working}
        while left and not reading.done():
            await asyncio.wait((*left, reading), return_when=asyncio.FIRST_COMPLETED)
            left = {each for each in left if not each.done()}
        if not left:
            await _end(reading)
            await socket.finish()
    except OSError as error:
        log.debug("a client of %s went: %s", pod, error)
    finally:
        await _end(reading, *working)
        await socket.close()


async def _channel(socket: WebSocket, number: int, port: int, dial: Dial, inbox: Inbox, pod: str) -> None:
    async def send(data: bytes) -> None:
        await socket.send(bytes((2 * number,)) + data)

    try:
        await forward(port, dial, inbox, send)
    except OSError as error:
        await socket.send(bytes((2 * number + 1,)) + _why(error, port, pod))


async def _dispatch(socket: WebSocket, inboxes: Sequence[Inbox]) -> None:
    while (message := await socket.receive()) is not None:
        if len(message) > 1 and not message[0] % 2 and message[0] // 2 < len(inboxes):
            await inboxes[message[0] // 2].put(message[1:])


async def _end(*tasks: asyncio.Future[None]) -> None:
    for each in tasks:
        each.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, OSError):
            log.error("a forwarded connection failed", exc_info=result)


# SPDY


@dataclass(slots=True)
class Pair:
    """One connection of a client: its two streams, as far as they are there."""

    port: int
    streams: dict[str, int] = field(default_factory=dict)
    inbox: Inbox = field(default_factory=Inbox)
    timer: asyncio.TimerHandle | None = None


async def forward_streams(multiplexer: Multiplexer, dial: Dial, pod: str) -> None:
    """Until the client goes."""
    found = _StreamForwarder(multiplexer, dial, pod)
    try:
        await found.run()
    except OSError as error:
        log.debug("a client of %s went: %s", pod, error)
    finally:
        await found.end()
        await multiplexer.close()


class _StreamForwarder:
    def __init__(self, multiplexer: Multiplexer, dial: Dial, pod: str) -> None:
        self._multiplexer = multiplexer
        self._dial = dial
        self._pod = pod
        self._pairs: dict[str, Pair] = {}
        self._data: dict[int, Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        async with aclosing(self._multiplexer.events()) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Opened):
                    await self._opened(event)
                    continue
                pair = self._data.get(event.stream)
                if pair is None:
                    continue
                if isinstance(event, Arrived):
                    await self._arrived(pair, event.data)
                elif isinstance(event, Ended):
                    pair.inbox.fail(Dropped("the client has given the connection up"))

    async def end(self) -> None:
        for pair in self._pairs.values():
            if pair.timer is not None:
                pair.timer.cancel()
        await _end(*self._tasks)

    async def _opened(self, event: Opened) -> None:
        said = event.headers
        kind, port, request = said.get("streamtype", ""), said.get("port", ""), said.get("requestid", "")
        right = kind in ("data", "error") and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
        pair = self._pairs.get(request)
        if not right or (pair is not None and (kind in pair.streams or pair.port != int(port))):
            await self._multiplexer.refuse(event.stream)
            return
        if pair is None:
            pair = self._pairs[request] = Pair(int(port))
            pair.timer = asyncio.get_running_loop().call_later(PAIR_SECONDS, self._give_up_soon, request, pair)
        pair.streams[kind] = event.stream
        if kind == "data":
            self._data[event.stream] = pair
        await self._multiplexer.accept(event.stream)
        if len(pair.streams) == 2:
            if pair.timer is not None:
                pair.timer.cancel()
            self._spawn(self._connect(request, pair))

    async def _arrived(self, pair: Pair, data: bytes) -> None:
        try:
            await pair.inbox.put(data)
        except Stuck as stuck:
            log.info("a connection to %s was cut: %s", self._pod, stuck)
            pair.inbox.fail(stuck)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            log.error("a forwarded connection failed", exc_info=error)

    def _give_up_soon(self, request: str, pair: Pair) -> None:
        self._spawn(self._give_up(request, pair))

    async def _give_up(self, request: str, pair: Pair) -> None:
        self._pairs.pop(request, None)
        for stream in pair.streams.values():
            self._data.pop(stream, None)
            await self._multiplexer.cancel(stream)

    async def _connect(self, request: str, pair: Pair) -> None:
        data, errors = pair.streams["data"], pair.streams["error"]
        why = b""
        try:
            await forward(pair.port, self._dial, pair.inbox, lambda piece: self._multiplexer.send(data, piece))
        except Dropped:
            why = b""  # who waits for the stream of errors is told that there were none
        except OSError as error:
            why = _why(error, pair.port, self._pod)
        finally:
            self._pairs.pop(request, None)
            self._data.pop(data, None)
        for stream, last in ((data, b""), (errors, why)):
            await self._multiplexer.send(stream, last, fin=True)
            self._multiplexer.forget(stream)
