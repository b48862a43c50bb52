"""The agent's metrics, read when they are asked for: nothing is counted twice, nothing on a hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from core.node.runtime.guard import Guard
from core.node.writer import StatusWriter

__all__ = ["AgentCollector"]


class AgentCollector(Collector):
    def __init__(self, runtime: Guard, writer: Callable[[], StatusWriter], pods: Callable[[], int]) -> None:
        self._runtime = runtime
        self._writer = writer
        self._pods = pods

    def collect(self) -> Iterator[Metric]:
        durations = SummaryMetricFamily(
            "kubelet_runtime_operations_duration_seconds", "Time in calls of the runtime", labels=["operation_type"]
        )
        failures = CounterMetricFamily(
            "kubelet_runtime_operations_errors", "Failed calls of the runtime", labels=["operation_type"]
        )
        for name, each in self._runtime.operations.items():
            durations.add_metric([name], count_value=each.calls, sum_value=each.seconds)
            failures.add_metric([name], each.failures)
        yield durations
        yield failures
        yield GaugeMetricFamily("kubelet_running_pods", "Pods that this node looks after", value=self._pods())
        yield CounterMetricFamily(
            "kubelet_pod_status_writes", "Pod status writes sent to the API", value=self._writer().writes
        )
