"""A container's log: what comes out of its pipes, as CRI lines in a file (kubernetes/cri-api, the kubelet's log format).

A log that has grown beyond its bound loses its beginning.
"""

from __future__ import annotations

import os
import time

from core.node.runtime.logbound import Bound

__all__ = ["LogFile"]

MAX_LINE = 16 << 10


class LogFile:
    """Appends `TIMESTAMP stdout|stderr F|P text`. A line longer than 16 KiB goes out in parts: P, ..., F."""

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._bound = Bound(self._descriptor)
        self._partial: dict[str, bytes] = {}
        self._begun: set[str] = set()

    def feed(self, stream: str, data: bytes, now: float) -> None:
        """`data` as it came from the pipe at `now` (seconds since the epoch)."""
        *lines, rest = (self._partial.pop(stream, b"") + data).split(b"\n")
        stamp = self._stamp(stream, now)
        out: list[bytes] = []
        for line in lines:
            self._parts(out, stamp, line)
            self._begun.discard(stream)
        while len(rest) > MAX_LINE:
            out.append(b"%bP %b\n" % (stamp, rest[:MAX_LINE]))
            rest = rest[MAX_LINE:]
            self._begun.add(stream)
        if rest:
            self._partial[stream] = rest
        self._write(b"".join(out))

    def close(self, now: float) -> None:
        """Write out lines that were never ended."""
        out = [b"%bF %b\n" % (self._stamp(stream, now), rest) for stream, rest in self._partial.items()]
        out += [b"%bF \n" % self._stamp(stream, now) for stream in self._begun if stream not in self._partial]
        self._partial.clear()
        self._begun.clear()
        self._write(b"".join(out))
        os.close(self._descriptor)

    @staticmethod
    def _parts(out: list[bytes], stamp: bytes, line: bytes) -> None:
        while len(line) > MAX_LINE:
            out.append(b"%bP %b\n" % (stamp, line[:MAX_LINE]))
            line = line[MAX_LINE:]
        out.append(b"%bF %b\n" % (stamp, line))

    @staticmethod
    def _stamp(stream: str, now: float) -> bytes:
        whole = int(now)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{text}.{int((now - whole) * 1e9):09d}Z {stream} ".encode()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._bound.grown(len(data))
