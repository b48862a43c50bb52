"""Log files of containers in CRI form (`TIMESTAMP stdout|stderr F|P text`): where they are, and how they are read.

A file is followed with inotify: nothing wakes up while nothing is written.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.clock import parse_time

__all__ = ["LogOptions", "last_lines", "path", "read_logs"]

FALLBACK_LINES, FALLBACK_BYTES = 80, 2048
_BLOCK = 1 << 16
_IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


def path(log_dir: str, container: str, attempt: int) -> Path:
    """`LOG_DIR/CONTAINER/ATTEMPT.log`."""
    return Path(log_dir, container, f"{attempt}.log")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """As in `v1.PodLogOptions`. `since` is seconds since the epoch, 0 for all; `tail` and `limit` (bytes) None for all."""

    follow: bool = False
    timestamps: bool = False
    since: float = 0.0
    tail: int | None = None
    limit: int | None = None


def last_lines(file: Path) -> str:
    """The end of a log as a termination message: 80 lines and 2048 bytes at most, "" where there is no log."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(opened.seek(0, os.SEEK_END) - _BLOCK, 0))
            raw = opened.read().splitlines(keepends=True)
    except FileNotFoundError:
        return ""
    text = b"".join(_text(each, False) for each in raw[-FALLBACK_LINES:])
    return text[-FALLBACK_BYTES:].decode(errors="replace").strip()


def _text(line: bytes, timestamps: bool) -> bytes:
    """What the container wrote. A partial line (P) goes without its line break."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    stamp, _, tag, text = parts
    if tag == b"P":
        text = text.removesuffix(b"\n")
    return stamp + b" " + text if timestamps else text


def _since(line: bytes, since: float) -> bool:
    try:
        return parse_time(line.split(b" ", 1)[0].decode()) >= since
    except ValueError:
        return False


class _Lines:
    """Whole lines of a file that may still grow."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._rest = b""
        if begin := _first_data(self._file.fileno()):
            # Its beginning was given up, in whole pages: the first line is a part of one.
            self._file.seek(begin)
            self._file.readline()

    def close(self) -> None:
        self._file.close()

    def read(self) -> Iterator[bytes]:
        while block := self._file.read(_BLOCK):
            block = block.lstrip(b"\0")  # given up while we were reading
            *whole, self._rest = (self._rest + block).split(b"\n")
            for each in whole:
                yield each + b"\n"


def _first_data(descriptor: int) -> int:
    """Where a file's content begins: 0, but for one whose beginning is a hole."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:  # there is none, or the file system doesn't say
        return 0
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


class _Watch:
    """Tells when a file was written to."""

    def __init__(self, file: Path) -> None:
        self.changed = asyncio.Event()
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(file), _IN_MODIFY) < 0:
            code = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(code, os.strerror(code), str(file))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        os.read(self._descriptor, 4096)
        self.changed.set()

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)


async def read_logs(file: Path, options: LogOptions, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """The log's content in blocks; with `follow` until `ended` is set and everything was read. FileNotFoundError where there is none."""
    budget = options.limit
    lines = _Lines(file)
    watch = _Watch(file) if options.follow else None
    try:
        first = True
        while True:
            # Looked at before reading: what was written before the end is then read for certain.
            last = watch is None or ended.is_set()
            if watch is not None:
                watch.changed.clear()
            found: Iterator[bytes] = lines.read()
            if options.since:
                found = (each for each in found if _since(each, options.since))
            if first and options.tail is not None:
                found = iter(deque(found, maxlen=options.tail))
            first = False
            for block in _blocks(found, options.timestamps):
                if budget is not None and len(block) >= budget:
                    yield block[:budget]
                    return
                budget = None if budget is None else budget - len(block)
                yield block
            if last or watch is None:
                return
            await _first(watch.changed, ended)
    finally:
        if watch is not None:
            watch.close()
        lines.close()


def _blocks(lines: Iterator[bytes], timestamps: bool) -> Iterator[bytes]:
    block = bytearray()
    for each in lines:
        block += _text(each, timestamps)
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
