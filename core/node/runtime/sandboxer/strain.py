"""Which limits a running container has run into, found by looking at what the kernel counts now and then."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .zygotes import Child

__all__ = ["CALM_SECONDS", "LOOK_SECONDS", "Seen", "Strain", "look"]

LOOK_SECONDS = 5.0
"""Between two looks at the same container."""
CALM_SECONDS = 60.0
"""After which a limit that wasn't reached again is said to be kept."""
_LITTLE = 64 << 10
"""Bytes: with less than this a file system is full, though the last write was cut in two."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`killed` and `refused` only grow: processes that were killed for memory, forks and threads that there were too many of."""

    killed: int = 0
    refused: int = 0
    full: bool = False


class Strain:
    """One container's limits over time. Times are of any clock that goes on."""

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._last = Seen()
        self._since: dict[str, float] = {}

    def take(self, seen: Seen, now: float) -> tuple[str, ...]:
        """The reasons (`core.api.strain.STRAINS`) that hold after this look."""
        last, self._last = self._last, seen
        if seen == last and not self._since and not seen.full:
            return ()
        for reason, happened in (
            ("OOMKilled", seen.killed > last.killed),
            ("TooManyProcesses", seen.refused > last.refused),
            ("DiskFull", seen.full),
        ):
            if happened:
                self._since[reason] = now
            elif now - self._since.get(reason, now) > CALM_SECONDS:
                del self._since[reason]
        return tuple(sorted(self._since))


def look(child: Child) -> Seen:
    """What there is to see of a child's limits, as far as this node holds them."""
    killed = refused = 0
    if child.cgroup is not None:
        killed, refused = child.cgroup.oom_kills(), child.cgroup.forks_refused()
    return Seen(killed, refused, child.slot.mounted and _full(child.slot.host / "tmp"))


def _full(path: Path) -> bool:
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _LITTLE or (found.f_files > 0 and found.f_favail == 0)
