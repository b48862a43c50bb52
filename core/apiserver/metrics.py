"""Metrics of the API server in Prometheus' form, under the names that kube-apiserver uses."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """A registry of its own, so that several servers can live in one process. Label sets are looked up once and kept."""

    def __init__(self, watching: Callable[[], int], revision: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "apiserver_request",
            "Requests by verb, resource and code.",
            ("verb", "resource", "code"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "apiserver_request_duration_seconds", "Time to answer, watches and logs left out.", ("verb", "resource"),
            registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip
        Gauge("apiserver_longrunning_requests", "Watches that run.", registry=self._registry).set_function(watching)
        Gauge("apiserver_storage_revision", "The newest revision.", registry=self._registry).set_function(revision)
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[tuple[str, str], Histogram] = {}

    def answered(self, verb: str, resource: str, code: int, seconds: float | None) -> None:
        """`seconds` is None for what runs long."""
        counter = self._counters.get((verb, resource, code))
        if counter is None:
            counter = self._counters[verb, resource, code] = self._requests.labels(verb, resource, str(code))
        counter.inc()
        if seconds is None:
            return
        timer = self._timers.get((verb, resource))
        if timer is None:
            timer = self._timers[verb, resource] = self._durations.labels(verb, resource)
        timer.observe(seconds)

    def collect(self, collector: Collector) -> None:
        """Show what this says, too."""
        self._registry.register(collector)

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
