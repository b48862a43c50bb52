"""What the metrics of a HorizontalPodAutoscaler ask for: usage and Pods in, a number of replicas out. Pure.

After k8s.io/kubernetes/pkg/controller/podautoscaler (replica_calculator.go, metrics/utilization.go). Amounts are thousandths:
of a core, of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.api import quantity
from core.api.meta import Document
from core.api.views import Container, Pod
from core.clock import parse_time

__all__ = ["TOLERANCE", "Groups", "MetricError", "Proposal", "Tolerances", "Used", "group", "propose", "used_of"]

TOLERANCE = 0.1
INITIALIZATION = 300.0
"""Seconds after its start in which a Pod's CPU counts only where it is ready, and was for a whole sample."""
FIRST_READINESS = 30.0
"""A Pod whose readiness hasn't changed later than so many seconds after its start was never ready."""


class MetricError(Exception):
    """A metric tells nothing. `reason` is that of the condition ScalingActive."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far a ratio may be from 1 without any change, below and above."""

    down: float = TOLERANCE
    up: float = TOLERANCE

    def hold(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Used:
    """What a Pod uses; the sample ended at `at` (seconds since the epoch) and was `window` seconds long."""

    amount: int
    at: float = 0.0
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class Groups:
    """Names of Pods by what their samples are worth."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """`replicas` for the metric `name`, and its entry in `status.currentMetrics`."""

    replicas: int
    name: str
    status: Document


def seconds(text: str) -> float:
    """A Duration as `metrics.k8s.io` writes it: `15.2s`, `1m2s`."""
    minutes, _, rest = text.rpartition("m")
    return float(minutes or 0) * 60 + float(rest.rstrip("s") or 0)


def used_of(metrics: Iterable[Document], resource: str, container: str) -> dict[str, Used]:
    """By the name of the Pod, of all its containers or of that one. Raises `MetricError` where a Pod lacks that container."""
    found = {}
    for each in metrics:
        name = each["metadata"]["name"]
        parts = [part for part in each["containers"] if not container or part["name"] == container]
        if container and not parts:
            raise MetricError("", f"container {container} not present in metrics for pod {each['metadata'].get('namespace', '')}/{name}")  # fmt: skip
        if parts and all(resource in part["usage"] for part in parts):
            amount = sum(quantity.milli(part["usage"][resource]) for part in parts)
            found[name] = Used(amount, parse_time(each["timestamp"]), seconds(each["window"]))
    return found


def _unready(pod: Pod, used: Used, now: float) -> bool:
    ready = next((each for each in pod.status.conditions if each.type == "Ready"), None)
    if ready is None or not pod.status.start_time:
        return True
    started, since = parse_time(pod.status.start_time), parse_time(ready.last_transition_time or pod.status.start_time)
    if started + INITIALIZATION > now:
        return ready.status == "False" or used.at < since + used.window
    return ready.status == "False" and started + FIRST_READINESS > since


def group(pods: Iterable[Pod], used: Mapping[str, Used], resource: str, now: float) -> Groups:
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in pods:
        if pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed":
            ignored.add(pod.name)
        elif pod.status.phase in ("Pending", ""):
            unready.add(pod.name)
        elif pod.name not in used:
            missing.add(pod.name)
        elif resource == "cpu" and _unready(pod, used[pod.name], now):
            unready.add(pod.name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _requests(pods: Iterable[Pod], resource: str, container: str) -> dict[str, int]:
    """By the name of the Pod. Raises `MetricError` where a container has none."""

    def counts(each: Container, init: bool) -> bool:
        return (not container or each.name == container) and (not init or each.restart_policy == "Always")

    found = {}
    for pod in pods:
        total = 0
        for init, containers in ((False, pod.spec.containers), (True, pod.spec.init_containers)):
            for each in containers:
                if not counts(each, init):
                    continue
                if resource not in each.resources.requests:
                    text = f"missing request for {resource} in container {each.name} of Pod {pod.name}"
                    raise MetricError("", text)
                total += quantity.milli(each.resources.requests[resource])
        found[pod.name] = total
    return found


@dataclass(frozen=True, slots=True)
class _Target:
    """`ratio(amounts)` is usage by target; `full` and `none` are what Pods that aren't measured are taken to use."""

    wanted: int
    requests: Mapping[str, int] | None

    def ratio(self, amounts: Mapping[str, int]) -> tuple[float, int | None, int]:
        """(usage by target, percent of what is requested, mean amount)."""
        mean = sum(amounts.values()) // len(amounts)
        if self.requests is None:
            return mean / self.wanted, None, mean
        known = {name: amount for name, amount in amounts.items() if name in self.requests}
        requested = sum(self.requests[name] for name in known)
        if not requested:
            raise MetricError("", "no metrics returned matched known pods")
        percent = sum(known.values()) * 100 // requested
        return percent / self.wanted, percent, sum(known.values()) // len(known)

    def full(self, name: str) -> int:
        if self.requests is None:
            return self.wanted
        return self.requests.get(name, 0) * max(100, self.wanted) // 100


def _count(
    current: int, amounts: dict[str, int], groups: Groups, target: _Target, tolerances: Tolerances
) -> tuple[int, int | None, int]:
    """(replicas, percent, mean amount)."""
    ratio, percent, mean = target.ratio(amounts)
    waiting = bool(groups.unready) and ratio > 1.0
    if not waiting and not groups.missing:
        replicas = current if tolerances.hold(ratio) else math.ceil(ratio * groups.ready)
        return replicas, percent, mean
    guessed = dict(amounts)
    if ratio < 1.0:
        guessed |= {name: target.full(name) for name in groups.missing}
    elif ratio > 1.0:
        guessed |= dict.fromkeys(groups.missing, 0)
    if waiting:
        guessed |= dict.fromkeys(groups.unready, 0)
    again, _, _ = target.ratio(guessed)
    if tolerances.hold(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return current, percent, mean
    replicas = math.ceil(again * len(guessed))
    if (again < 1.0 and replicas > current) or (again > 1.0 and replicas < current):
        return current, percent, mean
    return replicas, percent, mean


_FAILED = {
    "Resource": "FailedGetResourceMetric", "ContainerResource": "FailedGetContainerResourceMetric", "Pods": "FailedGetPodsMetric",
    "Object": "FailedGetObjectMetric", "External": "FailedGetExternalMetric",
}  # fmt: skip


def propose(
    spec: Mapping[str, Any],
    current: int,
    pods: Sequence[Pod],
    metrics: Sequence[Document],
    now: float,
    tolerances: Tolerances = Tolerances(),
) -> Proposal:
    """What one entry of `spec.metrics` asks for, with `metrics` the PodMetrics of the target's `pods`. Raises `MetricError`."""
    kind = str(spec.get("type", ""))
    reason = _FAILED.get(kind, "InvalidMetricSourceType")
    try:
        if kind in ("Resource", "ContainerResource"):
            return _resource(kind, spec, current, pods, metrics, now, tolerances)
    except MetricError as error:
        raise MetricError(reason, str(error)) from error
    if kind not in _FAILED:
        raise MetricError(reason, f'unknown metric source type "{kind}"')
    name = ((spec.get(kind.lower()) or {}).get("metric") or {}).get("name", "")
    api, group_ = ("external", "external") if kind == "External" else ("custom", "custom")
    what = {"Pods": "pods metric value", "Object": "object metric value", "External": "external metric"}[kind]
    text = f"failed to get {what}: unable to get metric {name}: unable to fetch metrics from {api} metrics API: no {api} metrics API ({group_}.metrics.k8s.io) registered"
    raise MetricError(reason, text)


def _resource(
    kind: str,
    spec: Mapping[str, Any],
    current: int,
    pods: Sequence[Pod],
    metrics: Sequence[Document],
    now: float,
    tolerances: Tolerances,
) -> Proposal:
    field = kind[0].lower() + kind[1:]
    source = spec.get(field) or {}
    resource, container, wanted = str(source.get("name", "")), str(source.get("container") or ""), source.get("target")
    wanted = wanted or {}
    average = wanted.get("averageValue")
    what = f"failed to get {resource} {'usage' if average is not None else 'utilization'}: "
    try:
        if average is None and wanted.get("averageUtilization") is None:
            what = "invalid resource metric source: "
            raise MetricError("", "neither an average utilization target nor an average value (usage) target was set")
        if not metrics:
            text = f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            raise MetricError("", text)
        if not pods:
            raise MetricError("", "no pods returned by selector while calculating replica count")
        used = used_of(metrics, resource, container)
        groups = group(pods, used, resource, now)
        amounts = {name: each.amount for name, each in used.items() if name not in groups.ignored | groups.unready}
        if not amounts:
            raise MetricError("", "did not receive metrics for targeted pods (pods might be unready)")
        if average is not None:
            target = _Target(max(quantity.milli(average), 1), None)
        else:
            target = _Target(int(wanted["averageUtilization"]), _requests(pods, resource, container))
        replicas, percent, mean = _count(current, amounts, groups, target, tolerances)
    except MetricError as error:
        raise MetricError("", what + str(error)) from error
    now_at: Document = {"averageValue": quantity.canonical(f"{mean}m")}
    if percent is not None:
        now_at["averageUtilization"] = percent
    title = f"{resource} {'container resource' if container else 'resource'}"
    status: Document = {"name": resource, "current": now_at, **({"container": container} if container else {})}
    shown = title if percent is None else f"{title} utilization (percentage of request)"
    return Proposal(replicas, shown, {"type": kind, field: status})
