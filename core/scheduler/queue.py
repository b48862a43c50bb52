"""Pods that wait for a node: a queue by priority, and two places for Pods that found none.

A Pod that failed is *unschedulable* until an event that may help one of the plugins which refused it, then it waits for the end of
its back-off (1 s, doubled with each attempt, 10 s at most) and returns. Time is an argument; nothing here has a timer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from core.api.views import Pod
from core.scheduler.framework import ClusterEvent

__all__ = ["QueuedPod", "SchedulingQueue", "backoff"]

INITIAL_BACKOFF = 1.0
MAX_BACKOFF = 10.0
LONGEST_WAIT = 300.0
"""Seconds after which an unschedulable Pod is tried again without an event, in case that one was not thought of."""


def backoff(attempts: int) -> float:
    """Seconds to wait after that many failed attempts."""
    return min(INITIAL_BACKOFF * 2.0 ** max(attempts - 1, 0), MAX_BACKOFF)


@dataclass(slots=True)
class QueuedPod:
    """A Pod in the queue. `failed_at` is the time of the last attempt, `refused_by` the plugins that refused it then."""

    pod: Pod
    added_at: float
    attempts: int = 0
    failed_at: float = 0.0
    refused_by: frozenset[str] = frozenset()
    where: str = field(default="")

    @property
    def ready_at(self) -> float:
        return self.failed_at + backoff(self.attempts) if self.attempts else 0.0


class SchedulingQueue:
    """`helped_by` says for each plugin which events may help; a name that isn't in it is helped by all."""

    def __init__(self, helped_by: Mapping[str, frozenset[ClusterEvent]] | None = None) -> None:
        self._helped_by = helped_by or {}
        self._known: dict[str, QueuedPod] = {}
        self._active: list[tuple[int, float, int, str, QueuedPod]] = []
        self._waiting: list[tuple[float, int, str, QueuedPod]] = []
        self._unschedulable: dict[str, QueuedPod] = {}
        self._sequence = count()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key: str) -> QueuedPod | None:
        return self._known.get(key)

    def add(self, pod: Pod, now: float) -> None:
        """A new Pod, or a changed one; a change to what the scheduler reads lets an unschedulable Pod try again."""
        queued = self._known.get(pod.key)
        if queued is None:
            queued = self._known[pod.key] = QueuedPod(pod, now)
            self._activate(pod.key, queued)
            return
        same = queued.pod.spec == pod.spec and queued.pod.metadata.labels == pod.metadata.labels
        queued.pod = pod
        if not same and queued.where == "unschedulable":
            self._release(pod.key, queued, now)

    def remove(self, key: str) -> None:
        queued = self._known.pop(key, None)
        if queued is not None:
            queued.where = ""
            self._unschedulable.pop(key, None)

    def pop(self, now: float) -> QueuedPod | None:
        """The Pod to schedule next; it leaves the queue. None where none is ready."""
        self._end_backoffs(now)
        while self._active:
            *_, key, queued = heapq.heappop(self._active)
            if queued.where == "active" and self._known.get(key) is queued:
                del self._known[key]
                queued.where = ""
                return queued
        return None

    def park(self, queued: QueuedPod, now: float, refused_by: frozenset[str]) -> None:
        """An attempt found no node."""
        self._failed(queued, now)
        queued.refused_by = refused_by
        queued.where = "unschedulable"
        self._unschedulable[queued.pod.key] = queued

    def retry(self, queued: QueuedPod, now: float) -> None:
        """An attempt failed for a reason of the moment (the binding was refused): try again after the back-off."""
        self._failed(queued, now)
        self._release(queued.pod.key, queued, now)

    def _failed(self, queued: QueuedPod, now: float) -> None:
        queued.attempts += 1
        queued.failed_at = now
        self._known[queued.pod.key] = queued

    def on_event(self, event: ClusterEvent, now: float, helps: Callable[[Pod], bool] | None = None) -> int:
        """Something happened that may help; returns how many Pods will try again because of it.

        `helps` looks closer where that is cheap.
        """
        released = 0
        for key, queued in list(self._unschedulable.items()):
            if self._may_help(event, queued) and (helps is None or helps(queued.pod)):
                self._release(key, queued, now)
                released += 1
        return released

    def _may_help(self, event: ClusterEvent, queued: QueuedPod) -> bool:
        if not queued.refused_by:
            return True
        return any(name not in self._helped_by or event in self._helped_by[name] for name in queued.refused_by)

    def _activate(self, key: str, queued: QueuedPod) -> None:
        queued.where = "active"
        entry = (-queued.pod.spec.priority, queued.added_at, next(self._sequence), key, queued)
        heapq.heappush(self._active, entry)

    def _release(self, key: str, queued: QueuedPod, now: float) -> None:
        self._unschedulable.pop(key, None)
        if queued.ready_at <= now:
            self._activate(key, queued)
        else:
            queued.where = "waiting"
            heapq.heappush(self._waiting, (queued.ready_at, next(self._sequence), key, queued))

    def _end_backoffs(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, _, key, queued = heapq.heappop(self._waiting)
            if queued.where == "waiting" and self._known.get(key) is queued:
                self._activate(key, queued)
        if self._unschedulable:
            # Kept in order of failure, so the first is the oldest.
            for key, queued in list(self._unschedulable.items()):
                if queued.failed_at + LONGEST_WAIT > now:
                    break
                self._release(key, queued, now)

    def next_at(self) -> float | None:
        """When `pop` may have something that it hasn't now: the end of a back-off. None where only events help."""
        while self._waiting and not (
            self._waiting[0][3].where == "waiting" and self._known.get(self._waiting[0][2]) is self._waiting[0][3]
        ):
            heapq.heappop(self._waiting)
        times = [self._waiting[0][0]] if self._waiting else []
        if self._unschedulable:
            times.append(next(iter(self._unschedulable.values())).failed_at + LONGEST_WAIT)
        return min(times, default=None)
