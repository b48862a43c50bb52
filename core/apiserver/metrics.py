"""Metrics of the API server in Prometheus' form, under the names and labels that kube-apiserver uses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

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


class _Timer:
    """How many requests took how long: of each of `_SECONDS` those that took no longer and longer than the one before, and the rest."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0


class _Requests(Collector):
    """Counted with two look-ups a request, and put into Prometheus' form when somebody asks."""

    def __init__(self) -> None:
        self.counts: dict[tuple[tuple[str, ...], int], int] = {}
        self.timers: dict[tuple[str, ...], _Timer] = {}

    def collect(self) -> Iterator[Metric]:
        counter = CounterMetricFamily(
            "apiserver_request", "Requests by verb, resource and code.", labels=(*_LABELS, "code")
        )
        for (what, code), count in tuple(self.counts.items()):
            counter.add_metric((*what, str(code)), count)
        yield counter
        durations = HistogramMetricFamily(
            "apiserver_request_duration_seconds", "Time to answer, watches and logs left out.", labels=_LABELS
        )
        bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
        for what, timer in tuple(self.timers.items()):
            durations.add_metric(what, list(zip(bounds, accumulate(timer.counts), strict=True)), timer.seconds)
        yield durations


class Metrics:
    """A registry of its own, so that several servers can live in one process."""

    def __init__(self, watching: Callable[[], int], revision: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = _Requests()
        self._registry.register(self._requests)
        Gauge("apiserver_longrunning_requests", "Watches that run.", registry=self._registry).set_function(watching)
        Gauge("apiserver_storage_revision", "The newest revision.", registry=self._registry).set_function(revision)

    def answered(self, what: tuple[str, ...], code: int, seconds: float | None) -> None:
        """`what` are `labels`; `seconds` is None for what runs long."""
        counts, at = self._requests.counts, (what, code)
        counts[at] = counts.get(at, 0) + 1
        if seconds is None:
            return
        timer = self._requests.timers.get(what)
        if timer is None:
            timer = self._requests.timers[what] = _Timer()
        timer.counts[bisect_left(_SECONDS, seconds)] += 1
        timer.seconds += seconds

    def collect(self, collector: Collector) -> None:
        """Show what this says, too."""
        self._registry.register(collector)

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
