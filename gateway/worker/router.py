"""Where a request goes: an immutable record per function, rebuilt when the function changes; instances follow Pods.

What is asked for as `/function/NAME` is one look-up in `functions`. `find` is for all else: revisions and tags, hosts, custom routes, the
platform's own paths.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from core.api import views
from core.client.readiness import Hint
from faaslite.api.names import LABEL_FUNCTION, LABEL_REVISION, PORT, revision_name
from gateway.worker.concurrency import UNLIMITED, Instance, Revision
from gateway.worker.cors import Policy
from gateway.worker.http1 import RequestLine
from gateway.worker.paths import Paths
from gateway.worker.pool import Pool
from gateway.worker.quotas import Quota
from gateway.worker.stats import FunctionStats, Stats
from gateway.worker.views import Function

__all__ = ["Place", "Route", "Router"]


_ASYNC = b"/async-function/"
HINTS = 4096
UNCONFIRMED = 15.0
"""Seconds in which the API must say what a hint has said."""


class Place(enum.Enum):
    """Where requests go that aren't calls of a function."""

    NOWHERE = 0
    JOBS = 1
    HEALTH = 2
    METRICS = 3
    FREED = 4


class Route:
    """A function as the router knows it. `single` is its revision where there is just one; `message` says why there is none.
    `guarded`: a call needs a look at who calls, or from where, or at a `quota`. `direct` is the revision of calls that need neither a look nor a choice."""

    __slots__ = (
        "_shares", "_total", "aliases", "by_name", "cors", "direct", "guarded", "key", "keys", "message", "name", "namespace", "quota", "single", "stats",
        "tags", "visibility",
    )  # fmt: skip

    def __init__(self, stats: FunctionStats, shares: Iterable[tuple[Revision, int]], message: str) -> None:
        """`shares`: revision, percent."""
        self.stats = stats
        self.namespace = stats.namespace
        self.name = stats.name
        self.key = f"{stats.namespace}/{stats.name}"
        self.message = message
        self._shares: list[tuple[int, Revision]] = []
        self._total = 0
        for revision, percent in shares:
            if percent > 0:
                self._total += percent
                self._shares.append((self._total, revision))
        self.single = self._shares[0][1] if len(self._shares) == 1 else None
        self.visibility = "public"
        self.cors: Policy | None = None
        self.keys: dict[str, float] = {}
        """When the keys that may call it expire (seconds since the epoch, 0: never), by hash."""
        self.tags: dict[bytes, Revision] = {}
        self.by_name: dict[str, Revision] = {}
        self.aliases: list[bytes] = []
        """Under which further keys parts of it are found."""
        self.quota: Quota | None = None
        self.guarded = False
        self.direct = self.single

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
        return list(self.by_name.values())

    def only(self, revision: Revision) -> Route:
        """The same function, with all calls to one revision."""
        found = Route(self.stats, [(revision, 100)], self.message)
        found.visibility, found.cors, found.keys = self.visibility, self.cors, self.keys
        found.guard(self.quota)
        return found

    def guard(self, quota: Quota | None) -> None:
        """All that decides on it is known."""
        self.quota = quota
        self.guarded = self.visibility != "public" or self.cors is not None or quota is not None
        self.direct = None if self.guarded else self.single


class Router:
    """`on_instance(revision)` is called when a revision has a new instance or a new limit, `make_pool(host, port)` makes
    the connections to an instance; `on_deleted(revision)` is for those of a function that is gone, `quota_of(namespace)` says what limits its calls. `domain` is what functions' own
    hosts (`NAME.NAMESPACE.DOMAIN`) end in; "" for none."""

    def __init__(
        self,
        stats: Stats,
        *,
        timeout: float,
        clock: Callable[[], float],
        make_pool: Callable[[str, int], Pool],
        on_instance: Callable[[Revision], None],
        on_deleted: Callable[[Revision], None] = lambda revision: None,
        quota_of: Callable[[str], Quota | None] = lambda namespace: None,
        domain: str = "",
    ) -> None:
        self.functions: dict[bytes, Route] = {}
        """By what stands in the path: `name.namespace`, and `name` alone for the namespace `default`."""
        self.revisions: dict[str, Revision] = {}
        self._stats = stats
        self._timeout = timeout
        self._clock = clock
        self._make_pool = make_pool
        self._on_instance = on_instance
        self._on_deleted = on_deleted
        self._quota_of = quota_of
        self._domain = b"." + domain.lower().encode() if domain else b""
        self._paths = Paths()
        self._key_hashes: Counter[str] = Counter()
        self._hints: dict[str, Hint] = {}
        """What nodes of this machine say of Pods that the API doesn't say yet, by key."""

    def is_call(self, line: RequestLine) -> bool:
        """Whether the request is for a function, not for a component of the platform."""
        return line.name is not None or self._place(line.path) is Place.NOWHERE

    def find(self, line: RequestLine, host: bytes) -> Place | tuple[Route, bytes | None] | None:
        """For what isn't found by `functions[name]`: the route and the target that its instance gets (None: as the line says);
        None where a function is meant that isn't there."""
        if line.name is not None:
            route = self._alias(line.name)
            return None if route is None else (route, None)
        host = host.lower()
        if host[-1:] != b"]" and b":" in host:
            host = host.rpartition(b":")[0]
        if self._domain and host.endswith(self._domain):
            route = self._by_host(host[: -len(self._domain)])
            return None if route is None else (route, line.path)
        path = line.path.partition(b"?")[0]
        key = self._paths.find(host, path, line.method)
        if key is None:
            place = self._place(path)
            if place is not Place.NOWHERE:
                return place
            key = self._paths.find(b"", path, line.method)
        route = self.functions.get(key) if key is not None else None
        return Place.NOWHERE if route is None else (route, line.path)

    def async_route(self, line: RequestLine) -> Route | None:
        """The function that a call under `/async-function/` is for."""
        if not line.path.startswith(_ASYNC):
            return None
        name = line.path[len(_ASYNC) :].partition(b"?")[0].partition(b"/")[0]
        return self.functions.get(name) or self._alias(name)

    def knows_key(self, digest: str) -> bool:
        """Whether any function can be called with the key of this hash."""
        return digest in self._key_hashes

    def _place(self, path: bytes) -> Place:
        if path.startswith((b"/system/", _ASYNC)):
            return Place.JOBS
        path = path.partition(b"?")[0]
        if path == b"/healthz":
            return Place.HEALTH
        if path == b"/_/freed":
            return Place.FREED
        return Place.METRICS if path == b"/metrics" else Place.NOWHERE

    def _alias(self, name: bytes) -> Route | None:
        """`NAME:NUMBER` is a revision, `NAME@TAG` what bears the tag. Found once, it is found at once."""
        base, mark, which = name.partition(b":") if b":" in name else name.partition(b"@")
        route = self.functions.get(base)
        if route is None or not mark:
            return None
        revision: Revision | None
        if mark == b"@":
            revision = route.tags.get(which)
        else:
            if not which.isdigit() or len(which) > 9:
                return None
            revision = route.by_name.get(revision_name(route.name, int(which)))
        if revision is None:
            return None
        found = self.functions[name] = route.only(revision)
        route.aliases.append(name)
        return found

    def _by_host(self, label: bytes) -> Route | None:
        """`NAME.NAMESPACE`, with `TAG--` or `NUMBER--` before it for a part of the function."""
        route = self.functions.get(label) if b"." in label else None
        if route is None and b"--" in label and b"." in label:
            which, _, base = label.partition(b"--")
            name = base + (b":" if which.isdigit() else b"@") + which
            route = self.functions.get(name) or self._alias(name)
        return route

    # Functions

    def on_function(self, old: Function | None, new: Function | None) -> None:
        """Handler of the informer on Functions."""
        function = new or old
        if function is None or (old is not None and new is not None and _same_route(old, new)):
            return
        keys = _keys(function)
        before = self.functions.get(keys[0])
        kept: list[Revision] = []
        if before is not None:
            for alias in before.aliases:
                self.functions.pop(alias, None)
            self._key_hashes -= Counter(before.keys.keys())
        if new is not None:
            route = self._route(new)
            kept = route.revisions
            self.functions.update(dict.fromkeys(keys, route))
            self._paths.put(keys[0], new.metadata.creation_timestamp or "", new.spec.http.routes)
            self._key_hashes += Counter(route.keys.keys())
        else:
            for key in keys:
                self.functions.pop(key, None)
            self._paths.remove(keys[0])
            self._stats.forget(function.namespace, function.name)
        for revision in before.revisions if before else ():
            if revision not in kept:
                revision.routed = False
                if new is None:
                    self._on_deleted(revision)
                self.sweep(revision)

    def _route(self, function: Function) -> Route:
        status = function.status
        shares = []
        named: dict[str, Revision] = {}
        tags: dict[bytes, Revision] = {}
        for row in status.revisions:
            named[row.revision] = self._known(function, row.revision, row.concurrency, row.timeout)
        for target in status.traffic:
            revision = named[target.revision] = self._known(
                function, target.revision, target.concurrency, target.timeout
            )
            tags |= {each.encode(): revision for each in target.tags}
            shares.append((revision, target.percent))
        condition = function.ready
        message = condition.message if condition and condition.message else "the function has no ready revision yet"
        route = Route(self._stats.function(function.namespace, function.name), shares, message)
        route.by_name, route.tags = named, tags
        http = function.spec.http
        route.visibility = http.visibility
        route.cors = Policy(http.cors) if http.cors is not None else None
        route.keys = {each.hash: each.expires for each in status.keys}
        route.guard(self._quota_of(function.namespace))
        return route

    def _known(self, function: Function, name: str, concurrency: int, timeout: float) -> Revision:
        revision = self._revision(f"{function.namespace}/{name}", function.namespace, function.name)
        revision.limit = concurrency or UNLIMITED
        revision.timeout = timeout or self._timeout
        revision.told_until = 0.0
        revision.routed = True
        self._on_instance(revision)
        return revision

    def on_quota(self, namespace: str) -> None:
        """Its quota has come or gone."""
        quota = self._quota_of(namespace)
        for route in self.functions.values():
            if route.namespace == namespace:
                route.guard(quota)

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
        ready, ip = alive and new is not None and new.ready and bool(new.status.pod_ip), pod.status.pod_ip
        if self._hints and (hint := self._hints.get(pod.key)) is not None and hint.uid == meta.uid:
            if ready or not alive:
                del self._hints[pod.key]
            else:
                ready, ip = True, hint.address
        known = revision.instances.get(pod.key)
        address = f"{meta.uid} {ip}"
        if known is not None and (not ready or known.identity != address):
            revision.remove(pod.key)
            known.pool.retire()
            known = None
        if ready and known is None:
            revision.starting.discard(pod.key)
            if not revision.instances and revision.waiting:
                now = self._clock()
                seen = revision.seen or now
                self._stats.function(revision.namespace, revision.function).started(seen - revision.held, now - seen)
            revision.add(Instance(pod.key, self._make_pool(ip, PORT), address))
            self._on_instance(revision)
        elif ready and known is not None and revision.restore(known):
            self._on_instance(revision)
        elif alive and not ready:
            revision.starting.add(pod.key)
            revision.seen = revision.seen or self._clock()
        elif not alive:
            revision.starting.discard(pod.key)
            self.sweep(revision)

    def on_hint(self, hint: Hint, pod: views.Pod | None) -> None:
        """A node of this machine says that a Pod is ready, or isn't any more; `pod` is what the informer has of it. Until the API says the same
        the Pod counts as its node says; what the API has said of it before the hint came to be doesn't matter."""
        if not hint.address:
            if self._hints.pop(hint.pod, None) is None:
                return
        elif pod is not None and pod.metadata.uid == hint.uid and pod.ready:
            return
        else:
            if len(self._hints) >= HINTS:
                del self._hints[next(iter(self._hints))]
            self._hints[hint.pod] = hint
        if pod is not None and pod.metadata.uid == hint.uid:
            self.on_pod(pod, pod)

    def forget_hints(self, now: float, pod_of: Callable[[str], views.Pod | None]) -> None:
        """Those that the API hasn't confirmed in time: what it says itself is what counts then."""
        for hint in [each for each in self._hints.values() if now - each.at > UNCONFIRMED]:
            del self._hints[hint.pod]
            pod = pod_of(hint.pod)
            if pod is not None:
                self.on_pod(pod, pod)

    def sweep(self, revision: Revision) -> None:
        """Forget the revision if nothing needs it any more."""
        if revision.idle:
            self.revisions.pop(revision.key, None)

    def _revision(self, key: str, namespace: str, function: str) -> Revision:
        found = self.revisions.get(key)
        if found is None:
            found = self.revisions[key] = Revision(key, namespace, function, self._clock())
        return found


def _same_route(old: Function, new: Function) -> bool:
    """Whether a change is of nothing that calls are routed by: a status counts replicas, which come and go with each cold start."""
    return (
        old.metadata.uid == new.metadata.uid
        and old.metadata.creation_timestamp == new.metadata.creation_timestamp
        and old.spec == new.spec
        and old.status == new.status
    )


def _keys(function: Function) -> list[bytes]:
    keys = [f"{function.name}.{function.namespace}".encode()]
    if function.namespace == "default":
        keys.append(function.name.encode())
    return keys
