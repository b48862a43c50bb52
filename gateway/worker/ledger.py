"""What the gateway workers of one machine know of a namespace together: a small file that all of them map, and change under its lock.

It holds the state of one token bucket, and a column per worker with how many calls it has in flight. Only its worker writes a column; one whose worker
is dead counts for nothing, so that a killed worker holds no slots. The lock (flock) is the kernel's: it is free when its holder dies, and is held for a
few loads and stores. Nothing here is kept for later: times are those of the machine's monotonic clock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Ledger"]

_TIME = struct.Struct("<d")
_COLUMN = struct.Struct("<III")
"""Process id, when it was started (two processes have the same id at different times), calls in flight."""
_IN_FLIGHT = struct.Struct("<I")
_COLUMNS = 64
_SIZE = 8 + _COLUMNS * _COLUMN.size


class Ledger:
    """`path` is made where it isn't there (its folder too); None for a ledger of this worker alone. Raises OSError."""

    def __init__(self, path: Path | None) -> None:
        self._own = os.getpid()
        self._file = -1
        if path is None:
            self._map = mmap.mmap(-1, _SIZE)
        else:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with self.locked():
                    if os.fstat(self._file).st_size < _SIZE:
                        os.ftruncate(self._file, _SIZE)
                self._map = mmap.mmap(self._file, _SIZE)
            except OSError:
                os.close(self._file)
                raise
        with self.locked():
            self._column = self._claim()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or changes it meanwhile. Must not be held over anything that waits."""
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @property
    def next_call(self) -> float:
        """When the bucket is full again, on the monotonic clock (the theoretical arrival time of GCRA)."""
        found: float = _TIME.unpack_from(self._map, 0)[0]
        return found

    @next_call.setter
    def next_call(self, value: float) -> None:
        _TIME.pack_into(self._map, 0, value)

    @property
    def in_flight(self) -> int:
        """This worker's calls."""
        found: int = _IN_FLIGHT.unpack_from(self._map, self._column + 8)[0]
        return found

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        _IN_FLIGHT.pack_into(self._map, self._column + 8, value)

    def total(self) -> int:
        """The calls in flight of all workers."""
        return sum(count for _, _, _, count in self._columns() if count)

    def forget_dead(self) -> int:
        """Take back what dead workers had in flight. Returns the calls that are left, as `total`."""
        left = 0
        for at, pid, started, count in self._columns():
            if count and _started(pid) != started:
                _COLUMN.pack_into(self._map, at, 0, 0, 0)
            else:
                left += count
        return left

    def close(self) -> None:
        """The worker's calls count no longer."""
        _COLUMN.pack_into(self._map, self._column, 0, 0, 0)
        self._map.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _columns(self) -> Iterator[tuple[int, int, int, int]]:
        """Of each worker: where its column is, process id, start, calls in flight."""
        for number in range(_COLUMNS):
            at = 8 + number * _COLUMN.size
            pid, started, count = _COLUMN.unpack_from(self._map, at)
            if pid:
                yield at, pid, started, count

    def _claim(self) -> int:
        for at in range(8, _SIZE, _COLUMN.size):
            pid, started, _ = _COLUMN.unpack_from(self._map, at)
            if not pid or _started(pid) != started:
                _COLUMN.pack_into(self._map, at, self._own, _started(self._own), 0)
                return at
        raise OSError(f"there are {_COLUMNS} gateway workers on this machine already")


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since boot (proc(5), modulo 2^32); 0 where there is none, or one that has ended and waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19]) & 0xFFFFFFFF
