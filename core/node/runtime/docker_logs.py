"""Brings a container's log from the engine into its CRI file, and goes on where an earlier agent stopped.

The last line of the file tells how far it came: the engine is asked for everything since that line's time, and as many lines
of that very time as the file has already are left out.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from core.clock import parse_time

__all__ = ["LogFile", "copy_logs", "seconds"]

_TAIL = 1 << 20


class LogFile:
    """A CRI log file that is appended to. `since` is the time of its last line ("" for none), `seen` how many lines have it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self.since, self.seen = _end(path)

    def write(self, stream: str, stamp: bytes, text: bytes) -> None:
        tag = b"F" if text.endswith(b"\n") else b"P"
        self._file.write(b"%b %b %b %b\n" % (stamp, stream.encode(), tag, text.rstrip(b"\n").removesuffix(b"\r")))

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
