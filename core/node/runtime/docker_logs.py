"""Brings a container's log from the engine into its CRI file, and goes on where an earlier agent stopped.

The last line of the file tells how far it came: the engine is asked for everything since that line's time, and as many lines
of that very time as the file has already are left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from core.clock import parse_time
from core.node.runtime.base import RuntimeFailure
from core.node.runtime.logbound import Bound

__all__ = ["LogFile", "copy_logs", "follow", "seconds"]

log = logging.getLogger(__name__)

_TAIL = 1 << 20
RECONNECT_FIRST, RECONNECT_LONGEST = 0.2, 5.0


class Source(Protocol):
    def logs(self, container: str, since: str, tty: bool) -> AsyncIterator[tuple[str, bytes]]: ...


class LogFile:
    """A CRI log file that is appended to. `since` is the time of its last line ("" for none), `seen` how many lines have it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._bound = Bound(self._file.fileno())
        self.since, self.seen = _end(path)

    def write(self, stream: str, stamp: bytes, text: bytes) -> None:
        tag = b"F" if text.endswith(b"\n") else b"P"
        line = b"%b %b %b %b\n" % (stamp, stream.encode(), tag, text.rstrip(b"\n").removesuffix(b"\r"))
        self._file.write(line)
        self._bound.grown(len(line))

    def close(self) -> None:
        self._file.close()


def _end(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = file.read().splitlines()
    stamps = [each.split(b" ", 1)[0] for each in lines]
    if not stamps:
        return "", 0
    return stamps[-1].decode(), sum(1 for each in stamps if each == stamps[-1])


def seconds(stamp: str) -> str:
    """The engine's form of a time: whole seconds and nanoseconds since the epoch; "0" for ""."""
    if not stamp:
        return "0"
    head, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{int(parse_time(head + 'Z'))}.{fraction or '0'}"


async def copy_logs(chunks: AsyncIterator[tuple[str, bytes]], log: LogFile) -> None:
    """Append what comes until it ends. A chunk is `TIME TEXT`, its text with a line break at the end but where it goes on."""
    skip = log.seen
    async for stream, chunk in chunks:
        stamp, _, text = chunk.partition(b" ")
        if skip and stamp.decode() == log.since:
            skip -= 1
            continue
        log.write(stream, stamp, text)


async def follow(source: Source, container: str, path: Path, tty: bool, exited: asyncio.Event) -> None:
    """Bring a container's log into the file until its end, over broken connections too."""
    delay = RECONNECT_FIRST
    while True:
        try:
            log_file = LogFile(path)
            try:
                await copy_logs(source.logs(container, seconds(log_file.since), tty), log_file)
            finally:
                log_file.close()
            return
        except RuntimeFailure as error:
            if exited.is_set():
                return
            log.warning("the log of container %s broke off, going on: %s", container[:12], error)
        except Exception:
            log.exception("the log of container %s can't be written", container[:12])
        await asyncio.sleep(delay)
        delay = min(delay * 2, RECONNECT_LONGEST)
