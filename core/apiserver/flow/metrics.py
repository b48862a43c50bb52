"""What the flow control shows at `/metrics`, under Kubernetes' names. Read from its counters when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from core.apiserver.flow.queues import Level, Seats

__all__ = ["FlowMetrics"]

_PREFIX = "apiserver_flowcontrol_"
_LEVEL = ("priority_level",)


class FlowMetrics(Collector):
    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        levels = list(self._seats.levels.values())
        gauges: tuple[tuple[str, str, Callable[[Level], float]], ...] = (
            ("current_executing_requests", "Requests that run.", lambda each: each.running),
            ("current_executing_seats", "Seats that are taken.", lambda each: each.in_use),
            ("current_inqueue_requests", "Requests that wait.", lambda each: each.waiting),
            ("nominal_limit_seats", "Seats by the level's share.", lambda each: each.limits.nominal),
        )
        for name, text, read in gauges:
            gauge = GaugeMetricFamily(_PREFIX + name, text, labels=_LEVEL)
            for each in levels:
                gauge.add_metric((each.name,), read(each))
            yield gauge
        dispatched = CounterMetricFamily(_PREFIX + "dispatched_requests", "Requests that got a seat.", labels=_LEVEL)
        rejected = CounterMetricFamily(
            _PREFIX + "rejected_requests", "Requests that were refused.", labels=(*_LEVEL, "reason")
        )
        for each in levels:
            dispatched.add_metric((each.name,), each.dispatched)
            rejected.add_metric((each.name, "queue-full"), each.rejected - each.timed_out)
            rejected.add_metric((each.name, "time-out"), each.timed_out)
        yield dispatched
        yield rejected
