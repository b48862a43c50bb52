"""Deployments' arithmetic, as rows: how large each ReplicaSet may be now, and what the status says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api.views import Deployment, ReplicaSet
from core.clock import timestamp
from core.controllers import rollout

TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x:2"}]}}
OLD = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}
NOW = 1_000_000.0


def deployment(replicas: int = 4, surge: Any = "25%", unavailable: Any = "25%", **fields: Any) -> Deployment:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE, "strategy": strategy}
    spec |= {"progressDeadlineSeconds": 600, "revisionHistoryLimit": 2, **fields.pop("spec", {})}
    meta = {"name": "d", "namespace": "n", "uid": "u", "generation": 1}
    return msgspec.convert({"metadata": meta, "spec": spec, **fields}, Deployment)


def replica_set(name: str, size: int, available: int, template: Any = OLD, **annotations: str) -> ReplicaSet:
    labels = {**template["metadata"]["labels"], rollout.HASH_LABEL: name}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1, "creationTimestamp": timestamp(NOW + ord(name[0])),
                         "annotations": {rollout.REVISION: annotations.pop("revision", "1"), **{f"deployment.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}}},
            "spec": {"replicas": size, "template": {**template, "metadata": {"labels": labels}}},
            "status": {"replicas": size, "availableReplicas": available, "readyReplicas": available, "observedGeneration": 1},
        },
        ReplicaSet,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "surge", "unavailable", "new", "old", "expected"),
    [
        pytest.param(4, "25%", "25%", (0, 0), [(4, 4)], {"new": 1}, id="the new one grows into the surge"),
        pytest.param(
            4, "25%", "25%", (1, 0), [(4, 4)], {"a": 3}, id="then the old one shrinks as far as may be missing"
        ),
        pytest.param(4, "25%", "25%", (2, 0), [(3, 3)], {}, id="and waits for the new Pods"),
        pytest.param(4, 1, 0, (1, 0), [(4, 4)], {}, id="nothing may be missing: the old ones wait"),
        pytest.param(4, 1, 0, (1, 1), [(4, 4)], {"a": 3}, id="one new is there: one old may go"),
        pytest.param(4, 0, 1, (0, 0), [(4, 4)], {"a": 3}, id="no surge: an old one goes first"),
        pytest.param(4, "25%", "25%", (1, 0), [(4, 0)], {"a": 3}, id="old ones that do not work go first"),
        pytest.param(4, "100%", 0, (0, 0), [(4, 4)], {"new": 4}, id="a whole second set"),
        pytest.param(4, "25%", "25%", (4, 4), [(0, 0)], {}, id="done"),
        pytest.param(2, "25%", "25%", (4, 4), [(0, 0)], {"new": 2}, id="the new one is too large"),
        pytest.param(4, "25%", "25%", (3, 3), [(1, 1), (1, 1)], {"a": 0, "b": 0}, id="of several the oldest first"),
        pytest.param(1, "25%", "25%", (0, 0), [(1, 1)], {"new": 1}, id="percentages of one: a surge of one"),
    ],
)
def test_rolling(wanted, surge, unavailable, new, old, expected):
    found = rollout.rolling(
        deployment(wanted, surge, unavailable),
        replica_set("new", *new, TEMPLATE),
        [replica_set("ab"[index], *each) for index, each in enumerate(old)],
    )
    assert {each.set.name: each.replicas for each in found} == expected


@pytest.mark.parametrize(
    ("wanted", "sets", "expected"),
    [
        pytest.param(6, [("new", 3, 3)], {"new": 6}, id="the only one follows"),
        pytest.param(0, [("new", 3, 3)], {"new": 0}, id="to nothing"),
        pytest.param(
            20, [("a", 5, 5), ("new", 5, 5)], {"a": 10, "new": 15}, id="two share what is new, surge included"
        ),
        pytest.param(0, [("a", 2, 2), ("new", 2, 2)], {"a": 0, "new": 0}, id="two go to nothing"),
    ],
)
def test_proportional(wanted, sets, expected):
    made = [replica_set(name, size, ready, TEMPLATE if name == "new" else OLD, desired_replicas="10", max_replicas="13") for name, size, ready in sets]  # fmt: skip
    new = next((each for each in made if each.name == "new"), None)
    found = rollout.proportional(deployment(wanted), new, [each for each in made if each is not new])
    total = sum(each.replicas for each in found)
    assert {each.set.name for each in found} == set(expected)
    assert total == sum(expected.values())


def test_the_new_set_is_the_oldest_with_the_template():
    one, two, other = replica_set("b", 1, 1, TEMPLATE), replica_set("a", 1, 1, TEMPLATE), replica_set("c", 1, 1)
    assert rollout.find_new(deployment(), [one, two, other]) is two
    assert rollout.find_new(deployment(), [other]) is None


def test_a_new_set_has_hash_revision_and_annotations():
    found = deployment(
        annotations={},
        metadata={
            "name": "d",
            "namespace": "n",
            "uid": "u",
            "annotations": {
                "note": "x",
                rollout.REVISION: "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
    )
    made = rollout.new_set(found, [replica_set("a", 4, 4, revision="3")])
    label = made["metadata"]["labels"][rollout.HASH_LABEL]
    assert (
        made["metadata"]["name"] == f"d-{label}"
        and made["spec"]["selector"]["matchLabels"][rollout.HASH_LABEL] == label
    )
    assert made["spec"]["replicas"] == 1
    assert made["metadata"]["annotations"] == {
        "note": "x",
        rollout.REVISION: "4",
        rollout.DESIRED: "4",
        rollout.MAXIMUM: "5",
    }
    assert (
        rollout.template_hash(TEMPLATE, 1) != rollout.template_hash(TEMPLATE, None) != rollout.template_hash(OLD, None)
    )
    assert rollout.same_template(made["spec"]["template"], TEMPLATE)


def _conditions(status):
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def test_status_from_the_first_moment_to_the_end():
    new = replica_set("new", 4, 4, TEMPLATE)
    status = rollout.new_status(deployment(), new, [], NOW)
    assert _conditions(status) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert (status["updatedReplicas"], status["unavailableReplicas"], status["observedGeneration"]) == (4, 0, 1)
    done = deployment(status=status)
    assert rollout.new_status(done, new, [], NOW + 9) is None, "nothing changed"
    assert rollout.next_check(done, NOW) is None


def test_a_rollout_that_stands_still_times_out():
    new = replica_set("new", 1, 0, TEMPLATE)
    begun = rollout.new_status(deployment(), new, [], NOW, created="new")
    assert _conditions(begun)["Progressing"] == ("True", "NewReplicaSetCreated")
    standing = deployment(status=begun)
    assert rollout.next_check(standing, NOW) == 601.0
    late = rollout.new_status(standing, new, [], NOW + 601)
    assert _conditions(late)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    assert _conditions(late)["Available"] == ("False", "MinimumReplicasUnavailable")


def test_pause_and_refusal():
    paused = deployment(spec={"paused": True})
    assert _conditions(rollout.new_status(paused, None, [], NOW))["Progressing"] == ("Unknown", "DeploymentPaused")
    refused = rollout.new_status(deployment(), None, [], NOW, refused="quota")
    assert _conditions(refused)["Progressing"] == ("False", "ReplicaSetCreateError")


def test_history_keeps_the_newest():
    old = [replica_set(name, 0, 0, revision=str(number)) for number, name in enumerate("abcd")]
    assert [each.name for each in rollout.obsolete(deployment(), old)] == ["a", "b"]
    busy = [replica_set("a", 1, 1, revision="0"), *old[1:]]
    assert [each.name for each in rollout.obsolete(deployment(), busy)] == ["b"]
