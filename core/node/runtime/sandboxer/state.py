"""What a sandboxer remembers between its lives: the user id of each namespace, and which processes it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

__all__ = ["Processes", "UserIds", "start_time"]

FIRST_UID = 2_000_000_000
_JOURNAL_SLACK = 1000


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
    """A journal of the processes of ours that run, so that the next sandboxer can end what this one left.

    A line `+PID START` for each that begins and `-PID` for each that ended; it is written anew once most of it is of the past.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: dict[int, int] = _read_journal(path)
        self._lines = 0
        self._file = -1

    def add(self, pid: int) -> None:
        started = start_time(pid)
        if started is not None:
            self._running[pid] = started
            self._write(f"+{pid} {started}\n")

    def remove(self, pid: int) -> None:
        if self._running.pop(pid, None) is not None:
            self._write(f"-{pid}\n")

    def kill_leftovers(self) -> list[int]:
        """KILL what is still running, of an earlier life or of this one, with its process groups: the pids."""
        killed: list[int] = []
        for pid, started in self._running.items():
            if start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                if _leads(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
        self._running.clear()
        self._rewrite()
        return killed

    def close(self) -> None:
        """Let go of the journal; the next write opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, line: str) -> None:
        if self._file < 0 or self._lines > 2 * len(self._running) + _JOURNAL_SLACK:
            self._rewrite()  # with this change, which is in the table already
            return
        os.write(self._file, line.encode())
        self._lines += 1

    def _rewrite(self) -> None:
        self.close()
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"+{pid} {started}\n" for pid, started in self._running.items()))
        fresh.replace(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(self._running)


def _read_journal(path: Path) -> dict[int, int]:
    """What runs as the journal has it: pid and start. A last line that was cut short counts for nothing."""
    running: dict[int, int] = {}
    if not path.exists():
        return running
    for line in path.read_text().split("\n")[:-1]:
        if line.startswith("+"):
            pid, started = line[1:].split()
            running[int(pid)] = int(started)
        elif line.startswith("-"):
            running.pop(int(line[1:]), None)
    return running


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
