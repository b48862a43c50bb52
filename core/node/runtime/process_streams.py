"""A process's streams on a process node: descriptors that the sandboxer handed over, read and written by the agent itself.

They are read when somebody asks and written when there is room, so nothing is kept here, and the kernel slows whoever is too fast. The connection
on which they came brings the exit code; closing them and it is hanging up.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from core.clock import monotonic
from core.node.runtime.base import RuntimeUnavailable
from core.node.runtime.process_client import failure_of
from core.node.runtime.sandboxer.protocol import Call, Reply, decode_message, frame, frames

__all__ = ["ProcessStreams"]

PIECE = 32 << 10
DRAIN = 0.5
"""Seconds after a command's end in which more output may come: what it left in the background may hold its streams open for ever."""
_NUMBERS = {"stdout": 1, "stderr": 2, "terminal": 1}


class ProcessStreams:
    """Implements `Streams`."""

    def __init__(self, connection: socket.socket, call: Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._call = call
        self._buffer = bytearray()
        self._outputs: dict[int, int] = {}
        """Descriptor -> 1 or 2."""
        self._input = -1
        self._terminal = False
        self._ended_at = 0.0
        self._begun: asyncio.Future[Reply] = self._loop.create_future()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, call: Call) -> ProcessStreams:
        """Make that call at the sandboxer's socket. Raises what the operation raises, `RuntimeUnavailable`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        found = cls(connection, call)
        try:
            await found._loop.sock_connect(connection, str(path))
            await found._loop.sock_sendall(connection, frame(call))
            found._loop.add_reader(connection, found._received)
            await found._begun
        except OSError as error:
            await found.close()
            raise RuntimeUnavailable(f"the sandboxer at {path} doesn't answer: {error}") from error
        except BaseException:
            await found.close()
            raise
        return found

    # The connection

    def _received(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._connection, PIECE, 4)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._lost()
            return
        self._buffer += data
        for each in frames(self._buffer):
            message = decode_message(each)
            if isinstance(message, Reply) and message.id == self._call.id:
                self._answered(message, descriptors)
                descriptors = []

    def _answered(self, reply: Reply, descriptors: list[int]) -> None:
        if self._begun.done():
            self._ended_at = monotonic()
            if not self._exit.done():
                self._exit.set_result(reply.code)
            return
        if reply.error:
            self._begun.set_exception(failure_of(reply))
            return
        for name, descriptor in zip(reply.text.split(), descriptors, strict=True):
            os.set_blocking(descriptor, False)
            if name in ("stdin", "terminal"):
                self._input, self._terminal = descriptor, name == "terminal"
            if name != "stdin" and not (name == "terminal" and self._outputs):
                self._outputs[descriptor] = _NUMBERS[name]
        self._begun.set_result(reply)

    def _lost(self) -> None:
        self._loop.remove_reader(self._connection)
        gone = RuntimeUnavailable("the connection to the sandboxer is lost")
        if not self._begun.done():
            self._begun.set_exception(gone)
        if not self._exit.done():
            self._exit.set_exception(gone)
            self._exit.exception()  # seen: who waits is told, and nobody need wait

    # Streams

    async def read(self) -> tuple[int, bytes]:
        while self._outputs:
            for descriptor, stream in list(self._outputs.items()):
                try:
                    data = os.read(descriptor, PIECE)
                except BlockingIOError:
                    continue
                except OSError:  # a terminal that nobody has open any more
                    data = b""
                self._outputs.pop(descriptor)
                if data:
                    self._outputs[descriptor] = stream  # last in the row: both streams get their turn
                    return stream, data
                self._let_go(descriptor)
            if self._outputs and not await self._readable():
                break
        return 0, b""

    async def _readable(self) -> bool:
        """Wait for output; False where none is to be expected after the end."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def tell(_: object = None) -> None:
            if not ready.done():
                ready.set_result(None)

        watched = list(self._outputs)
        for each in watched:
            self._loop.add_reader(each, tell)
        over = self._exit.done()
        if not over:
            self._exit.add_done_callback(tell)
        try:
            async with asyncio.timeout(max(0.0, self._ended_at + DRAIN - monotonic()) if over else None):
                await ready
            return not self._closed
        except TimeoutError:
            return False
        finally:
            self._exit.remove_done_callback(tell)
            for each in watched:
                self._loop.remove_reader(each)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._input >= 0:
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await self._writable(self._input)
            except OSError:  # it reads no more
                self._drop_input()

    async def _writable(self, descriptor: int) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def tell(_: object = None) -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(descriptor, tell)
        self._exit.add_done_callback(tell)
        try:
            await ready
        finally:
            self._exit.remove_done_callback(tell)
            self._loop.remove_writer(descriptor)
        if self._exit.done():
            self._drop_input()

    def _drop_input(self) -> None:
        descriptor, self._input = self._input, -1
        if descriptor >= 0 and descriptor not in self._outputs:
            self._let_go(descriptor)

    async def end_input(self) -> None:
        if self._terminal or self._input < 0:
            return
        self._drop_input()
        with contextlib.suppress(OSError):
            await self._loop.sock_sendall(self._connection, frame(Call(self._call.id, "end_input")))

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal and self._input >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        if self._call.op == "attach":
            return 0
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._connection)
        self._connection.close()
        for each in {*self._outputs, *([self._input] if self._input >= 0 else [])}:
            self._let_go(each)
        self._outputs.clear()
        self._input = -1
        if not self._exit.done():
            self._exit.cancel()

    def _let_go(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        if descriptor == self._input:
            self._input = -1
        os.close(descriptor)
