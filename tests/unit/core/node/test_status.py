"""What a Pod's status says of containers that were added to it, and of limits that were reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from core.api import views
from core.api.strain import STRAINS, WITHIN_LIMITS
from core.node import lifecycle
from core.node.lifecycle import Start, Stop
from core.node.runtime.base import ContainerInfo, ContainerState
from core.node.status import pod_status

NOW = 1000.0


def observed(statuses: Any = (), **spec: Any) -> lifecycle.Observed:
    spec = {"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "debugger", "image": "busybox"}], **spec}
    status = {"ephemeralContainerStatuses": list(statuses)}
    document = {"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status}
    found = lifecycle.observe(msgspec.convert(document, views.Pod))
    found.sandbox_id = "s"
    return found


def status(found: lifecycle.Observed) -> dict[str, Any]:
    return pod_status(found, [], now=NOW, host_ip="127.0.0.1", runtime="fake")


def put(found: lifecycle.Observed, name: str, state: ContainerState, code: int | None = None) -> None:
    record = found.containers[name]
    record.info = ContainerInfo(name, name, "s", state, started_at=NOW - 2, finished_at=NOW, exit_code=code)
    record.started = record.ready = state is ContainerState.RUNNING


def test_an_added_container_is_started_once_and_counts_for_nothing() -> None:
    found = observed()
    put(found, "a", ContainerState.RUNNING)
    assert lifecycle.decide(found, NOW).actions == (Start("debugger", 0),)
    put(found, "debugger", ContainerState.RUNNING)
    (shown,) = status(found)["ephemeralContainerStatuses"]
    assert (shown["name"], shown["ready"], shown["restartCount"]) == ("debugger", False, 0) and "running" in shown["state"]  # fmt: skip
    put(found, "debugger", ContainerState.EXITED, 3)
    assert lifecycle.decide(found, NOW).actions == () and lifecycle.phase(found) == "Running"
    said = status(found)
    assert said["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert [each["name"] for each in said["containerStatuses"]] == ["a"]
    assert next(each for each in said["conditions"] if each["type"] == "Ready")["status"] == "True"


def test_it_is_added_before_the_pod_is_up_and_ends_with_it() -> None:
    found = observed(initContainers=[{"name": "i"}], restartPolicy="Never")
    assert lifecycle.decide(found, NOW).actions == (Start("debugger", 0), Start("i", 0))
    put(found, "debugger", ContainerState.RUNNING)
    put(found, "i", ContainerState.EXITED, 0)
    put(found, "a", ContainerState.EXITED, 0)
    assert lifecycle.phase(found) == "Succeeded"
    assert lifecycle.decide(found, NOW).actions == (Stop(("debugger",), 30.0, "Killing"),)


def test_one_that_has_run_before_doesnt_run_again() -> None:
    ended = {"exitCode": 5, "finishedAt": "2024-01-01T00:00:00Z", "message": "why"}
    for state in ({"terminated": ended}, {"running": {"startedAt": "2024-01-01T00:00:00Z"}}):
        found = observed([{"name": "debugger", "containerID": "fake://x", "state": state}])
        lifecycle.lose_sandbox(found, NOW)
        found.sandbox_id = "s"
        put(found, "a", ContainerState.RUNNING)
        assert lifecycle.decide(found, NOW).actions == ()
        (shown,) = status(found)["ephemeralContainerStatuses"]
        assert shown["state"]["terminated"]["exitCode"] == (5 if "terminated" in state else 137)


def test_those_of_an_update_are_found_and_others_kept() -> None:
    found = observed()
    before = found.containers["debugger"]
    more = [{"name": "debugger"}, {"name": "other", "targetContainerName": "a"}]
    pod = msgspec.convert({"metadata": {"uid": "u"}, "spec": {"ephemeralContainers": more}}, views.Pod)
    assert lifecycle.add_ephemerals(found, pod) and not lifecycle.add_ephemerals(found, pod)
    assert found.containers["debugger"] is before and found.containers["other"].spec.target_container_name == "a"
    assert "ephemeralContainerStatuses" not in status(observed(ephemeralContainers=[]))


def test_a_pod_that_a_finalizer_keeps_has_a_final_phase_when_its_node_is_done_with_it() -> None:
    """Else a Job that waits for the end of its Pods would wait for good."""
    for code, phase in ((0, "Succeeded"), (143, "Failed")):
        found = observed(ephemeralContainers=[])
        found.pod.metadata.finalizers = ["batch.kubernetes.io/job-tracking"]
        put(found, "a", ContainerState.EXITED, code)
        found.kill_by = NOW
        assert lifecycle.phase(found) == "Running"
        found.sandbox_id = ""
        assert lifecycle.phase(found) == phase
        found.pod.metadata.finalizers = []
        assert lifecycle.phase(found) == "Running"


def test_limits_that_a_running_container_ran_into_are_a_condition_from_then_on() -> None:
    found = observed()
    put(found, "a", ContainerState.RUNNING)
    assert not [each for each in status(found)["conditions"] if each["type"] == WITHIN_LIMITS]
    record = found.containers["a"]
    assert record.info is not None
    record.info = replace(record.info, over=("DiskFull", "OOMKilled"))
    conditions = status(found)["conditions"]
    (told,) = (each for each in conditions if each["type"] == WITHIN_LIMITS)
    assert (told["status"], told["reason"]) == ("False", "OOMKilled")
    assert STRAINS["OOMKilled"] in told["message"] and STRAINS["DiskFull"] in told["message"]
    record.info = replace(record.info, over=())
    later = pod_status(found, conditions, now=NOW + 9, host_ip="127.0.0.1", runtime="fake")
    (told,) = (each for each in later["conditions"] if each["type"] == WITHIN_LIMITS)
    assert told["status"] == "True" and "message" not in told
