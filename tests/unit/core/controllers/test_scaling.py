"""HorizontalPodAutoscalers, as rows: what is used, what was done before, what is to be done now."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api.views import HorizontalPodAutoscaler, Pod
from core.clock import timestamp
from core.controllers.proposals import MetricError, propose, seconds
from core.controllers.scaling import Decision, History, World, decide, new_status

NOW = 1_700_000_000.0
OLD = NOW - 3600
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "32Mi"}}}  # fmt: skip


def pod(
    name: str, request: str | None = "100m", *, phase: str = "Running", ready: str = "True", since: float = OLD,
    started: float = OLD, going: bool = False,
) -> Pod:  # fmt: skip
    requests = {} if request is None else {"cpu": request}
    meta: dict[str, Any] = {"name": name, "namespace": "n", "labels": {"app": "a"}}
    if going:
        meta["deletionTimestamp"] = timestamp(NOW)
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": timestamp(since)}
    status = {"phase": phase, "startTime": timestamp(started), "conditions": [condition]}
    containers = [{"name": "c", "resources": {"requests": requests}}]
    return msgspec.convert({"metadata": meta, "spec": {"containers": containers}, "status": status}, Pod)


def metrics(name: str, cpu: str = "50m", memory: str = "32Mi", window: str = "15s", at: float = NOW) -> dict[str, Any]:
    usage = {"cpu": cpu, "memory": memory}
    return {
        "metadata": {"name": name, "namespace": "n"}, "timestamp": timestamp(at), "window": window,
        "containers": [{"name": "c", "usage": usage}],
    }  # fmt: skip


def autoscaler(low: int = 1, high: int = 10, *specs: Any, status: Any = None, **spec: Any) -> HorizontalPodAutoscaler:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    body = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": list(specs) or [CPU], **spec}
    return msgspec.convert(
        {"metadata": {"name": "h", "namespace": "n", "uid": "u"}, "spec": body, "status": status or {}},
        HorizontalPodAutoscaler,
    )


@pytest.mark.parametrize(
    ("cpu", "current", "expected"),
    [(["50m"], 1, 1), (["54m"], 1, 1), (["56m"], 1, 2), (["100m"], 1, 2), (["100m", "100m"], 2, 4), (["20m", "20m", "20m"], 3, 2), (["45m"] * 4, 4, 4)],
)  # fmt: skip
def test_utilisation_within_the_tolerance_changes_nothing(cpu, current, expected):
    pods = [pod(f"p{index}") for index in range(len(cpu))]
    used = [metrics(f"p{index}", each) for index, each in enumerate(cpu)]
    found = propose(CPU, current, pods, used, NOW)
    assert (found.replicas, found.name) == (expected, "cpu resource utilization (percentage of request)")


def test_the_status_of_a_metric_has_percent_and_mean():
    found = propose(CPU, 2, [pod("a"), pod("b")], [metrics("a", "100m"), metrics("b", "50m")], NOW)
    current = {"averageUtilization": 75, "averageValue": "75m"}
    assert found.status == {"type": "Resource", "resource": {"name": "cpu", "current": current}}
    found = propose(MEMORY, 1, [pod("a")], [metrics("a", memory="64Mi")], NOW)
    assert (found.replicas, found.name) == (2, "memory resource")
    assert found.status["resource"]["current"] == {"averageValue": str(64 << 20)}


def test_what_isnt_measured_damps():
    """Missing Pods use all of their request before replicas go, and nothing before replicas come; those not ready yet likewise."""
    missing = [pod("a"), pod("gone")]
    assert propose(CPU, 2, missing, [metrics("a", "10m")], NOW).replicas == 2
    assert propose(CPU, 2, missing, [metrics("a", "300m")], NOW).replicas == 6
    fresh = [pod("a"), pod("new", phase="Pending")]
    assert propose(CPU, 2, fresh, [metrics("a", "90m")], NOW).replicas == 2
    assert propose(CPU, 2, fresh, [metrics("a", "300m")], NOW).replicas == 6
    assert propose(CPU, 2, [pod("a"), pod("b", going=True)], [metrics("a", "100m"), metrics("b", "900m")], NOW).replicas == 2  # fmt: skip


@pytest.mark.parametrize(
    ("one", "sample", "counts"),
    [
        (pod("a", started=NOW - 60, since=NOW - 20), metrics("a"), True),
        (pod("a", started=NOW - 60, since=NOW - 10), metrics("a"), False),
        (pod("a", started=NOW - 60, since=NOW - 20, ready="False"), metrics("a"), False),
        (pod("a", ready="False", since=NOW - 60), metrics("a"), True),
        (pod("a", ready="False", since=OLD + 10), metrics("a"), False),
    ],
)
def test_a_pod_that_starts_isnt_measured_yet(one, sample, counts):
    if counts:
        propose(CPU, 1, [one], [sample], NOW)
        return
    with pytest.raises(MetricError, match="did not receive metrics for targeted pods"):
        propose(CPU, 1, [one], [sample], NOW)


@pytest.mark.parametrize(
    ("spec", "pods", "used", "reason", "message"),
    [
        (CPU, [pod("a")], [], "FailedGetResourceMetric", "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
        (CPU, [pod("a", None)], [metrics("a")], "FailedGetResourceMetric", "failed to get cpu utilization: missing request for cpu in container c of Pod a"),
        (MEMORY, [], [metrics("a")], "FailedGetResourceMetric", "failed to get memory usage: no pods returned by selector"),
        ({"type": "ContainerResource", "containerResource": {**CPU["resource"], "container": "x"}}, [pod("a")], [metrics("a")], "FailedGetContainerResourceMetric", "container x not present in metrics for pod n/a"),
        ({"type": "Pods", "pods": {"metric": {"name": "hits"}}}, [pod("a")], [], "FailedGetPodsMetric", r"unable to get metric hits: .* no custom metrics API \(custom.metrics.k8s.io\) registered"),
        ({"type": "External", "external": {"metric": {"name": "q"}}}, [pod("a")], [], "FailedGetExternalMetric", "no external metrics API"),
    ],
)  # fmt: skip
def test_a_metric_that_cant_be_had_says_why(spec, pods, used, reason, message):
    with pytest.raises(MetricError, match=message) as caught:
        propose(spec, 1, pods, used, NOW)
    assert caught.value.reason == reason


def test_one_container_of_many():
    spec = {"type": "ContainerResource", "containerResource": {**CPU["resource"], "container": "c"}}
    used = metrics("a", "100m")
    used["containers"].append({"name": "other", "usage": {"cpu": "4", "memory": "1Mi"}})
    found = propose(spec, 1, [pod("a")], [used], NOW)
    assert (found.replicas, found.status["containerResource"]["container"]) == (2, "c")
    assert found.name == "cpu container resource utilization (percentage of request)"


def test_durations_are_read():
    assert [seconds(each) for each in ("15s", "1.5s", "1m2.04s", "10m0s")] == [15.0, 1.5, 62.04, 600.0]


# What is done with it


def run(found: HorizontalPodAutoscaler, replicas: int, cpu: str, history: History = History(), **world: Any) -> Decision:  # fmt: skip
    pods = [pod(f"p{index}") for index in range(replicas)]
    used = [metrics(f"p{index}", cpu) for index in range(replicas)]
    return decide(found, World(**{"replicas": replicas, "selector": "app=a", "pods": pods, "metrics": used, **world}), history, NOW)  # fmt: skip


def reasons(decision: Decision) -> dict[str, str]:
    return {each["type"]: f"{each['status']} {each['reason']}" for each in decision.conditions}


def test_it_scales_up_at_once_and_says_why():
    found = run(autoscaler(), 2, "100m")
    assert (found.replicas, found.reason) == (4, "cpu resource utilization (percentage of request) above target")
    assert reasons(found) == {
        "AbleToScale": "True ReadyForNewScale",
        "ScalingActive": "True ValidMetricFound",
        "ScalingLimited": "False DesiredWithinRange",
    }


def test_it_scales_down_when_nothing_more_was_asked_for_in_the_window():
    first = run(autoscaler(), 4, "10m")
    assert first.replicas is None and reasons(first)["AbleToScale"] == "True ScaleDownStabilized"
    later = run(autoscaler(), 4, "10m", History(((NOW - 301, 4), (NOW - 200, 1))))
    assert (later.replicas, later.reason) == (1, "All metrics below target")


@pytest.mark.parametrize(
    ("low", "high", "replicas", "cpu", "expected", "limited"),
    [
        (1, 10, 2, "900m", 4, "True ScaleUpLimit"),
        (1, 3, 2, "900m", 3, "True TooManyReplicas"),
        (2, 9, 3, "0", 2, "True TooFewReplicas"),
        (1, 100, 10, "900m", 20, "True ScaleUpLimit"),
    ],
)
def test_bounds_and_the_rate_without_behaviour(low, high, replicas, cpu, expected, limited):
    found = run(autoscaler(low, high), replicas, cpu, History(((NOW - 400, replicas),)))
    assert (found.replicas, reasons(found)["ScalingLimited"]) == (expected, limited)


@pytest.mark.parametrize(("replicas", "expected", "why"), [(12, 10, "above Spec.Max"), (1, 2, "below Spec.Min")])
def test_what_is_out_of_bounds_is_brought_back_without_metrics(replicas, expected, why):
    found = run(autoscaler(2, 10), replicas, "50m", metrics=[])
    assert found.replicas == expected and why in found.reason


def test_a_target_at_zero_is_left_alone():
    found = run(autoscaler(), 0, "50m")
    assert (found.replicas, found.desired, reasons(found)["ScalingActive"]) == (None, 0, "False ScalingDisabled")


UP = {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}  # fmt: skip
DOWN = {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}, {"type": "Pods", "value": 1, "periodSeconds": 60}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("behavior", "replicas", "cpu", "history", "expected", "limited"),
    [
        pytest.param(UP, 2, "100m", History(), 3, "True ScaleUpLimit", id="a Pod a minute"),
        pytest.param(UP, 3, "100m", History(ups=((NOW - 30, 1),)), None, "True ScaleUpLimit", id="which was made already"),
        pytest.param(UP, 3, "100m", History(ups=((NOW - 61, 1),)), 4, "True ScaleUpLimit", id="and again a minute later"),
        pytest.param(UP, 3, "100m", History(ups=((NOW - 30, 1),), downs=((NOW - 20, 1),)), 4, "True ScaleUpLimit", id="what was taken away may come back"),
        pytest.param({**UP, "scaleUp": {**UP["scaleUp"], "selectPolicy": "Disabled"}}, 2, "100m", History(), None, "True ScaleUpLimit", id="not at all"),
        pytest.param({**UP, "scaleUp": {**UP["scaleUp"], "stabilizationWindowSeconds": 60}}, 2, "100m", History(((NOW - 30, 2),)), None, "False DesiredWithinRange", id="not before a minute of it"),
        pytest.param(DOWN, 8, "5m", History(((NOW - 400, 8),)), 4, "True ScaleDownLimit", id="half of them"),
        pytest.param({"scaleDown": {**DOWN["scaleDown"], "selectPolicy": "Min"}}, 8, "5m", History(((NOW - 400, 8),)), 7, "True ScaleDownLimit", id="the lesser of two"),
        pytest.param(DOWN, 8, "30m", History(((NOW - 400, 8),)), 5, "False DesiredWithinRange", id="less than the limit"),
        pytest.param({"scaleDown": {}}, 8, "5m", History(((NOW - 200, 8),)), None, "False DesiredWithinRange", id="five minutes if nothing is said"),
        pytest.param({"scaleUp": {**UP["scaleUp"], "tolerance": "0.5"}}, 2, "70m", History(), None, "False DesiredWithinRange", id="a wider tolerance"),
    ],
)  # fmt: skip
def test_behaviour(behavior, replicas, cpu, history, expected, limited):
    found = run(autoscaler(1, 10, behavior=behavior), replicas, cpu, history)
    assert (found.replicas, reasons(found)["ScalingLimited"]) == (expected, limited)


def test_the_most_that_any_metric_asks_for_and_no_less_while_one_fails():
    hits = {
        "type": "Pods",
        "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    both = run(autoscaler(1, 10, MEMORY, CPU), 2, "100m")
    assert both.replicas == 4 and [each["resource"]["name"] for each in both.metrics or ()] == ["memory", "cpu"]
    up = run(autoscaler(1, 10, CPU, hits), 2, "100m")
    assert up.replicas == 4 and up.events[0][1] == "FailedGetPodsMetric"
    down = run(autoscaler(1, 10, CPU, hits), 2, "5m", History(((NOW - 400, 2),)))
    assert down.replicas is None and reasons(down)["ScalingActive"] == "False FailedGetPodsMetric"
    assert down.metrics is not None and down.metrics[1] == {"type": ""}


def test_targets_without_a_selector_and_with_a_rival():
    assert reasons(run(autoscaler(), 2, "5m", selector=""))["ScalingActive"] == "False InvalidSelector"
    found = run(autoscaler(), 2, "5m", rivals=["n/b"])
    assert reasons(found)["ScalingActive"] == "False AmbiguousSelector"
    assert found.conditions[-1]["message"] == "pods by selector app=a are controlled by multiple HPAs: [n/b n/h]"


def test_the_status_remembers_when_it_was_scaled():
    found = autoscaler(status={"desiredReplicas": 2, "lastScaleTime": "2020-01-01T00:00:00Z"})
    done = run(found, 2, "100m")
    assert new_status(found, done, done.conditions, 2, NOW, scaled=True)["lastScaleTime"] == timestamp(NOW)
    failed = new_status(found, done, done.conditions, 2, NOW, scaled=False)
    assert (failed["desiredReplicas"], failed["lastScaleTime"]) == (2, "2020-01-01T00:00:00Z")


def test_an_autoscaler_without_metrics_goes_by_cpu():
    """As the API server would have it; one that was stored without them must not stop the controller."""
    found = autoscaler(spec=None)
    found.spec.metrics = []
    world = World(1, "app=a", [pod("p0")], [metrics("p0", "160m")])
    assert decide(found, world, History(), NOW).replicas == 2
    assert decide(found, World(1, "app=a", [], []), History(), NOW).replicas is None
