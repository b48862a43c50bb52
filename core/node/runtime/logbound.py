"""Bounds a log file that is appended to, so that a Pod that talks without end doesn't fill its node's disk.

What is too much goes at the beginning: that part of the file becomes a hole (fallocate(2)), which takes no space on the disk. So whatever
reads the file, or follows it, needs not look for another one; it begins where the first data is, and whole lines begin after that.
"""

from __future__ import annotations

import ctypes
import os

from core.node.runtime.sandboxer.isolation.syscalls import libc

__all__ = ["KEPT", "STEP", "Bound"]

KEPT = 16 << 20
"""Bytes of a log that stay at least."""
STEP = 4 << 20
"""Bytes that are given up at a time."""
_PAGE = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class Bound:
    """Of the file that `descriptor` is open for appending to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._lost = 0

    def grown(self, count: int) -> None:
        """So many bytes were appended."""
        self._size += count
        if self._size - self._lost > KEPT + STEP:
            self._lose(self._size - KEPT)

    def _lose(self, end: int) -> None:
        end -= end % _PAGE
        begin, length = ctypes.c_long(self._lost), ctypes.c_long(end - self._lost)
        if libc.fallocate(self._descriptor, _KEEP_SIZE | _PUNCH_HOLE, begin, length) != 0:
            os.ftruncate(self._descriptor, 0)  # a file system without holes: start over
            self._size = end = 0
        self._lost = end
