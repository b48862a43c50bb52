"""What jobs says at `/metrics`, in Prometheus' text form, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.histogram import Histogram

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Values(Collector):
    def __init__(
        self, dispatcher: Dispatcher, counters: Mapping[str, tuple[str, str, Mapping[str, int]]], gauges: Mapping[str, tuple[str, int]],
        lateness: Histogram,
    ) -> None:  # fmt: skip
        self._dispatcher = dispatcher
        self._counters = counters
        self._gauges = gauges
        self._lateness = lateness

    def collect(self) -> Iterator[Metric]:
        for name, (text, label, values) in self._counters.items():
            kind = GaugeMetricFamily if name == "faaslite_calls" else CounterMetricFamily
            family = kind(name, text, labels=[label])
            for value, count in sorted(values.items()):
                family.add_metric([value], count)
            yield family
        for name, (text, number) in self._gauges.items():
            yield GaugeMetricFamily(name, text, number)
        by_function = GaugeMetricFamily(
            "faaslite_jobs_running_by_function", "Calls that jobs executes now.", labels=["namespace", "function"]
        )
        for key, count in sorted(self._dispatcher.busy.items()):
            by_function.add_metric(list(key), count)
        yield by_function
        yield self._dispatcher.waits.family(
            "faaslite_jobs_wait_seconds", "From when a call was accepted or scheduled to its first execution."
        )
        yield self._dispatcher.runs.family("faaslite_jobs_execution_seconds", "How long executions took.")
        yield self._lateness.family("faaslite_jobs_cron_lateness_seconds", "From a cron instant to its durable record.")


def render(
    records: Mapping[str, int], dispatcher: Dispatcher, *, callbacks: Mapping[str, int], accepted: Mapping[str, int], triggers: int, fired: Mapping[str, int],
    lateness: Histogram, leading: bool,
) -> bytes:  # fmt: skip
    counters = {
        "faaslite_calls": ("Call records by status.", "status", records),
        "faaslite_jobs_accepts": ("Requests for queued calls.", "result", accepted),
        "faaslite_jobs_executions": (
            "Executions since the start, by what became of the call.", "result", dispatcher.finished,
        ),
        "faaslite_jobs_callbacks": ("Callbacks since the start, by what became of them.", "result", callbacks),
        "faaslite_jobs_cron_instants": ("Cron instants decided on since the start.", "status", fired),
    }  # fmt: skip
    gauges = {
        "faaslite_jobs_running": ("Calls that jobs executes now.", dispatcher.running),
        "faaslite_jobs_cron_triggers": ("Cron triggers that are planned.", triggers),
        "faaslite_jobs_leading": ("Whether this process executes calls.", int(leading)),
    }
    registry = CollectorRegistry()
    registry.register(_Values(dispatcher, counters, gauges, lateness))
    return generate_latest(registry)
