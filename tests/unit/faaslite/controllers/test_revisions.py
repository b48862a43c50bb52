"""Decisions about revisions: traffic, faults, pruning, conditions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api import views
from core.api.views import Pod, ReplicaSet
from faaslite.api.function import Function, validate
from faaslite.controllers.revisions import (
    Failure,
    RouteError,
    crashed,
    diagnose,
    number_of,
    replace_delay,
    resolve_traffic,
    to_prune,
)
from faaslite.controllers.status import Verdict, new_status, only_replicas_differ, ready_condition

DIGEST = "sha256:" + "a" * 64
YES = Verdict("True", "Fine")


def function(**spec: Any) -> Function:
    return validate({"metadata": {"name": "hello"}, "spec": {"package": {"digest": DIGEST}, **spec}})


def revision(number: int, concurrency: int = 10, **fields: Any) -> ReplicaSet:
    env = [{"name": "FAASLITE_CONCURRENCY", "value": str(concurrency)}, {"name": "FAASLITE_TIMEOUT", "value": "30"}]
    return msgspec.convert(
        {
            "metadata": {"name": f"hello-{number:05d}"},
            "spec": {"template": {"spec": {"containers": [{"env": env}]}}},
            **fields,
        },
        views.ReplicaSet,
    )


def known(*numbers: int) -> dict[str, ReplicaSet]:
    return {f"hello-{number:05d}": revision(number, number) for number in numbers}


def share(number: int, percent: int) -> dict[str, Any]:
    return {"revision": f"hello-{number:05d}", "percent": percent, "concurrency": number, "timeout": 30.0}


@pytest.mark.parametrize(
    ("traffic", "ready", "expected"),
    [
        ([], 3, [share(3, 100)]),
        ([("latest", 100)], 2, [share(2, 100)]),
        ([("latest", 90), ("2", 10)], 3, [share(3, 90), share(2, 10)]),
        ([("latest", 90), ("hello-00001", 10)], 3, [share(3, 90), share(1, 10)]),
        ([("latest", 90), ("3", 10)], 3, [share(3, 100)]),
        ([("latest", 0), ("1", 100)], 3, [share(1, 100)]),
        ([("1", 100)], 3, [share(1, 100)]),
    ],
)
def test_traffic(traffic: list[tuple[str, int]], ready: int, expected: list[dict[str, Any]]) -> None:
    found = function(traffic=[{"revision": name, "percent": percent} for name, percent in traffic])
    assert resolve_traffic(found, known(1, 2, 3), f"hello-{ready:05d}") == expected


def test_nothing_is_routed_before_anything_is_ready() -> None:
    assert resolve_traffic(function(), known(1), "") == []


def test_a_revision_that_is_not_there_is_named_with_its_path() -> None:
    found = function(traffic=[{"revision": "latest", "percent": 50}, {"revision": "9", "percent": 50}])
    with pytest.raises(RouteError, match=r"^spec\.traffic\[1\]\.revision: there is no revision hello-00009$"):
        resolve_traffic(found, known(1), "hello-00001")


@pytest.mark.parametrize(
    ("name", "number"), [("hello-00002", 2), ("a-1-00010", 10), ("hello-123456", 123456), ("hello", 0), ("h-1", 0)]
)
def test_numbers(name: str, number: int) -> None:
    assert number_of(name) == number


def test_the_newest_ten_and_those_in_use_stay() -> None:
    sets = [revision(number) for number in range(1, 15)]
    assert [number_of(each.name) for each in to_prune(reversed(sets), ["hello-00002"])] == [1, 3, 4]
    assert to_prune(sets[:10], []) == []


def pod(
    ready: bool = False, conditions: Any = (), going: bool = False, phase: str = "Pending", **container: Any
) -> Pod:
    found = [{"type": "Ready", "status": str(ready)}, *conditions]
    status = {
        "phase": phase,
        "conditions": found,
        "containerStatuses": [{"name": "function", **container}] if container else [],
    }
    meta = {"name": "p", **({"deletionTimestamp": "2024-01-01T00:00:00Z"} if going else {})}
    return msgspec.convert({"metadata": meta, "status": status}, views.Pod)


def waiting(reason: str, message: str = "", **last: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "lastState": last}


IMPORT_ERROR = {"terminated": {"exitCode": 1, "reason": "Error", "message": "ImportError: No module named 'numpi'\n"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod(), None),
        (pod(**waiting("ContainerCreating")), None),
        (pod(state={"running": {}}), None),
        (pod(**waiting("ErrImagePull", "no such image")), Failure("ErrImagePull", "no such image")),
        (pod(**waiting("ImagePullBackOff", "back-off")), Failure("ImagePullBackOff", "back-off")),
        (pod(**waiting("PackageNotFound", "no package")), Failure("PackageNotFound", "no package")),
        (pod(**waiting("CreateContainerError")), Failure("CreateContainerError", "the container is waiting: CreateContainerError")),
        (pod(state=IMPORT_ERROR), Failure("StartFailed", "ImportError: No module named 'numpi'")),
        (pod(**waiting("CrashLoopBackOff", "back-off 10s", **IMPORT_ERROR)), Failure("StartFailed", "ImportError: No module named 'numpi'")),
        (pod(state={"running": {}}, lastState=IMPORT_ERROR), Failure("StartFailed", "ImportError: No module named 'numpi'")),
        (pod(state={"terminated": {"exitCode": 3}}), Failure("StartFailed", "the container ended with exit code 3")),
        (pod(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
         Failure("OOMKilled", "the container ran out of memory: raise spec.resources.limits.memory")),
        (pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]),
         Failure("Unschedulable", "0/1 nodes")),
        (pod(phase="Failed"), Failure("StartFailed", "the Pod failed")),
        (pod(ready=True, lastState=IMPORT_ERROR), None),
        (pod(going=True, state=IMPORT_ERROR), None),
    ],
)  # fmt: skip
def test_what_is_wrong(found: Pod, expected: Failure | None) -> None:
    assert diagnose([found], None) == expected


def test_pods_that_can_not_be_created() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert diagnose([], revision(1, status={"conditions": [condition]})) == Failure("FailedCreate", "exceeded quota")


def test_conditions_tell_what_and_who_serves_on() -> None:
    def ready(
        failure: Failure | None, latest: str, serving: list[str], packaged: Verdict = YES, routes: Verdict = YES
    ) -> Verdict:
        return ready_condition(packaged, routes, "hello-00002", latest, failure, serving)

    fine = ready(None, "hello-00002", ["hello-00002"])
    assert (fine.status, fine.reason) == ("True", "RevisionReady")
    failed = ready(Failure("StartFailed", "ImportError: x"), "hello-00001", ["hello-00001"])
    assert failed == Verdict("False", "StartFailed", "revision hello-00002: ImportError: x (hello-00001 keeps serving)")
    pending = ready(None, "", [])
    assert (pending.status, pending.reason) == ("Unknown", "Deploying")
    missing = Verdict("False", "RevisionMissing", "m")
    assert ready(None, "hello-00002", [], routes=missing) == missing
    unpackaged = Verdict("False", "PackageMissing", "m")
    assert ready(None, "", [], packaged=unpackaged) == unpackaged


def test_status_is_written_only_where_it_changes() -> None:
    first = new_status({}, {"replicas": 1}, {"Ready": YES}, 1, 1000.0)
    assert first is not None
    assert new_status(first, {"replicas": 1}, {"Ready": YES}, 1, 2000.0) is None
    more = new_status(first, {"replicas": 2}, {"Ready": YES}, 1, 2000.0)
    assert more is not None
    assert only_replicas_differ(first, more)
    worse = new_status(first, {"replicas": 2}, {"Ready": Verdict("False", "Bad")}, 1, 2000.0)
    assert worse is not None
    assert not only_replicas_differ(first, worse)
    assert worse["conditions"][0]["lastTransitionTime"] != first["conditions"][0]["lastTransitionTime"]


def test_crashed_pods_are_those_whose_node_waits_and_delays_double() -> None:
    waits, going = pod(**waiting("CrashLoopBackOff")), pod(going=True, **waiting("CrashLoopBackOff"))
    assert crashed([waits, pod(), going, pod(**waiting("ContainerCreating"))]) == [waits]
    assert [replace_delay(count) for count in (0, 1, 2, 9, 1000)] == [0.5, 1.0, 2.0, 60.0, 60.0]
