"""Streams of a process that isn't there: small programs in memory, for the fake runtime.

A program is a coroutine over `FakeStreams`: it reads `input`, writes with `say`, and returns its exit code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["PROGRAMS", "FakeStreams", "Program", "echoing"]

Program = Callable[["FakeStreams", Sequence[str]], Awaitable[int]]
_KEPT = 16


class FakeStreams:
    """Implements `Streams`. `attached`: these are a container's own; `program` may then be None, for the runtime says and ends them."""

    def __init__(
        self, program: Program | None, command: Sequence[str], *, stdin: bool, tty: bool, attached: bool = False
    ) -> None:
        self.tty = tty
        self._attached = attached
        self.size: tuple[int, int] | None = None
        self.hung_up = False
        self.input: asyncio.Queue[bytes] = asyncio.Queue(_KEPT)
        """What the client wrote; b"" is its end."""
        self.resized = asyncio.Event()
        self._output: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(_KEPT)
        self._stdin = stdin
        self._over = asyncio.Event()
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run(program, command)) if program else None

    async def _run(self, program: Program, command: Sequence[str]) -> None:
        code = await program(self, command)
        await self.end(code)

    # The process's side

    async def say(self, data: bytes, stream: int = 1) -> None:
        if not self._over.is_set():
            await self._output.put((1 if self.tty else stream, data))

    async def end(self, code: int = 0) -> None:
        if not self._code.done():
            self._code.set_result(code)
            await self._output.put((0, b""))

    def kill(self) -> None:
        """The process is no more, whatever it was about to do."""
        if self._task is not None:
            self._task.cancel()
        if not self._code.done():
            self._code.set_result(137)
        self._over.set()

    # Streams

    async def read(self) -> tuple[int, bytes]:
        if self._over.is_set() and self._output.empty():
            return 0, b""
        reading = asyncio.ensure_future(self._output.get())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((reading, over), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else (0, b"")
        finally:
            for each in (reading, over):
                each.cancel()
            await asyncio.gather(reading, over, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        if self._stdin and not self._code.done():
            await self.input.put(data)

    async def end_input(self) -> None:
        if not self.tty:
            await self.write(b"")
            self._stdin = False

    async def resize(self, columns: int, rows: int) -> None:
        if self.tty:
            self.size = (columns, rows)
            self.resized.set()

    async def wait(self) -> int:
        code = await self._code
        return 0 if self._attached else code

    async def close(self) -> None:
        if not self._code.done():
            self.hung_up = True
            self._code.set_result(129)
        self._over.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def echoing(streams: FakeStreams, command: Sequence[str]) -> int:
    while data := await streams.input.get():
        await streams.say(data)
    return 0


async def _echo(streams: FakeStreams, command: Sequence[str]) -> int:
    await streams.say(" ".join(command[1:]).encode() + b"\n")
    return 0


async def _complain(streams: FakeStreams, command: Sequence[str]) -> int:
    await streams.say(" ".join(command[1:]).encode() + b"\n", 2)
    return 0


async def _exit(streams: FakeStreams, command: Sequence[str]) -> int:
    return int(command[1])


async def _size(streams: FakeStreams, command: Sequence[str]) -> int:
    """Rows and columns of its terminal once it has some, as `stty size` prints them."""
    await streams.resized.wait()
    assert streams.size is not None
    await streams.say(b"%d %d\r\n" % (streams.size[1], streams.size[0]))
    return 0


async def _sleep(streams: FakeStreams, command: Sequence[str]) -> int:
    await asyncio.Event().wait()
    return 0


PROGRAMS: Mapping[str, Program] = {
    "cat": echoing, "complain": _complain, "echo": _echo, "exit": _exit, "size": _size, "sleep": _sleep,
}  # fmt: skip
