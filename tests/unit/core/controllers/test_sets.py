"""StatefulSets, DaemonSets and budgets, as rows: what is there, what is to be done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api.views import DaemonSet, DisruptionBudget, Node, PersistentVolumeClaim, Pod, StatefulSet
from core.clock import timestamp
from core.controllers import daemons, stateful
from core.controllers.disruption import budget
from core.controllers.revisions import LABEL

NOW = 1_000_000.0


def pod(
    name: str, revision: str = "new", *, ready: bool = True, phase: str = "Running", going: bool = False, node: str = ""
) -> Pod:
    meta: dict[str, Any] = {"name": name, "namespace": "n", "uid": name, "labels": {LABEL: revision}}
    if going:
        meta["deletionTimestamp"] = timestamp(NOW)
    conditions = [{"type": "Ready", "status": str(ready)}]
    return msgspec.convert(
        {"metadata": meta, "spec": {"nodeName": node}, "status": {"phase": phase, "conditions": conditions}}, Pod
    )


def stateful_set(replicas: int = 3, current: str = "", **spec: Any) -> StatefulSet:
    spec = {
        "replicas": replicas,
        "serviceName": "s",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": spec.pop("partition", 0)}},
        **spec,
    }
    return msgspec.convert(
        {"metadata": {"name": "d", "namespace": "n", "uid": "u"}, "spec": spec, "status": {"currentRevision": current}},
        StatefulSet,
    )


@pytest.mark.parametrize(
    ("found", "pods", "create", "delete"),
    [
        pytest.param(stateful_set(), [], [(0, True)], [], id="the first"),
        pytest.param(stateful_set(), [pod("d-0", ready=False)], [], [], id="which must be ready before the second"),
        pytest.param(stateful_set(), [pod("d-0")], [(1, True)], [], id="the second"),
        pytest.param(stateful_set(podManagementPolicy="Parallel"), [], [(0, True), (1, True), (2, True)], [], id="parallel"),
        pytest.param(stateful_set(1), [pod("d-0"), pod("d-1"), pod("d-2")], [], ["d-2"], id="scaled down from the end"),
        pytest.param(stateful_set(1), [pod("d-0"), pod("d-1"), pod("d-2", going=True)], [], [], id="one at a time"),
        pytest.param(stateful_set(2), [pod("d-0", "old"), pod("d-1", "old")], [], ["d-1"], id="updated from the end"),
        pytest.param(stateful_set(2), [pod("d-0", "old"), pod("d-1", ready=False)], [], [], id="the next waits for the last"),
        pytest.param(stateful_set(2, partition=1), [pod("d-0", "old"), pod("d-1")], [], [], id="below the partition they stay"),
        pytest.param(stateful_set(2, "d-old", partition=1), [], [(0, False)], [], id="and come back as they were"),
        pytest.param(stateful_set(1), [pod("d-0", phase="Failed")], [], ["d-0"], id="one that failed makes room"),
        pytest.param(stateful_set(1, updateStrategy={"type": "OnDelete"}), [pod("d-0", "old")], [], [], id="on deletion"),
    ],
)  # fmt: skip
def test_stateful_steps(found, pods, create, delete):
    step = stateful.decide(found, pods, "new", NOW)
    assert (step.create, [each.name for each in step.delete]) == (create, delete)


def test_a_stateful_pod_has_names_and_volumes_of_its_own():
    found = stateful_set(volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}], selector={"matchLabels": {"a": "b"}})  # fmt: skip
    made = stateful.pod_document(found, {"metadata": {"labels": {"a": "b"}}, "spec": {}}, 2, "new")
    assert made["metadata"]["name"] == "d-2" and (made["spec"]["hostname"], made["spec"]["subdomain"]) == ("d-2", "s")
    assert made["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-d-2"}}]
    assert [each["metadata"]["name"] for each in stateful.claims(found, 2)] == ["data-d-2"]
    assert made["metadata"]["labels"][stateful.INDEX_LABEL] == "2"


def test_a_pod_counts_once_it_has_been_ready_for_long_enough():
    found, fresh = stateful_set(2, minReadySeconds=10), pod("d-0")
    fresh.status.conditions[0].last_transition_time = timestamp(NOW - 4)
    assert stateful.decide(found, [fresh], "new", NOW).create == [] and stateful.next_check(found, [fresh], NOW) == 6.0
    assert stateful.decide(found, [fresh], "new", NOW + 6).create == [(1, True)]
    assert stateful.new_status(found, [fresh], "d-new", NOW)["availableReplicas"] == 0


@pytest.mark.parametrize(
    ("deleted", "scaled", "owners"),
    [
        ("Retain", "Retain", [None, None]), ("Delete", "Retain", ["StatefulSet", "StatefulSet"]),
        ("Retain", "Delete", [None, "Pod"]), ("Delete", "Delete", ["StatefulSet", "Pod"]),
    ],
)  # fmt: skip
def test_with_whom_claims_go(deleted, scaled, owners):
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    found = stateful_set(1, volumeClaimTemplates=[{"metadata": {"name": "data"}}], persistentVolumeClaimRetentionPolicy=policy)  # fmt: skip
    pods = [pod("d-0"), pod("d-1")]
    wanted = stateful.claim_owners(found, pods)
    assert list(wanted) == ["data-d-0", "data-d-1"]
    other = {"kind": "Other", "name": "o", "uid": "o"}
    for name, kind in zip(wanted, owners, strict=True):
        claim = msgspec.convert({"metadata": {"name": name, "ownerReferences": [other]}}, PersistentVolumeClaim)
        references = stateful.claim_references(claim, wanted[name])
        assert [each["kind"] for each in references or [other]] == ["Other", *([kind] if kind else [])]
    assert ("ownerReferences" in stateful.claims(found, 0)[0]["metadata"]) == (deleted == "Delete")


def test_the_current_revision_moves_when_all_are_new():
    half = stateful.new_status(stateful_set(2, "d-old"), [pod("d-0", "old"), pod("d-1")], "d-new", NOW)
    assert (half["currentRevision"], half["updatedReplicas"], half["currentReplicas"]) == ("d-old", 1, 1)
    done = stateful.new_status(stateful_set(2, "d-old"), [pod("d-0"), pod("d-1")], "d-new", NOW)
    assert (done["currentRevision"], done["currentReplicas"]) == ("d-new", 2)


def node(name: str, labels: Any = None, **spec: Any) -> Node:
    return msgspec.convert({"metadata": {"name": name, "labels": labels or {}}, "spec": spec}, Node)


def daemon_set(**template: Any) -> DaemonSet:
    spec = {
        "template": {"spec": template},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
    }
    return msgspec.convert({"metadata": {"name": "d", "namespace": "n", "uid": "u"}, "spec": spec}, DaemonSet)


NO_SCHEDULE = [{"key": "k", "effect": "NoSchedule"}]
NO_EXECUTE = [{"key": "k", "effect": "NoExecute"}]


@pytest.mark.parametrize(
    ("found", "where", "expected"),
    [
        (daemon_set(), node("a"), (True, True)),
        (daemon_set(), node("a", unschedulable=True), (True, True)),
        (daemon_set(), node("a", taints=NO_SCHEDULE), (False, True)),
        (daemon_set(), node("a", taints=NO_EXECUTE), (False, False)),
        (daemon_set(tolerations=[{"operator": "Exists"}]), node("a", taints=NO_EXECUTE), (True, True)),
        (daemon_set(nodeSelector={"disk": "ssd"}), node("a"), (False, False)),
        (daemon_set(nodeSelector={"disk": "ssd"}), node("a", {"disk": "ssd"}), (True, True)),
    ],
)
def test_where_a_daemon_belongs(found, where, expected):
    assert daemons.wanted(found, where) == expected


@pytest.mark.parametrize(
    ("pods", "create", "delete"),
    [
        pytest.param([], ["a", "b"], [], id="one each"),
        pytest.param([pod("x", node="a"), pod("y", node="b")], [], [], id="all are there"),
        pytest.param([pod("x", node="a"), pod("y", node="b"), pod("z", node="gone")], [], ["z"], id="its node is gone"),
        pytest.param([pod("x", node="a"), pod("w", node="a"), pod("y", node="b")], [], ["w"], id="two on one node"),
        pytest.param([pod("x", "old", node="a"), pod("y", "old", node="b")], [], ["x"], id="updated one at a time"),
        pytest.param(
            [pod("x", "old", node="a"), pod("y", ready=False, node="b")], [], [], id="which must be ready first"
        ),
        pytest.param(
            [pod("x", "old", ready=False, node="a"), pod("y", "old", node="b")], [], ["x"], id="a broken one first"
        ),
        pytest.param(
            [pod("x", phase="Failed", node="a"), pod("y", node="b")], [], ["x"], id="one that failed is replaced"
        ),
    ],
)
def test_daemons(pods, create, delete):
    plan = daemons.decide(daemon_set(), [node("a"), node("b")], pods, "new", NOW)
    assert (plan.create, [each.name for each in plan.delete]) == (create, delete)


def surging(**spec: Any) -> DaemonSet:
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    body = {"template": {"spec": {}}, "updateStrategy": update, **spec}
    return msgspec.convert({"metadata": {"name": "d", "namespace": "n", "uid": "u"}, "spec": body}, DaemonSet)


def aged(found: Pod, at: float) -> Pod:
    found.metadata.creation_timestamp = timestamp(at)
    return found


@pytest.mark.parametrize(
    ("pods", "create", "delete"),
    [
        pytest.param([pod("x", "old", node="a"), pod("y", "old", node="b")], ["a"], [], id="a second one on as many nodes as may have it"),
        pytest.param([pod("x", "old", node="a"), aged(pod("n", node="a", ready=False), NOW), pod("y", "old", node="b")], [], [], id="which must be ready first"),
        pytest.param([pod("x", "old", node="a"), aged(pod("n", node="a"), NOW), pod("y", "old", node="b")], [], ["x"], id="and then the old one goes"),
        pytest.param([pod("n", node="a"), pod("y", "old", node="b")], ["b"], [], id="the next node"),
        pytest.param([pod("n", node="a"), pod("m", node="b")], [], [], id="done"),
        pytest.param([pod("x", "old", node="a", ready=False), aged(pod("n", node="a", ready=False), NOW), pod("m", node="b")], [], ["x"], id="a broken one isn't waited for"),
    ],
)  # fmt: skip
def test_daemons_that_surge(pods, create, delete):
    plan = daemons.decide(surging(), [node("a"), node("b")], pods, "new", NOW)
    assert (plan.create, [each.name for each in plan.delete]) == (create, delete)


def test_a_daemon_counts_once_it_has_been_ready_for_long_enough():
    found, fresh = surging(minReadySeconds=10), aged(pod("n", node="a"), NOW)
    fresh.status.conditions[0].last_transition_time = timestamp(NOW - 4)
    old = pod("x", "old", node="a")
    assert daemons.decide(found, [node("a")], [old, fresh], "new", NOW).delete == []
    assert daemons.next_check(found, [fresh], NOW) == 6.0
    assert [each.name for each in daemons.decide(found, [node("a")], [old, fresh], "new", NOW + 6).delete] == ["x"]
    status = daemons.new_status(found, [node("a")], [fresh], "new", NOW)
    assert (status["numberReady"], status["numberAvailable"], status["numberUnavailable"]) == (1, 0, 1)


def test_a_daemon_names_its_node():
    made = daemons.pod_document(daemon_set(), "a", "new")
    assert daemons.node_of(msgspec.convert({"spec": made["spec"]}, Pod)) == "a"


@pytest.mark.parametrize(
    ("spec", "pods", "expected", "allowed"),
    [
        ({"minAvailable": 1}, ["a", "b"], 2, 1),
        ({"minAvailable": "50%"}, ["a", "b", "c", "d"], 4, 2),
        ({"minAvailable": "100%"}, ["a", "b"], 2, 0),
        ({"maxUnavailable": 1}, ["a", "b", "c"], 3, 1),
        ({"maxUnavailable": 1}, ["a", "b"], 3, 0),
        ({"maxUnavailable": "50%"}, ["a", "b", "c", "d"], 4, 2),
        ({"minAvailable": 1}, [], 0, 0),
        ({"minAvailable": 5}, ["a"], 1, 0),
    ],
)
def test_budgets(spec, pods, expected, allowed):
    found = msgspec.convert({"metadata": {"name": "b", "generation": 2}, "spec": spec}, DisruptionBudget)
    status = budget(found, [pod(name) for name in pods], expected, NOW)
    assert (status["disruptionsAllowed"], status["currentHealthy"], status["observedGeneration"]) == (
        allowed,
        len(pods),
        2,
    )
    told = msgspec.convert(
        {"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status}, DisruptionBudget
    )
    assert budget(told, [pod(name) for name in pods], expected, NOW) is None


def test_an_eviction_that_has_been_granted_counts_until_the_pod_goes():
    status = {"disruptedPods": {"a": timestamp(NOW - 1), "gone": timestamp(NOW), "c": timestamp(NOW - 500)}}
    found = msgspec.convert(
        {"metadata": {"name": "b"}, "spec": {"minAvailable": 1}, "status": status}, DisruptionBudget
    )
    new = budget(found, [pod("a"), pod("b"), pod("c")], 3, NOW)
    assert new["disruptedPods"] == {"a": timestamp(NOW - 1), "gone": None, "c": None}
    assert (new["currentHealthy"], new["disruptionsAllowed"]) == (2, 1)
