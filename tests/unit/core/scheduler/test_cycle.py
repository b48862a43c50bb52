"""Rows of (nodes, Pods there, Pod) -> (node, or the message that says why not)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.api.views import Node, Pod
from core.scheduler.cycle import Decision, nodes_to_find, schedule
from core.scheduler.framework import SKIP, CycleState, FilterPlugin, PreFilterPlugin, ScorePlugin
from core.scheduler.registry import PLUGINS, profile
from core.scheduler.snapshot import Snapshot

MakeNode = Callable[..., Node]
MakePod = Callable[..., Pod]
PROFILE = profile()


def decide(nodes: list[Node], pod: Pod, *there: Pod, start: int = 0) -> Decision:
    snapshot = Snapshot()
    snapshot.load(nodes, there)
    return schedule(PROFILE, snapshot.nodes, pod, start)


def name(decision: Decision) -> str | None:
    return decision.node.name if decision.node else None


def test_no_nodes(pod: MakePod) -> None:
    assert decide([], pod("a")).message == "no nodes available to schedule pods"


def test_the_message_counts_reasons(node: MakeNode, pod: MakePod) -> None:
    taint = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    found = decide([node("a", cpu="1"), node("b", taints=taint), node("c", taints=taint)], pod("p", cpu="2"))
    assert found.node is None
    assert found.message == "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: yes}."
    assert found.plugins == {"NodeResourcesFit", "TaintToleration"}


@pytest.mark.parametrize(
    ("node_fields", "pod_fields", "reason"),
    [
        ({"cpu": "1"}, {"cpu": "1001m"}, "Insufficient cpu"),
        ({"memory": "1Gi"}, {"memory": "1025Mi"}, "Insufficient memory"),
        ({"pods": 0}, {}, "Too many pods"),
        ({}, {"extra": {"nvidia.com/gpu": "1"}}, "Insufficient nvidia.com/gpu"),
        ({"unschedulable": True}, {}, "node(s) were unschedulable"),
        ({}, {"nodeSelector": {"disk": "ssd"}}, "node(s) didn't match Pod's node affinity/selector"),
        ({}, {"nodeName": "other"}, "node(s) didn't match the requested node name"),
        ({"taints": [{"key": "k", "effect": "NoExecute"}]}, {}, "node(s) had untolerated taint {k: }"),
    ],
)
def test_each_reason_to_refuse(node: MakeNode, pod: MakePod, node_fields: Any, pod_fields: Any, reason: str) -> None:
    assert decide([node("n", **node_fields)], pod("p", **pod_fields)).message == f"0/1 nodes are available: 1 {reason}."


@pytest.mark.parametrize(
    ("node_fields", "pod_fields"),
    [
        ({"cpu": "1"}, {"cpu": "1"}),
        ({"extra": {"nvidia.com/gpu": "1"}}, {"extra": {"nvidia.com/gpu": "1"}}),
        ({"unschedulable": True}, {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
        ({"labels": {"disk": "ssd"}}, {"nodeSelector": {"disk": "ssd"}}),
        (
            {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
            {"tolerations": [{"key": "k", "value": "v"}]},
        ),
        ({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}, {"tolerations": [{"operator": "Exists"}]}),
        ({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}, {}),
        ({"cpu": "0", "memory": "0"}, {}),
    ],
)
def test_what_fits(node: MakeNode, pod: MakePod, node_fields: Any, pod_fields: Any) -> None:
    assert name(decide([node("n", **node_fields)], pod("p", **pod_fields))) == "n"


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "k", "value": "w"},
        {"key": "l", "operator": "Exists"},
        {"key": "k", "value": "v", "effect": "NoExecute"},
        {"value": "v"},
    ],
)
def test_what_does_not_tolerate(node: MakeNode, pod: MakePod, toleration: dict[str, str]) -> None:
    tainted = node("n", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert decide([tainted], pod("p", tolerations=[toleration])).node is None


def required(*terms: Any) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def term(operator: str, *values: str, key: str = "zone", kind: str = "matchExpressions") -> dict[str, Any]:
    return {kind: [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([term("In", "b")], "nb"),
        ([term("NotIn", "a", "c")], "nb"),
        ([term("In", "x"), term("In", "c")], "nc"),
        ([term("Gt", "4", key="rank")], "nc"),
        ([term("In", "nb", key="metadata.name", kind="matchFields")], "nb"),
        ([term("In", "x")], None),
        ([{}], None),
    ],
)
def test_required_node_affinity(node: MakeNode, pod: MakePod, terms: list[Any], expected: str | None) -> None:
    nodes = [node(f"n{zone}", labels={"zone": zone, "rank": str(rank)}) for rank, zone in enumerate("abc", 3)]
    assert name(decide(nodes, pod("p", affinity=required(*terms)))) == expected


def test_affinity_that_can_not_be_read_is_a_message(node: MakeNode, pod: MakePod) -> None:
    found = decide([node("n")], pod("p", affinity=required({"matchExpressions": [{"key": "a", "operator": "Like"}]})))
    assert found.node is None
    assert "can't be read" in found.message


def test_preferred_affinity_outweighs_free_space(node: MakeNode, pod: MakePod) -> None:
    preference = {"weight": 10, "preference": term("In", "a")}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}
    nodes = [node("b", cpu="8", labels={"zone": "b"}), node("a", labels={"zone": "a"})]
    assert name(decide(nodes, pod("p", cpu="1", affinity=affinity))) == "a"


def test_soft_taints_are_avoided(node: MakeNode, pod: MakePod) -> None:
    nodes = [node("a", cpu="64", taints=[{"key": "k", "effect": "PreferNoSchedule"}]), node("b")]
    assert name(decide(nodes, pod("p", cpu="1"))) == "b"


def test_the_emptier_node_is_chosen(node: MakeNode, pod: MakePod) -> None:
    assert name(decide([node("a"), node("b")], pod("p", cpu="1"), pod("x", cpu="1", node="a"))) == "b"


def test_pods_without_requests_spread_too(node: MakeNode, pod: MakePod) -> None:
    assert name(decide([node("a"), node("b")], pod("p"), pod("x", node="a"))) == "b"


def test_balance_decides_between_equally_full_nodes(node: MakeNode, pod: MakePod) -> None:
    there = [pod("x", cpu="2", memory="1Mi", node="a"), pod("y", cpu="1", memory="2Gi", node="b")]
    assert name(decide([node("a"), node("b")], pod("p", cpu="1", memory="1Mi"), *there)) == "b"


def test_a_host_port_is_there_once_per_node(node: MakeNode, pod: MakePod) -> None:
    ports = [{"containerPort": 80, "hostPort": 80}]
    there = pod("x", ports=ports, node="a")
    assert name(decide([node("a"), node("b")], pod("p", ports=ports), there)) == "b"
    assert "free ports" in decide([node("a")], pod("p", ports=ports), there).message
    udp = [{"containerPort": 80, "hostPort": 80, "protocol": "UDP"}]
    assert name(decide([node("a")], pod("p", ports=udp), there)) == "a"


def test_terminal_pods_take_nothing(node: MakeNode, pod: MakePod) -> None:
    done = pod("x", cpu="4", node="a")
    done.status.phase = "Succeeded"
    assert name(decide([node("a")], pod("p", cpu="4"), done)) == "a"


@pytest.mark.parametrize(("total", "wanted"), [(1, 1), (50, 50), (100, 50), (5000, 50), (20000, 200)])
def test_how_many_nodes_are_enough(total: int, wanted: int) -> None:
    assert nodes_to_find(total) == wanted


def test_a_large_cluster_is_sampled_from_the_start_index(node: MakeNode, pod: MakePod) -> None:
    nodes = [node(f"n{number}") for number in range(200)]
    found = decide(nodes, pod("p"), start=180)
    assert found.looked_at == 50
    assert found.node is not None
    assert int(found.node.name[1:]) in {*range(180, 200), *range(30)}


def test_a_large_cluster_is_searched_whole_for_the_one_node_that_fits(node: MakeNode, pod: MakePod) -> None:
    nodes = [node(f"n{number}", labels={"k": "v"} if number == 99 else {}) for number in range(200)]
    found = decide(nodes, pod("p", nodeSelector={"k": "v"}), start=100)
    assert (name(found), found.looked_at) == ("n99", 200)


def test_every_plugin_of_the_table_is_used_and_named_once() -> None:
    assert len({each.name for each in PLUGINS}) == len(PLUGINS)
    for each in PLUGINS:
        assert isinstance(each, PreFilterPlugin | FilterPlugin | ScorePlugin)
        assert each.helped_by


def test_a_skipped_plugin_is_not_asked(node: MakeNode, pod: MakePod) -> None:
    class Never:
        name = "Never"
        helped_by: frozenset[Any] = frozenset()

        def pre_filter(self, state: CycleState, pod: Pod) -> Any:
            return SKIP

        def filter(self, state: CycleState, pod: Pod, node: Any) -> Any:
            raise AssertionError("was skipped")

    snapshot = Snapshot()
    snapshot.load([node("a")], [])
    assert name(schedule(profile((*PLUGINS, Never())), snapshot.nodes, pod("p"))) == "a"
