"""What the supervisor knows of a process that it keeps: its row of the table, its state, when it may start again."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BACKOFF_FIRST",
    "BACKOFF_LAST",
    "HOPELESS",
    "Child",
    "ProcessSpec",
    "ProcessState",
    "restart_delay",
    "startable",
]

BACKOFF_FIRST = 0.1
BACKOFF_LAST = 10.0
HOPELESS = 5
"""Starts that fail in a row, with never a good one, after which there is no use in going on: 1.5 s of waiting."""
_STEADY = 30.0
"""Seconds of uptime after which a crash counts as the first again."""


class ProcessState(enum.Enum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the platform.

    `main` runs in the forked child, with the descriptor to report readiness on; it returns when the process is to end.
    `after` names processes that must be ready before this one starts. `grace` is the seconds from TERM to KILL.
    """

    name: str
    main: Callable[[int], None]
    after: Sequence[str] = ()
    grace: float = 10.0


@dataclass(slots=True)
class Child:
    """A process and what has become of it. Times are of the monotonic clock, in seconds."""

    spec: ProcessSpec
    state: ProcessState = ProcessState.WAITING
    pid: int = 0
    started_at: float = 0.0
    ready_at: float = 0.0
    due_at: float = 0.0
    kill_at: float = 0.0
    restarts: int = 0
    failures: int = 0
    ever_ready: bool = False
    report: bytearray = field(default_factory=bytearray)
    reader: int = -1
    last_exit: str = ""

    def describe(self, now: float) -> dict[str, Any]:
        """For `faas status`."""
        found: dict[str, Any] = {
            "name": self.spec.name,
            "state": self.state.value,
            "pid": self.pid or None,
            "restarts": self.restarts,
            "uptime": round(now - self.started_at, 1) if self.pid else 0.0,
        }
        if self.last_exit:
            found["lastExit"] = self.last_exit
        return found


def restart_delay(failures: int, uptime: float) -> tuple[int, float]:
    """After an exit: (failures in a row, seconds to wait). Doubles from 0.1 s to 10 s; 30 s of uptime start over."""
    failures = 1 if uptime >= _STEADY else failures + 1
    return failures, min(BACKOFF_FIRST * 2 ** (failures - 1), BACKOFF_LAST)


def startable(children: Sequence[Child], now: float) -> list[Child]:
    """Those that wait, are due, and whose predecessors are (or once were) ready."""
    done = {each.spec.name for each in children if each.ever_ready}
    return [
        each
        for each in children
        if each.state is ProcessState.WAITING and each.due_at <= now and all(name in done for name in each.spec.after)
    ]
