"""What counts as trouble of an instance, and how long a Function remembers it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api.strain import LOST, STRAINS, WITHIN_LIMITS
from core.api.views import Condition, Pod
from core.clock import timestamp
from faaslite.controllers.health import HEALTHY_AFTER, Trouble, fresh, healthy_condition, remembered, trouble_of

NOW = 1_800_000_000.0
REVISION = "hello-00001"
OOM = {"reason": "OOMKilled", "exitCode": 137, "containerID": "process://1", "finishedAt": timestamp(NOW)}


def pod(going: bool = False, over: str = "", **status: Any) -> Pod:
    conditions = [
        {"type": WITHIN_LIMITS, "status": "False", "reason": over, "message": "m", "lastTransitionTime": timestamp(NOW)}
    ]
    meta = {"name": "hello-00001-x", "labels": {"faaslite.dev/revision": REVISION}}
    document = {
        "metadata": {**meta, **({"deletionTimestamp": timestamp(NOW)} if going else {})},
        "status": {
            "containerStatuses": [{"name": "function", **status}],
            "conditions": conditions if over else [],
        },
    }
    return msgspec.convert(document, Pod)


def ended(code: int, message: str = "", **more: Any) -> dict[str, Any]:
    return {
        "terminated": {"reason": "Error", "exitCode": code, "containerID": "process://1", "message": message, **more}
    }


@pytest.mark.parametrize(
    ("found", "reason", "said"),
    [
        (pod(), "", ""),
        (pod(state={"running": {}}), "", ""),
        (pod(lastState={"terminated": OOM}), "OOMKilled", "ran out of memory and was started again: raise spec.resources.limits.memory"),
        (pod(state={"terminated": OOM}, going=True), "OOMKilled", "ran out of memory"),
        (pod(lastState=ended(9)), "InstanceDied", "Instance hello-00001-x ended with exit code 9"),
        (pod(lastState=ended(139)), "InstanceDied", "exit code 139 (SIGSEGV)"),
        (pod(lastState=ended(75, "calls hung\n")), "InstanceDied", "exit code 75: calls hung"),
        (pod(lastState=ended(1, "a\nError: later\n    at f (x.js:1)\n\nNode.js v20\n")), "InstanceDied", "exit code 1: Error: later"),
        (pod(lastState=ended(0)), "InstanceDied", "exit code 0"),
        (pod(lastState=ended(137), going=True), "", ""),
        (pod(lastState=ended(137, LOST)), "", ""),
        *((pod(over=each), each, "hello-00001-x") for each in STRAINS),
        (pod(over="OfAnotherRelease"), "OverLimits", "Instance hello-00001-x: m"),
    ],
)  # fmt: skip
def test_what_is_trouble(found: Pod, reason: str, said: str) -> None:
    trouble = trouble_of(found)
    assert (trouble.reason if trouble else "") == reason
    assert trouble is None or (said in trouble.message and trouble.revision == REVISION)


def test_trouble_is_told_of_once() -> None:
    good, bad = pod(state={"running": {}}), pod(lastState={"terminated": OOM})
    died = pod(lastState=ended(9, finishedAt=timestamp(NOW)))
    assert fresh(good, died, NOW) is None  # it was never ready
    good.status.conditions.append(Condition(type="Ready", status="True"))
    assert fresh(good, died, NOW) is not None
    assert fresh(good, bad, NOW) is not None
    assert fresh(bad, bad, NOW) is None
    assert fresh(bad, pod(lastState={"terminated": {**OOM, "containerID": "process://2"}}), NOW) is not None
    assert fresh(bad, None, NOW) is None
    # To a controller that has just come, only what is not long over is news.
    assert fresh(None, bad, NOW + 1) is not None
    assert fresh(None, bad, NOW + HEALTHY_AFTER + 1) is None
    assert fresh(None, pod(over="DiskFull"), NOW + HEALTHY_AFTER + 1) is not None


def test_a_function_remembers_it_for_ten_minutes() -> None:
    trouble = Trouble(REVISION, "OOMKilled", "memory")
    assert healthy_condition([], None, 0.0, [REVISION], NOW) is None
    found = healthy_condition([], trouble, NOW, [REVISION], NOW + 1)
    assert found is not None and (found.status, found.reason, found.message) == ("False", "OOMKilled", "memory")
    bad = [{"type": "Healthy", "status": "False", "reason": "OOMKilled", "message": "memory"}]
    later = healthy_condition(bad, trouble, NOW, [REVISION], NOW + HEALTHY_AFTER)
    assert later is not None and (later.status, later.reason) == ("True", "NoTrouble")
    assert later.message == "no trouble for 10 minutes; the last was OOMKilled: memory"
    good = [{"type": "Healthy", "status": "True", "reason": "NoTrouble", "message": later.message}]
    assert healthy_condition(good, None, 0.0, [REVISION], NOW) is None


def test_another_revision_begins_anew() -> None:
    bad = [{"type": "Healthy", "status": "False", "reason": "OOMKilled", "message": "memory"}]
    found = healthy_condition(bad, Trouble(REVISION, "OOMKilled", "memory"), NOW, ["hello-00002"], NOW)
    assert found is not None and found.status == "True"
    assert found.message.startswith("hello-00001 takes no calls any more")


def test_who_comes_after_goes_on_with_what_the_status_says() -> None:
    bad = [{"type": "Healthy", "status": "False", "reason": "DiskFull", "message": "full"}]
    assert remembered(bad, REVISION) == Trouble(REVISION, "DiskFull", "full")
    assert remembered([{**bad[0], "status": "True"}], REVISION) is None
    assert remembered([], REVISION) is None
