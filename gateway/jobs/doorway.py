"""Where gateway workers connect (`gateway.handover`): calls to be queued come in, calls to be made go out.

A message of calls to queue is taken as a whole, and answered when all of it is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec

from core.sockets import bind_private
from gateway.handover import (
    ACCEPT,
    ANSWER,
    CANCEL,
    DRAIN,
    EXECUTE,
    EXECUTED,
    Accept,
    Answer,
    Execute,
    Executed,
    Frames,
    pack,
    unpack_accepts,
    unpack_executed,
)
from gateway.jobs.accepting import Accepting

__all__ = ["Doorway", "Link"]

log = logging.getLogger(__name__)

_BACKLOG = 128
LARGEST = 4 << 20
"""Bytes of bodies and fields in one message, about."""

Done = Callable[[Executed | None], None]
"""Gets what became of a call; None where the connection to the worker was lost first."""


class Doorway:
    """Listens at `path`, for the socket file's owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self.accepting: Accepting | None = None
        self.links: dict[Link, None] = {}

    async def start(self, accepting: Accepting) -> None:
        """Raises OSError where the socket can't be bound; a socket file that a dead process left is replaced."""
        self.accepting = accepting
        listener = bind_private(self._path)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: Link(self), sock=listener, backlog=_BACKLOG)
        except OSError:
            listener.close()
            raise

    async def stop(self) -> None:
        """What was handed over before is recorded, and answered where the worker still listens."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        if self.accepting is not None:
            await self.accepting.stop()
        await asyncio.sleep(0)  # the answers are written
        ends = [each.ended for each in self.links]
        for each in list(self.links):
            each.transport.close()
        if ends:
            await asyncio.wait(ends)
        self._server = None

    def pick(self) -> Link | None:
        """The worker with the fewest calls to make; None where none is connected."""
        return min((each for each in self.links if not each.draining), key=lambda each: len(each.making), default=None)


def _parted(orders: list[Execute]) -> Iterator[list[Execute]]:
    """In groups that make a message each: a worker takes none of any length, and begins with the first calls while others come."""
    begin, size = 0, 0
    for at, order in enumerate(orders):
        size += len(order.body) + len(order.fields)
        if size >= LARGEST:
            yield orders[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(orders):
        yield orders[begin:]


class Link(asyncio.Protocol):
    """The connection of one worker."""

    transport: asyncio.Transport

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._frames = Frames()
        self._answers: list[Answer] = []
        self._orders: list[Execute] = []
        self._numbers = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[None] | None = None
        self.making: dict[int, Done] = {}
        self.draining = False
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # Calls to make

    def execute(
        self, call: str, method: str, target: str, fields: bytes, body: bytes, revision: str, limit: int, done: Done
    ) -> int:
        """See `Execute`; the number is for `cancel`. `done` is called once, never from here."""
        self._numbers += 1
        number = self._numbers
        self.making[number] = done
        if not self._orders:
            self._loop.call_soon(self._send)
        self._orders.append(Execute(number, call, method, target, fields, body, revision, limit))
        return number

    def cancel(self, number: int) -> None:
        """Nobody wants to know any more; `done` isn't called."""
        if self.making.pop(number, None) is not None and not self.transport.is_closing():
            self._send()
            self.transport.write(pack(CANCEL, [number]))

    def _send(self) -> None:
        orders, self._orders = self._orders, []
        if not self.transport.is_closing():
            for group in _parted(orders):
                self.transport.write(pack(EXECUTE, group))

    def _executed(self, results: list[Executed]) -> None:
        for result in results:
            if (done := self.making.pop(result.number, None)) is not None:
                done(result)

    # Calls to queue

    def _take(self, accepts: list[Accept]) -> None:
        accepting = self._doorway.accepting
        assert accepting is not None
        if accepting.is_ready:
            accepting.add(accepts, self._tell)
        else:  # a worker has one message on its way, so there is no other
            self._waiting = self._loop.create_task(self._take_later(accepting, accepts))

    async def _take_later(self, accepting: Accepting, accepts: list[Accept]) -> None:
        await accepting.ready()
        accepting.add(accepts, self._tell)

    def _tell(self, answer: Answer) -> None:
        if not self._answers:
            self._loop.call_soon(self._reply)
        self._answers.append(answer)

    def _reply(self) -> None:
        answers, self._answers = self._answers, []
        if not self.transport.is_closing():
            self.transport.write(pack(ANSWER, answers))

    # The transport's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._doorway.links[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorway.links.pop(self, None)
        if self._waiting is not None:
            self._waiting.cancel()
        making, self.making = self.making, {}
        for done in making.values():
            done(None)
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, message in self._frames.feed(data):
                if kind == ACCEPT:
                    self._take(unpack_accepts(message))
                elif kind == EXECUTED:
                    self._executed(unpack_executed(message))
                elif kind == DRAIN:
                    self.draining = True
                else:
                    raise ValueError(f"a message of the unknown kind {kind}")
        except (ValueError, msgspec.DecodeError) as error:
            log.error("a gateway worker said something unreadable: %s", error)
            self.transport.abort()
