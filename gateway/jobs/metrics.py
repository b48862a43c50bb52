"""What jobs says at `/metrics`, in Prometheus' text form, read from its parts when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Values(Collector):
    def __init__(
        self, records: Mapping[str, int], executions: Mapping[str, int], running: int, triggers: int, leading: bool
    ) -> None:
        self._records = records
        self._executions = executions
        self._gauges = (
            ("faaslite_jobs_running", "Calls that jobs executes now.", running),
            ("faaslite_jobs_cron_triggers", "Cron triggers that are planned.", triggers),
            ("faaslite_jobs_leading", "Whether this process executes calls (it holds the Lease).", int(leading)),
        )

    def collect(self) -> Iterator[Metric]:
        records = GaugeMetricFamily("faaslite_calls", "Call records by status.", labels=["status"])
        for status, count in sorted(self._records.items()):
            records.add_metric([status], count)
        yield records
        executions = CounterMetricFamily(
            "faaslite_jobs_executions", "Executions since the start, by what became of the call.", labels=["result"]
        )
        for result, count in sorted(self._executions.items()):
            executions.add_metric([result], count)
        yield executions
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(name, text, value)


def render(
    records: Mapping[str, int], executions: Mapping[str, int], *, running: int, triggers: int, leading: bool
) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Values(records, executions, running, triggers, leading))
    return generate_latest(registry)
