"""NodeMetrics and PodMetrics, made from nodes' summaries."""

from __future__ import annotations

import pytest

from core.api.kinds import NODE_METRICS, POD_METRICS
from core.apiserver import table, usage

TIME = "2026-01-01T00:00:00Z"


def measured(nanocores: int | None, memory: int = 1 << 20, window: float = 15.0) -> dict:
    cpu = {"time": TIME, "usageCoreNanoSeconds": 1}
    if nanocores is not None:
        cpu |= {"usageNanoCores": nanocores, "windowSeconds": window}
    return {"cpu": cpu, "memory": {"time": TIME, "workingSetBytes": memory}}


def summary(*containers: tuple[str, int | None]) -> dict:
    pod = {
        "podRef": {"uid": "u", "name": "web", "namespace": "default"},
        "containers": [{"name": name, **measured(cores)} for name, cores in containers],
        **measured(sum(cores or 0 for _, cores in containers)),
    }
    return {"node": measured(1_234_567), "pods": [pod]}


POD = {"metadata": {"name": "web", "namespace": "default", "uid": "u", "labels": {"a": "b"}, "resourceVersion": "5"}}


def test_a_pods_metrics():
    found = usage.pod_metrics(POD, [summary(("main", 5_000_000), ("side", 1_500))], 0.0)
    assert found == {
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "labels": {"a": "b"},
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "timestamp": TIME,
        "window": "15s",
        "containers": [
            {"name": "main", "usage": {"cpu": "5m", "memory": "1Mi"}},
            {"name": "side", "usage": {"cpu": "1500n", "memory": "1Mi"}},
        ],
    }


@pytest.mark.parametrize("told", [[], [summary(("main", 1), ("side", None))], [summary()]])
def test_a_pod_of_which_not_everything_is_known_has_no_metrics(told):
    assert usage.pod_metrics(POD, told, 0.0) is None


def test_a_pod_of_the_same_name_but_another_uid_is_another_one():
    assert usage.pod_metrics({"metadata": {**POD["metadata"], "uid": "v"}}, [summary(("main", 1))], 0.0) is None


def test_a_nodes_metrics():
    found = usage.node_metrics({"metadata": {"name": "n1"}}, summary(), 0.0)
    assert found is not None
    assert found["usage"] == {"cpu": "1234567n", "memory": "1Mi"}
    assert usage.node_metrics({"metadata": {"name": "n1"}}, {"node": measured(None)}, 0.0) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (1.5, "1.5s"), (15.041, "15.041s"), (60.0, "1m0s"), (62.04, "1m2.04s")]
)
def test_windows_are_written_as_go_does(seconds, text):
    assert usage.duration(seconds) == text


def test_their_tables():
    pod = usage.pod_metrics(POD, [summary(("main", 5_000_000), ("side", 1_500))], 0.0)
    shown = table.to_table(POD_METRICS, [pod], now=0.0)
    assert [each["name"] for each in shown["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
    assert shown["rows"][0]["cells"] == ["web", "5001500n", "2Mi", "15s"]
    node = usage.node_metrics({"metadata": {"name": "n1"}}, summary(), 0.0)
    assert table.to_table(NODE_METRICS, [node], now=0.0)["rows"][0]["cells"] == ["n1", "1234567n", "1Mi", "15s"]
