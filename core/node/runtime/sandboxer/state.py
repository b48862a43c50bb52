"""What a sandboxer remembers between its lives: the user id of each namespace, and which processes it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

__all__ = ["Processes", "UserIds", "start_time"]

FIRST_UID = 2_000_000_000


def _write(path: Path, document: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)


class UserIds:
    """A user id per namespace, never given to another one."""

    def __init__(self, path: Path, first: int = FIRST_UID) -> None:
        self._path = path
        self._first = first
        self._known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, namespace: str) -> int:
        """The namespace's id (also its group's), kept on disk before it is used."""
        if namespace not in self._known:
            self._known[namespace] = max(self._known.values(), default=self._first - 1) + 1
            _write(self._path, self._known)
        return self._known[namespace]


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid, its identity. None where there is none (a zombie is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


class Processes:
    """A file for each process of ours, so that the next sandboxer can end what this one left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int) -> None:
        started = start_time(pid)
        if started is not None:
            (self._folder / str(pid)).write_text(str(started))

    def remove(self, pid: int) -> None:
        (self._folder / str(pid)).unlink(missing_ok=True)

    def kill_leftovers(self) -> list[int]:
        """KILL what is still running of an earlier life, with its process groups: the pids."""
        killed: list[int] = []
        for path in self._folder.iterdir():
            pid = int(path.name)
            if start_time(pid) == int(path.read_text() or -1):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                if _leads(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
            path.unlink()
        return killed


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
