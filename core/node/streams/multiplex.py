"""The server's end of a SPDY connection: many streams over one link, as a sequence of events.

Events are handed out one after the other, and the link isn't read while one is looked at: so whoever takes them bounds what is kept.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from core.node.streams.links import Link
from core.node.streams.spdy import (
    CANCEL,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Codec,
    Data,
    GoAway,
    Headers,
    Ping,
    Reset,
    SpdyError,
    SynReply,
    SynStream,
)

__all__ = ["Arrived", "Ended", "Event", "Multiplexer", "Opened"]

log = logging.getLogger(__name__)

MAX_STREAMS = 2048


class Opened(NamedTuple):
    """The client opened a stream, which waits for `accept` or `refuse`."""

    stream: int
    headers: Mapping[str, str]


class Arrived(NamedTuple):
    """Data of a stream. Without any: the client has said all that it will."""

    stream: int
    data: bytes


class Ended(NamedTuple):
    """The client takes no interest in that stream any more."""

    stream: int


Event = Opened | Arrived | Ended


class Multiplexer:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._codec = Codec()
        self._open: set[int] = set()
        self._last = 0

    async def events(self) -> AsyncIterator[Event]:
        """Until the client goes, or says what isn't SPDY."""
        try:
            while (piece := await self._link.receive()) is not None:
                for frame in self._codec.feed(piece):
                    match frame:
                        case SynStream(stream, headers, fin):
                            if stream <= self._last or not stream % 2:
                                raise SpdyError(f"a new stream {stream} after stream {self._last}")
                            self._last = stream
                            if len(self._open) >= MAX_STREAMS:
                                await self._link.send(self._codec.reset(stream, REFUSED_STREAM))
                                continue
                            self._open.add(stream)
                            yield Opened(stream, headers)
                            if fin:
                                yield Arrived(stream, b"")
                        case Data(stream, data, fin) if stream in self._open:
                            if data:
                                yield Arrived(stream, data)
                            if fin:
                                yield Arrived(stream, b"")
                        case Reset(stream, _) if stream in self._open:
                            self._open.discard(stream)
                            yield Ended(stream)
                        case Ping(number) if number % 2:
                            await self._link.send(self._codec.ping(number))
                        case GoAway():
                            return
                        case Data() | Reset() | Ping() | SynReply() | Headers():
                            continue  # of a stream that has ended, or of no meaning to a server
        except SpdyError as error:
            log.info("a client's SPDY connection was closed: it sent %s", error)
            await self._link.send(self._codec.go_away(self._last, PROTOCOL_ERROR))

    async def accept(self, stream: int) -> None:
        await self._link.send(self._codec.syn_reply(stream, {}))

    async def refuse(self, stream: int) -> None:
        self._open.discard(stream)
        await self._link.send(self._codec.reset(stream, PROTOCOL_ERROR))

    async def cancel(self, stream: int) -> None:
        """End a stream from our side, whatever is under way on it."""
        if stream in self._open:
            self._open.discard(stream)
            await self._link.send(self._codec.reset(stream, CANCEL))

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Nothing where the stream has ended. Waits while the client doesn't read. Raises ConnectionError where it has gone."""
        if stream in self._open:
            await self._link.send(self._codec.data(stream, data, fin=fin))

    def forget(self, stream: int) -> None:
        """Both sides are through with it."""
        self._open.discard(stream)

    async def finish(self) -> None:
        """Everything was said: returns when the client has read it, and closed."""
        await self._link.finish()

    async def close(self) -> None:
        await self._link.close()
