"""The accounts of nodes: whatever comes in whatever order, they add up."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api import views
from core.api.views import Node, Pod
from core.scheduler.snapshot import NodeInfo, Snapshot, requests_of

MakeNode = Callable[..., Node]
MakePod = Callable[..., Pod]


def accounts(snapshot: Snapshot, name: str) -> tuple[int, int, int]:
    info = snapshot.info(name)
    assert info is not None
    return info.requested_cpu, info.requested_memory, len(info.pods)


def test_requests_of_init_containers_sidecars_and_overhead() -> None:
    def container(cpu: str, **rest: object) -> dict[str, object]:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **rest}

    def cpu(**spec: object) -> int:
        return requests_of(msgspec.convert({"spec": spec}, views.Pod)).cpu

    assert cpu(containers=[container("100m"), container("200m")]) == 300
    assert cpu(containers=[container("100m")], initContainers=[container("1"), container("500m")]) == 1000
    sidecar = container("50m", restartPolicy="Always")
    assert cpu(containers=[container("100m")], initContainers=[sidecar]) == 150
    assert cpu(containers=[container("100m")], initContainers=[sidecar, container("1")]) == 1050
    assert cpu(containers=[container("100m")], overhead={"cpu": "10m"}) == 110


def test_limits_stand_for_requests_that_are_not_given() -> None:
    pod = {
        "spec": {"containers": [{"resources": {"limits": {"memory": "64Mi", "cpu": 1}, "requests": {"cpu": "0.1"}}}]}
    }
    found = requests_of(msgspec.convert(pod, views.Pod))
    assert (found.cpu, found.memory) == (100, 64 * 1024**2)


def test_assume_then_confirm_counts_once(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("a"))
    snapshot.assume(pod("p", cpu="1"), "a")
    assert accounts(snapshot, "a") == (1000, 0, 1)
    assert snapshot.assumed("default/p")
    snapshot.set_pod(pod("p", cpu="1", node="a"))
    assert accounts(snapshot, "a") == (1000, 0, 1)
    assert not snapshot.assumed("default/p")
    assert snapshot.forget("default/p") is False
    assert accounts(snapshot, "a") == (1000, 0, 1)


def test_forget_takes_back_only_what_was_assumed(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("a"))
    snapshot.assume(pod("p", cpu="1"), "a")
    assert snapshot.forget("default/p") is True
    assert accounts(snapshot, "a") == (0, 0, 0)


def test_bound_elsewhere_than_assumed(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("a"))
    snapshot.set_node(node("b"))
    snapshot.assume(pod("p", cpu="1"), "a")
    snapshot.set_pod(pod("p", cpu="1", node="b"))
    assert accounts(snapshot, "a") == (0, 0, 0)
    assert accounts(snapshot, "b") == (1000, 0, 1)


def test_a_pod_may_come_before_its_node(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.set_pod(pod("p", cpu="1", node="a"))
    assert snapshot.nodes == []
    snapshot.set_node(node("a"))
    assert [each.name for each in snapshot.nodes] == ["a"]
    assert accounts(snapshot, "a") == (1000, 0, 1)


def test_a_node_that_goes_and_returns_keeps_its_pods(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.load([node("a")], [pod("p", cpu="1", node="a")])
    snapshot.remove_node("a")
    assert snapshot.nodes == []
    snapshot.set_node(node("a"))
    assert accounts(snapshot, "a") == (1000, 0, 1)
    snapshot.remove_node("a")
    snapshot.remove_pod("default/p")
    assert snapshot.info("a") is None


def test_a_changed_node_changes_what_is_allocatable(node: MakeNode) -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("a", cpu="1"))
    snapshot.set_node(node("a", cpu="2"))
    assert [each.allocatable_cpu for each in snapshot.nodes] == [2000]


@given(
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from(["assume", "set", "forget", "remove"]), st.sampled_from("ab"))
    )
)
def test_accounts_add_up(steps: list[tuple[str, str, str]]) -> None:
    snapshot = Snapshot()
    for name in "ab":
        snapshot.set_node(msgspec.convert({"metadata": {"name": name}}, views.Node))
    for name, step, place in steps:
        pod = msgspec.convert(
            {
                "metadata": {"name": name},
                "spec": {"nodeName": place, "containers": [{"resources": {"requests": {"cpu": "100m"}}}]},
            },
            views.Pod,
        )
        match step:
            case "assume":
                snapshot.assume(pod, place)
            case "set":
                snapshot.set_pod(pod)
            case "forget":
                snapshot.forget(name)
            case _:
                snapshot.remove_pod(name)
    for info in snapshot.nodes:
        assert isinstance(info, NodeInfo)
        assert info.requested_cpu == 100 * len(info.pods)
        assert all(snapshot.place(key) == info.name for key in info.pods)


def test_ports_are_freed(node: MakeNode, pod: MakePod) -> None:
    snapshot = Snapshot()
    snapshot.load([node("a")], [pod("p", node="a", ports=[{"containerPort": 1, "hostPort": 1}])])
    assert snapshot.nodes[0].ports == {("TCP", 1): 1}
    snapshot.remove_pod("default/p")
    assert snapshot.nodes[0].ports == {}
    with pytest.raises(KeyError):
        snapshot.nodes[0].remove("default/p")
