"""What gateways reported, averaged over windows of time. Pure: `now` (seconds on any one clock) is always an argument.

The averages are those of Knative's KPA (a stable window and a panic window on one-second buckets,
https://knative.dev/docs/serving/autoscaling/kpa-specific/), with two differences that reports make possible: a report says
which period it covers, so its load is spread over just those buckets, and a window ends where the last report
ended, so that the age of a report doesn't dilute it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from faaslite.api.wire import Load

__all__ = ["PANIC_SHARE", "Loads", "Seen", "Window"]

PANIC_SHARE = 0.1
"""The panic window as a part of the stable window (KPA's `panic-window-percentage: 10`)."""
SHORTEST = 1.0
"""Seconds: no average is taken over less, or one early report would weigh like a whole window."""
DEFAULT_SPAN = 60.0
SILENCE = 3.0
"""Seconds without a report after which a connected gateway's windows end at `now`: its load decays instead of standing still."""


class Window:
    """Call-seconds and arrivals of one revision at one gateway, in buckets of one second."""

    __slots__ = ("_buckets", "_first", "span")

    def __init__(self, span: float) -> None:
        self.span = span
        self._buckets: deque[list[float]] = deque()  # [second, call-seconds, arrivals], oldest first
        self._first = 0.0

    @property
    def empty(self) -> bool:
        return not self._buckets

    def record(self, end: float, seconds: float, concurrency: float, requests: float) -> None:
        """Add the load of the period of `seconds` that ended at `end`; periods must not go back in time."""
        seconds = max(min(seconds, self.span), 0.001)
        start = end - seconds
        if not self._buckets or start - self._buckets[-1][0] > self.span:
            self._buckets.clear()
            self._first = start
        at = math.floor(start)
        while at < end:
            part = min(at + 1, end) - max(at, start)
            self._add(at, concurrency * part, requests * part / seconds)
            at += 1
        self.trim(end)

    def _add(self, second: int, load: float, arrivals: float) -> None:
        if self._buckets and self._buckets[-1][0] >= second:
            bucket = self._buckets[-1]
            bucket[1] += load
            bucket[2] += arrivals
        else:
            self._buckets.append([second, load, arrivals])

    def trim(self, now: float) -> None:
        """Forget what no window that ends at `now` or later can hold."""
        while self._buckets and self._buckets[0][0] + 1 <= now - self.span:
            self._buckets.popleft()

    def averages(self, end: float, span: float) -> tuple[float, float]:
        """(calls in flight, calls per second), time-averaged over the `span` seconds before `end`.

        Before the window is full the average is over the time since the first record; a bucket that the window begins
        in counts by the part of it that is inside.
        """
        start = end - span
        load = arrivals = 0.0
        for second, bucket_load, bucket_arrivals in reversed(self._buckets):
            if second + 1 <= start:
                break
            if second >= end:
                continue
            part = 1.0 if second >= start else second + 1 - start
            load += bucket_load * part
            arrivals += bucket_arrivals * part
        elapsed = max(min(span, end - self._first), SHORTEST)
        return load / elapsed, arrivals / elapsed


class Seen(NamedTuple):
    """One revision over all gateways. `stable` and `panic` are in the unit of the metric that was asked for.

    `in_flight` is the concurrency of the latest reports, `waiting` the calls that wait now, `last_active` when it last had
    a call (None: never).
    """

    stable: float
    panic: float
    in_flight: float
    waiting: int
    last_active: float | None


NOTHING = Seen(0.0, 0.0, 0.0, 0, None)


class _Share:
    """One gateway's numbers of one revision."""

    __slots__ = ("concurrency", "waiting", "window")

    def __init__(self, span: float) -> None:
        self.window = Window(span)
        self.concurrency = 0.0
        self.waiting = 0


class _Gateway:
    __slots__ = ("reported", "shares")

    def __init__(self) -> None:
        self.reported = -math.inf
        self.shares: dict[str, _Share] = {}


class Loads:
    """Every revision's load, as the sum over the gateways that are connected."""

    def __init__(self) -> None:
        self._spans: dict[str, float] = {}
        self._gateways: dict[str, _Gateway] = {}
        self._active: dict[str, float] = {}

    def keep(self, revision: str, span: float) -> None:
        """How many seconds of `revision` are remembered: its stable window."""
        self._spans[revision] = span
        for gateway in self._gateways.values():
            if share := gateway.shares.get(revision):
                share.window.span = span

    def _share(self, gateway: _Gateway, revision: str) -> _Share:
        share = gateway.shares.get(revision)
        if share is None:
            share = gateway.shares[revision] = _Share(self._spans.get(revision, DEFAULT_SPAN))
        return share

    def report(self, gateway: str, now: float, seconds: float, loads: Iterable[Load]) -> None:
        """A gateway's report, received at `now`; a revision that it leaves out had no calls."""
        found = self._gateways.setdefault(gateway, _Gateway())
        for share in found.shares.values():
            share.concurrency, share.waiting = 0.0, 0
        # A report can cover no time that an earlier one covered.
        seconds = min(seconds, now - found.reported) if found.reported > -math.inf else seconds
        found.reported = now
        for load in loads:
            share = self._share(found, load.revision)
            concurrency, requests = max(load.concurrency, 0.0), max(load.requests, 0)
            share.concurrency, share.waiting = concurrency, max(load.queued, 0)
            share.window.record(now, seconds, concurrency, requests)
            if concurrency > 0 or requests or load.queued > 0:
                self._active[load.revision] = now

    def poke(self, gateway: str, now: float, revision: str, queued: int) -> None:
        """Calls wait; the number stands until the gateway's next report."""
        found = self._gateways.setdefault(gateway, _Gateway())
        share = self._share(found, revision)
        share.waiting = max(queued, 1)
        self._active[revision] = now

    def drop(self, gateway: str) -> None:
        """The gateway is gone, and its calls with it. When revisions were last active is remembered."""
        self._gateways.pop(gateway, None)

    def forget(self, revision: str) -> None:
        """The revision is gone."""
        self._active.pop(revision, None)
        self._spans.pop(revision, None)
        for gateway in self._gateways.values():
            gateway.shares.pop(revision, None)

    def prune(self, now: float) -> None:
        """Free what is older than any window that can be asked for."""
        for gateway in self._gateways.values():
            for revision, share in list(gateway.shares.items()):
                share.window.trim(now)
                if share.window.empty and not share.waiting:
                    del gateway.shares[revision]

    @property
    def gateways(self) -> int:
        return len(self._gateways)

    @property
    def revisions(self) -> set[str]:
        """Those that a connected gateway has numbers of."""
        return {revision for gateway in self._gateways.values() for revision in gateway.shares}

    def observe(self, revision: str, now: float, stable: float, metric: str = "concurrency") -> Seen:
        """The sums at `now`, with a stable window of `stable` seconds; `metric` is `concurrency` or `rps`."""
        which = 1 if metric == "rps" else 0
        total_stable = total_panic = in_flight = 0.0
        waiting = 0
        for gateway in self._gateways.values():
            share = gateway.shares.get(revision)
            if share is None:
                continue
            waiting += share.waiting
            if share.window.empty:
                continue
            end = gateway.reported if now - gateway.reported <= SILENCE else now
            total_stable += share.window.averages(end, stable)[which]
            total_panic += share.window.averages(end, stable * PANIC_SHARE)[which]
            in_flight += share.concurrency
        return Seen(total_stable, total_panic, in_flight, waiting, self._active.get(revision))
