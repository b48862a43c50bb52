"""Where a request goes: an immutable record per function, rebuilt when the function changes; instances follow Pods.

`resolve` is the one place that knows of anything but `/function/NAME`; hosts and custom routes of functions belong there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from random import Random

from core.api import views
from faaslite.api.names import LABEL_FUNCTION, LABEL_REVISION, PORT
from gateway.worker.concurrency import UNLIMITED, Instance, Revision
from gateway.worker.pool import Pool
from gateway.worker.stats import FunctionStats, Stats
from gateway.worker.views import Function

__all__ = ["Place", "Route", "Router"]


class Place(enum.Enum):
    """Where requests go that aren't calls of a function."""

    NOWHERE = 0
    JOBS = 1
    HEALTH = 2
    METRICS = 3


class Route:
    """A function as the router knows it. `single` is its revision where there is just one; `message` says why there is none."""

    __slots__ = ("_shares", "_total", "message", "single", "stats", "timeouts")

    def __init__(self, stats: FunctionStats, shares: Iterable[tuple[Revision, int, float]], message: str) -> None:
        """`shares`: revision, percent, timeout in seconds."""
        self.stats = stats
        self.message = message
        self._shares: list[tuple[int, Revision]] = []
        self._total = 0
        self.timeouts: dict[str, float] = {}
        for revision, percent, timeout in shares:
            self.timeouts[revision.key] = timeout
            if percent > 0:
                self._total += percent
                self._shares.append((self._total, revision))
        self.single = self._shares[0][1] if len(self._shares) == 1 else None

    def choose(self, random: Random) -> Revision | None:
        """One of the revisions, as often as its percentage says; None where there is none."""
        if self.single is not None or not self._shares:
            return self.single
        point = random.random() * self._total
        for bound, revision in self._shares:
            if point < bound:
                return revision
        return self._shares[-1][1]

    @property
    def revisions(self) -> list[Revision]:
        return [revision for _, revision in self._shares]


class Router:
    """`on_instance(revision)` is called when a revision has a new instance or a new limit, `make_pool(host, port)` makes
    the connections to an instance."""

    def __init__(
        self,
        stats: Stats,
        *,
        timeout: float,
        clock: Callable[[], float],
        make_pool: Callable[[str, int], Pool],
        on_instance: Callable[[Revision], None],
    ) -> None:
        self.functions: dict[bytes, Route] = {}
        """By what stands in the path: `name.namespace`, and `name` alone for the namespace `default`."""
        self.revisions: dict[str, Revision] = {}
        self._stats = stats
        self._timeout = timeout
        self._clock = clock
        self._make_pool = make_pool
        self._on_instance = on_instance

    def resolve(self, target: bytes) -> Place:
        """For targets that aren't `/function/NAME...`."""
        path = target.partition(b"?")[0]
        if path == b"/healthz":
            return Place.HEALTH
        if path == b"/metrics":
            return Place.METRICS
        if path.startswith((b"/system/", b"/async-function/")):
            return Place.JOBS
        return Place.NOWHERE

    # Functions

    def on_function(self, old: Function | None, new: Function | None) -> None:
        """Handler of the informer on Functions."""
        function = new or old
        if function is None:
            return
        keys = _keys(function)
        before = self.functions.get(keys[0])
        kept: list[Revision] = []
        if new is not None:
            route = self._route(new)
            kept = route.revisions
            self.functions.update(dict.fromkeys(keys, route))
        else:
            for key in keys:
                self.functions.pop(key, None)
            self._stats.forget(function.namespace, function.name)
        for revision in before.revisions if before else ():
            if revision not in kept:
                revision.routed = False
                self.sweep(revision)

    def _route(self, function: Function) -> Route:
        shares = []
        for target in function.status.traffic:
            revision = self._revision(f"{function.namespace}/{target.revision}", function.namespace, function.name)
            revision.limit = target.concurrency or UNLIMITED
            revision.routed = target.percent > 0
            shares.append((revision, target.percent, target.timeout or self._timeout))
            self._on_instance(revision)
        condition = function.ready
        message = condition.message if condition and condition.message else "the function has no ready revision yet"
        return Route(self._stats.function(function.namespace, function.name), shares, message)

    # Instances

    def on_pod(self, old: views.Pod | None, new: views.Pod | None) -> None:
        """Handler of the informer on Pods of functions."""
        pod = new or old
        if pod is None or LABEL_REVISION not in pod.metadata.labels:
            return
        meta = pod.metadata
        revision = self._revision(
            f"{meta.namespace}/{meta.labels[LABEL_REVISION]}", meta.namespace, meta.labels.get(LABEL_FUNCTION, "")
        )
        alive = new is not None and new.metadata.deletion_timestamp is None and not new.terminal
        ready = alive and new is not None and new.ready and bool(new.status.pod_ip)
        known = revision.instances.get(pod.key)
        address = f"{meta.uid} {pod.status.pod_ip}"
        if known is not None and (not ready or known.identity != address):
            revision.remove(pod.key)
            known.pool.retire()
            known = None
        if ready and known is None:
            revision.starting.discard(pod.key)
            revision.add(Instance(pod.key, self._make_pool(pod.status.pod_ip, PORT), address))
            self._on_instance(revision)
        elif ready and known is not None and revision.restore(known):
            self._on_instance(revision)
        elif alive and not ready:
            revision.starting.add(pod.key)
        elif not alive:
            revision.starting.discard(pod.key)
            self.sweep(revision)

    def sweep(self, revision: Revision) -> None:
        """Forget the revision if nothing needs it any more."""
        if revision.idle:
            self.revisions.pop(revision.key, None)

    def _revision(self, key: str, namespace: str, function: str) -> Revision:
        found = self.revisions.get(key)
        if found is None:
            found = self.revisions[key] = Revision(key, namespace, function, self._clock())
        return found


def _keys(function: Function) -> list[bytes]:
    keys = [f"{function.name}.{function.namespace}".encode()]
    if function.namespace == "default":
        keys.append(function.name.encode())
    return keys
