"""The time that a request has: a minute, or the `timeout` that it asks for where that is less. Watches and streams have none.

One timer looks at all of them once a second, so that a request costs an entry in a table and no timer of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

from core.apiserver.dispatch import RequestInfo
from core.apiserver.flow.control import long_running
from core.clock import monotonic
from core.errors import BadRequest

__all__ = ["REQUEST_SECONDS", "Deadline", "Deadlines", "expired", "seconds_of"]

REQUEST_SECONDS = 60.0
_LOOK = 1.0
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """A duration as Go writes it (`1m30s`), in seconds. Raises ValueError."""
    at, total = 0, 0.0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            break
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text or at < len(text):
        raise ValueError(f"{text!r} is no duration")
    return total


class Deadline:
    """`expired`: its task was cancelled because its time was over."""

    __slots__ = ("at", "expired", "task")

    def __init__(self, at: float, task: asyncio.Task[object]) -> None:
        self.at = at
        self.task = task
        self.expired = False


class Deadlines:
    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, info: RequestInfo, query: Mapping[str, str], now: float) -> Deadline | None:
        """Of the present task's request. Raises `BadRequest` for a `timeout` that is none."""
        if long_running(info):
            return None
        seconds = REQUEST_SECONDS
        if text := query.get("timeout"):
            try:
                # Zero asks for the most there is, as in Kubernetes.
                seconds = min(seconds_of(text) or REQUEST_SECONDS, REQUEST_SECONDS)
            except ValueError:
                raise BadRequest(
                    f'invalid timeout specified in the request URL - time: invalid duration "{text}"'
                ) from None
        task = asyncio.current_task()
        if task is None:
            return None
        made = Deadline(now + seconds, task)
        self._running.add(made)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(min(_LOOK, seconds), self._look)
        return made

    def end(self, deadline: Deadline | None) -> None:
        if deadline is not None:
            self._running.discard(deadline)

    def look(self, now: float) -> None:
        """Cancel whatever is over its time."""
        for each in tuple(self._running):
            if each.at <= now:
                each.expired = True
                self._running.discard(each)
                each.task.cancel()

    def _look(self) -> None:
        self._timer = None
        self.look(self._clock())
        if self._running:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def expired(deadline: Deadline | None) -> bool:
    return deadline is not None and deadline.expired
