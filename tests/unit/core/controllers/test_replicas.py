"""What a ReplicaSet makes of the Pods that the cache shows: rows of world -> plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.api import views
from core.api.views import Pod, ReplicaSet
from core.clock import timestamp
from core.controllers import replicas

MakePod = Callable[..., Pod]
NOW = 1_700_000_000.0
GOING = {"deletionTimestamp": timestamp(NOW)}


def replica_set(count: int = 1, *, meta: Any = None, status: Any = None, **spec: Any) -> ReplicaSet:
    template = {"metadata": {"labels": {"app": "a"}, "annotations": {"n": "1"}}, "spec": {"containers": []}}
    return msgspec.convert(
        {
            "metadata": {"name": "rs", "namespace": "default", "uid": "me", "generation": 3, **(meta or {})},
            "spec": {"replicas": count, "selector": {"matchLabels": {"app": "a"}}, "template": template, **spec},
            "status": status or {},
        },
        views.ReplicaSet,
    )


@pytest.mark.parametrize(
    ("there", "wanted", "create", "delete"), [(0, 3, 3, 0), (1, 3, 2, 0), (3, 3, 0, 0), (5, 3, 0, 2), (2, 0, 0, 2)]
)
def test_the_difference_is_made_up(pod: MakePod, there: int, wanted: int, create: int, delete: int) -> None:
    found = replicas.plan(replica_set(wanted), [pod(f"p{number}") for number in range(there)])
    assert (found.create, len(found.delete)) == (create, delete)


def test_one_sync_creates_at_most_a_burst() -> None:
    assert replicas.plan(replica_set(2000), []).create == replicas.BURST


def test_ended_and_going_pods_are_replaced(pod: MakePod) -> None:
    there = [
        pod("a", status={"phase": "Failed"}),
        pod("b", status={"phase": "Succeeded"}),
        pod("c", meta=GOING),
        pod("d"),
    ]
    assert replicas.plan(replica_set(2), there).create == 1


def test_a_set_that_is_deleted_does_nothing(pod: MakePod) -> None:
    assert replicas.plan(replica_set(3, meta=GOING), []) == replicas.Plan()
    assert replicas.plan(replica_set(0, meta=GOING), [pod()]) == replicas.Plan()


def test_the_ranking_of_deletion(pod: MakePod) -> None:
    def made(at: float) -> dict[str, Any]:
        return {"creationTimestamp": timestamp(NOW + at)}

    cost = {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}
    restarts = {"containerStatuses": [{"name": "c", "restartCount": 4}]}
    order = [
        pod("unassigned"),
        pod("pending", nodeName="n1"),
        pod("not-ready", nodeName="n2", status={"phase": "Running"}),
        pod("cheap", nodeName="n3", ready=True, since=NOW - 1000, meta=cost),
        pod("crowded", nodeName="n4", ready=True, since=NOW - 1000, meta=made(0)),
        pod("crowded-too", nodeName="n4", ready=True, since=NOW - 2000, meta=made(0)),
        pod("fresh", nodeName="n5", ready=True, since=NOW - 10, meta=made(0)),
        pod("restarted", nodeName="n6", ready=True, since=NOW - 1000, meta=made(0), status=restarts),
        pod("young", nodeName="n7", ready=True, since=NOW - 1000, meta=made(20)),
        pod("old", nodeName="n8", ready=True, since=NOW - 1000, meta=made(10)),
    ]
    expected = [each.name for each in order]
    assert [each.name for each in replicas.ranked(list(reversed(order)))] == expected
    assert [each.name for each in replicas.plan(replica_set(8), order).delete] == ["unassigned", "pending"]


def test_claims(pod: MakePod) -> None:
    other = {"labels": {"app": "b"}}
    found = replicas.claim(
        replica_set(),
        [
            pod("mine", owner="me"),
            pod("mine-no-more", owner="me", meta=other),
            pod("theirs", owner="you"),
            pod("orphan"),
            pod("stranger", meta=other),
            pod("orphan-going", meta=GOING),
            pod("orphan-ended", status={"phase": "Failed"}),
        ],
    )
    assert [each.name for each in found.owned] == ["mine"]
    assert [each.name for each in found.release] == ["mine-no-more"]
    assert [each.name for each in found.adopt] == ["orphan"]


def test_a_set_that_is_deleted_neither_adopts_nor_releases(pod: MakePod) -> None:
    found = replicas.claim(replica_set(meta=GOING), [pod("mine", owner="me", meta={"labels": {}}), pod("orphan")])
    assert (len(found.owned), found.adopt, found.release) == (1, [], [])


@pytest.mark.parametrize("selector", [None, {}, {"matchExpressions": [{"key": "a", "operator": "Like"}]}])
def test_a_selector_that_selects_nothing_or_everything_adopts_nobody(pod: MakePod, selector: Any) -> None:
    assert replicas.claim(replica_set(selector=selector), [pod("orphan")]).adopt == []


def test_the_pod_is_made_from_the_template() -> None:
    document = replicas.pod_document(replica_set())
    assert document["metadata"]["generateName"] == "rs-"
    assert document["metadata"]["labels"] == {"app": "a"}
    assert document["metadata"]["annotations"] == {"n": "1"}
    assert document["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "rs",
            "uid": "me",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert document["spec"] == {"containers": []}


def test_status_counts(pod: MakePod) -> None:
    pods = [
        pod("ready", ready=True, since=NOW - 60),
        pod("fresh", ready=True, since=NOW - 5),
        pod("pending"),
        pod("labelled-else", meta={"labels": {"x": "y"}}),
        pod("going", ready=True, meta=GOING),
    ]
    status = replicas.new_status(replica_set(4, minReadySeconds=10), pods, NOW, None)
    assert status == {
        "replicas": 4,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "observedGeneration": 3,
        "conditions": [],
    }
    assert replicas.available_in(pods[1], 10, NOW) == 5.0


def test_an_unchanged_status_is_not_written(pod: MakePod) -> None:
    status = {"replicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 3}
    assert replicas.new_status(replica_set(status=status), [pod()], NOW, None) is None
    assert replicas.new_status(replica_set(status={**status, "observedGeneration": 2}), [pod()], NOW, None) is not None


def test_a_failure_becomes_a_condition_and_goes_again(pod: MakePod) -> None:
    status = replicas.new_status(replica_set(), [], NOW, "FailedCreate: exceeded quota: small")
    assert status is not None
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
    assert condition["message"] == "exceeded quota: small"
    failed = replica_set(status={**status})
    assert replicas.new_status(failed, [], NOW + 5, "FailedCreate: exceeded quota: small") is None
    recovered = replicas.new_status(failed, [], NOW, None)
    assert recovered is not None
    assert recovered["conditions"] == []
