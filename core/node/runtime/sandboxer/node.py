"""What every part of a sandboxer shares: its settings, its folders, its children."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .cgroups import Cgroups
from .images import RuntimeImage
from .state import Processes, UserIds

__all__ = ["Node", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """`idle` is how many seconds a zygote is kept unused; `parked` how many children wait at least, `parked_max` at most."""

    idle: float = 900.0
    parked: int = 2
    parked_max: int = 8
    parked_window: float = 10.0
    births_at_once: int = 64
    without: frozenset[str] = frozenset()


@dataclass(slots=True)
class Node:
    """`isolation` is what is held; `helpers` runs the few calls that block for long (moves between control groups)."""

    settings: Settings
    folder: Path
    images: dict[str, RuntimeImage]
    isolation: list[str]
    user_ids: UserIds
    processes: Processes
    cgroups: Cgroups | None
    loop: asyncio.AbstractEventLoop
    builders: dict[str, RuntimeImage] = field(default_factory=dict)
    """By the image that they build layers for; each is found when it is first asked for."""
    pid: int = field(default_factory=os.getpid)
    helpers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="cgroups"))
    _exits: dict[int, Callable[[int], None]] = field(default_factory=dict)
    _unclaimed: dict[int, int] = field(default_factory=dict)

    @property
    def mounts(self) -> bool:
        return "mount" in self.isolation

    def watch(self, pid: int, on_exit: Callable[[int], None]) -> None:
        """Call `on_exit` with the exit code (128 + signal where one ended it) once the child ends, or has ended."""
        self.processes.add(pid)
        self._exits[pid] = on_exit
        if pid in self._unclaimed:
            self._ended(pid, self._unclaimed.pop(pid))

    def reap(self) -> None:
        """Collect every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._ended(pid, 128 - code if code < 0 else code)

    def _ended(self, pid: int, code: int) -> None:
        on_exit = self._exits.pop(pid, None)
        if on_exit is None:
            # A parked child that died before its message was read, or an orphan of a Pod.
            if len(self._unclaimed) > 1024:
                self._unclaimed.clear()
            self._unclaimed[pid] = code
            return
        self.processes.remove(pid)
        on_exit(code)
