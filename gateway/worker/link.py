"""The connection to the autoscaler: reports and pokes go out, notices come in. It comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from faaslite.api.wire import Hello, Message, Notice, decode, encode

__all__ = ["Link"]

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Link:
    """`on_connect` is called when the autoscaler can be asked (again). What is sent while it can't be is dropped: pokes are
    repeated and a report is worth nothing later."""

    def __init__(
        self, path: Path, name: str, on_connect: Callable[[], None], on_notice: Callable[[Notice], None]
    ) -> None:
        self._path = path
        self._name = name
        self._on_connect = on_connect
        self._on_notice = on_notice
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="autoscaler link")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def send(self, message: Message) -> None:
        if self._writer is not None:
            self._writer.write(encode(message))

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        told = False
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError as error:
                if not told:
                    log.warning("the autoscaler can't be reached at %s: %s", self._path, error)
                    told = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause, told = _FIRST_PAUSE, False
            try:
                await self._serve(reader, writer)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                log.warning("the connection to the autoscaler broke: %s", error)
                await asyncio.sleep(pause)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        self._writer = writer
        try:
            self.send(Hello(self._name))
            self._on_connect()
            while line := await reader.readline():
                message = decode(line)
                if isinstance(message, Notice):
                    self._on_notice(message)
            raise ConnectionResetError("the autoscaler ended the connection")
        finally:
            self._writer = None
            writer.transport.abort()
