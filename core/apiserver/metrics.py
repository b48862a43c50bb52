"""Metrics of the API server in Prometheus' form, under the names and labels that kube-apiserver uses."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from core.apiserver.dispatch import RequestInfo

__all__ = ["Metrics", "labels"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LABELS = ("component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version")
_VERBS = {"create": "POST", "update": "PUT"}
_CONNECTS = frozenset(("attach", "exec", "portforward", "proxy"))
_METHODS = frozenset(("get", "head", "post", "put", "patch", "delete", "options"))


def labels(info: RequestInfo, known: bool, dry_run: bool) -> tuple[str, ...]:
    """The values of `_LABELS`. What isn't `known` to be served is counted together: clients could make up names without end."""
    run = "All" if dry_run else ""
    if not info.resource or not known:
        verb = info.verb if info.resource or info.verb in _METHODS else "other"
        return ("apiserver", run, "", "", "", "", _VERBS.get(verb, verb.upper()), "")
    scope = "resource" if info.name or info.verb == "create" else "namespace" if info.namespace else "cluster"
    verb = "CONNECT" if info.subresource in _CONNECTS else _VERBS.get(info.verb, info.verb.upper())
    return ("apiserver", run, info.group, info.resource, scope, info.subresource, verb, info.version)


class Metrics:
    """A registry of its own, so that several servers can live in one process. Label sets are looked up once and kept."""

    def __init__(self, watching: Callable[[], int], revision: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "apiserver_request", "Requests by verb, resource and code.", (*_LABELS, "code"), registry=self._registry
        )
        self._durations = Histogram(
            "apiserver_request_duration_seconds", "Time to answer, watches and logs left out.", _LABELS,
            registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip
        Gauge("apiserver_longrunning_requests", "Watches that run.", registry=self._registry).set_function(watching)
        Gauge("apiserver_storage_revision", "The newest revision.", registry=self._registry).set_function(revision)
        self._counters: dict[tuple[tuple[str, ...], int], Counter] = {}
        self._timers: dict[tuple[str, ...], Histogram] = {}

    def answered(self, what: tuple[str, ...], code: int, seconds: float | None) -> None:
        """`what` are `labels`; `seconds` is None for what runs long."""
        counter = self._counters.get((what, code))
        if counter is None:
            counter = self._counters[what, code] = self._requests.labels(*what, str(code))
        counter.inc()
        if seconds is None:
            return
        timer = self._timers.get(what)
        if timer is None:
            timer = self._timers[what] = self._durations.labels(*what)
        timer.observe(seconds)

    def collect(self, collector: Collector) -> None:
        """Show what this says, too."""
        self._registry.register(collector)

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
