"""What is counted: loads of revisions for the autoscaler, and the metrics of functions. Cheap enough for every call."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING

from faaslite.api.wire import Load, Report

if TYPE_CHECKING:
    from gateway.worker.concurrency import Revision

__all__ = ["BOUNDS", "FIRST_BOUND", "FunctionStats", "RevisionLoad", "Stats"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram's buckets, in seconds."""
FIRST_BOUND = BOUNDS[0]


class RevisionLoad:
    """The exact time-average of the calls in flight and waiting, with one addition per arrival and departure.

    The integral of N(t) over [a, b] is N(b)*b - N(a)*a - (sum of arrival times) + (sum of departure times), so `weight`
    collects the sums and no change of N has to touch a running product.
    """

    __slots__ = ("_since", "active", "requests", "weight")

    def __init__(self, now: float) -> None:
        self.active = 0
        self.requests = 0
        self.weight = 0.0
        self._since = now

    def arrive(self, now: float) -> None:
        self.active += 1
        self.requests += 1
        self.weight -= now

    def leave(self, now: float) -> None:
        self.active -= 1
        self.weight += now

    def take(self, now: float) -> tuple[float, int]:
        """(average since the last take, arrivals since), and begin anew."""
        span = now - self._since
        area = self.weight + self.active * now
        average = max(area / span, 0.0) if span > 0 else float(self.active)
        requests = self.requests
        self._since = now
        self.weight = -self.active * now
        self.requests = 0
        return average, requests


class Durations:
    """A histogram over `BOUNDS`."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class FunctionStats:
    """Totals of one function since the worker's start. `codes` by hundreds; 499 (client gone) counts as 4xx. `received` and `sent` are bytes of
    bodies, as clients sent and got them. `phases` are those of cold starts, from the first call that waited: until there was a Pod for it
    (`scheduling`), and from there until that was ready (`starting`)."""

    __slots__ = ("buckets", "codes", "cold_starts", "name", "namespace", "phases", "received", "seconds", "sent")

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.codes = [0] * 6
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.cold_starts = 0
        self.phases: dict[str, Durations] = {}
        self.received = 0
        self.sent = 0

    def count(self, status: int, seconds: float, received: int = 0, sent: int = 0) -> None:
        self.codes[status // 100] += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.received += received
        self.sent += sent

    def started(self, scheduling: float, starting: float) -> None:
        """There is an instance where there was none. Seconds."""
        for phase, seconds in (("scheduling", scheduling), ("starting", starting)):
            self.phases.setdefault(phase, Durations()).add(seconds)


class Stats:
    """All functions' totals, and the periodic report."""

    def __init__(self, now: float) -> None:
        self._functions: dict[tuple[str, str], FunctionStats] = {}
        self._reported = now

    def function(self, namespace: str, name: str) -> FunctionStats:
        key = (namespace, name)
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = FunctionStats(namespace, name)
        return found

    def functions(self) -> Iterable[FunctionStats]:
        return self._functions.values()

    def forget(self, namespace: str, name: str) -> None:
        """The function was deleted."""
        self._functions.pop((namespace, name), None)

    def report(self, revisions: Iterable[Revision], now: float) -> Report:
        """What happened since the last report, of revisions with calls."""
        loads = []
        for revision in revisions:
            load = revision.load
            average, requests = load.take(now)
            if average > 0 or requests or load.active:
                loads.append(Load(revision.key, average, requests, len(revision.waiting)))
        seconds = now - self._reported
        self._reported = now
        return Report(seconds, loads)
