"""Rows of (node, silence) -> conditions and taints; and when taints evict a Pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.api import views
from core.api.views import Node, Pod, Taint
from core.clock import timestamp
from core.controllers.nodehealth import GRACE, eviction_at, plan_node

MakePod = Callable[..., Pod]
NOW = 1_700_000_000.0
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def node(ready: str | None, taints: list[tuple[str, str]] | None = None, **spec: Any) -> Node:
    found = [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}] if ready else []
    spec["taints"] = [{"key": key, "effect": effect, "timeAdded": timestamp(NOW - 7)} for key, effect in taints or ()]
    return msgspec.convert({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": found}}, views.Node)


def taints(found: list[dict[str, Any]] | None) -> set[tuple[str, str]] | None:
    return None if found is None else {(each["key"], each["effect"]) for each in found}


def both(key: str) -> set[tuple[str, str]]:
    return {(key, "NoSchedule"), (key, "NoExecute")}


@pytest.mark.parametrize(
    ("found", "silent", "ready", "expected"),
    [
        (node("True"), 0.0, "True", None),
        (node("True"), GRACE, "True", None),
        (node("True"), GRACE + 1, "Unknown", both(UNREACHABLE)),
        (node("False"), 0.0, "False", both(NOT_READY)),
        (node("False", [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]), 0.0, "False", None),
        (node("False", [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]), 99.0, "Unknown", both(UNREACHABLE)),
        (node("True", [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]), 0.0, "True", set()),
        (node("True", [("gpu", "NoSchedule")]), 0.0, "True", None),
        (node("False", [("gpu", "NoSchedule")]), 0.0, "False", {("gpu", "NoSchedule"), *both(NOT_READY)}),
        (node("True", unschedulable=True), 0.0, "True", {("node.kubernetes.io/unschedulable", "NoSchedule")}),
        (node(None), 0.0, "", None),
        (node(None, [(NOT_READY, "NoSchedule")]), 0.0, "", None),
        (node(None), GRACE + 1, "Unknown", both(UNREACHABLE)),
    ],
)
def test_plans(found: Node, silent: float, ready: str, expected: set[tuple[str, str]] | None) -> None:
    plan = plan_node(found, silent, NOW)
    assert (plan.ready, taints(plan.taints)) == (ready, expected)


def test_a_shortage_is_a_taint_as_long_as_it_lasts() -> None:
    found = node("True")
    found.status.conditions[1].status = "True"
    plan = plan_node(found, 0.0, NOW)
    assert taints(plan.taints) == {("node.kubernetes.io/disk-pressure", "NoSchedule")}
    over = node("True", [("node.kubernetes.io/disk-pressure", "NoSchedule"), ("gpu", "NoSchedule")])
    assert taints(plan_node(over, 0.0, NOW).taints) == {("gpu", "NoSchedule")}


def test_all_reported_conditions_become_unknown_once() -> None:
    plan = plan_node(node("True"), GRACE + 1, NOW)
    assert plan.conditions is not None
    assert [(each["type"], each["status"]) for each in plan.conditions] == [
        ("Ready", "Unknown"),
        ("DiskPressure", "Unknown"),
    ]
    assert plan_node(node("Unknown"), GRACE + 1, NOW).conditions is None


def test_taints_that_stay_keep_their_time() -> None:
    plan = plan_node(node("False", [(NOT_READY, "NoExecute")]), 0.0, NOW)
    assert plan.taints is not None
    assert {each["effect"]: each["timeAdded"] for each in plan.taints} == {
        "NoExecute": timestamp(NOW - 7),
        "NoSchedule": timestamp(NOW),
    }


def tolerating(pod: MakePod, *seconds: int | None, key: str = UNREACHABLE) -> Pod:
    tolerations = []
    for each in seconds:
        toleration: dict[str, Any] = {"key": key, "operator": "Exists", "effect": "NoExecute"}
        if each is not None:
            toleration["tolerationSeconds"] = each
        tolerations.append(toleration)
    return pod("p", tolerations=tolerations)


def test_evictions(pod: MakePod) -> None:
    taint = Taint(key=UNREACHABLE, effect="NoExecute", time_added=timestamp(NOW - 10))
    assert eviction_at(tolerating(pod, 30), [], NOW) is None
    assert eviction_at(tolerating(pod), [taint], NOW) == NOW
    assert eviction_at(tolerating(pod, None), [taint], NOW) is None
    assert eviction_at(tolerating(pod, 30), [taint], NOW) == NOW + 20
    assert eviction_at(tolerating(pod, -1), [taint], NOW) == NOW - 10
    assert eviction_at(tolerating(pod, 30, key="other"), [taint], NOW) == NOW
    soft = Taint(key=UNREACHABLE, effect="NoSchedule")
    assert eviction_at(tolerating(pod), [soft], NOW) is None
