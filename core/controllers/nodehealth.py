"""Node health, the pure part: when a node counts as lost, which taints that means, when a taint evicts a Pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.api.meta import Document, set_condition
from core.api.taints import toleration_for
from core.api.views import Node, Pod, Taint
from core.clock import parse_time, timestamp

__all__ = ["GRACE", "NodePlan", "eviction_at", "plan_node", "ready_status"]

GRACE = 40.0
"""Seconds without a heartbeat after which a node is lost."""
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
OURS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_PRESSURES.values()})
_BY_STATUS = {"False": NOT_READY, "Unknown": UNREACHABLE}
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What to write. None: leave as it is. `ready` is the status of the Ready condition as it will be."""

    ready: str
    conditions: list[Document] | None = None
    taints: list[Document] | None = None


def ready_status(node: Node) -> str:
    """`True`, `False` or `Unknown`; empty for a node that hasn't said yet."""
    return next((each.status for each in node.status.conditions if each.type == "Ready"), "")


def plan_node(node: Node, silent: float, now: float) -> NodePlan:
    """`silent` is for how many seconds nothing was heard of the node."""
    status = ready_status(node)
    conditions: list[Document] | None = None
    if silent > GRACE and status != "Unknown":
        conditions = _all_unknown(node, now)
        status = "Unknown"
    return NodePlan(status, conditions, _taints(node, status, now))


def _all_unknown(node: Node, now: float) -> list[Document]:
    """The conditions that the node reports, as unknown; `lastHeartbeatTime` of each is the node's and stays by merging."""
    found: list[Document] = []
    known = {each.type for each in node.status.conditions}
    for name in _REPORTED:
        if name in known or name == "Ready":
            found = set_condition(
                found, name, "Unknown", "NodeStatusUnknown", "The node stopped posting its status.", now
            )
    return found


def _taints(node: Node, status: str, now: float) -> list[Document] | None:
    if not status:
        return None  # it is just registering; without allocatable resources nothing is scheduled to it
    wanted: list[tuple[str, str]] = []
    key = _BY_STATUS.get(status)
    if key is not None:
        wanted += [(key, "NoSchedule"), (key, "NoExecute")]
    if node.spec.unschedulable:
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    short = {each.type for each in node.status.conditions if each.status == "True"}
    wanted += [(key, "NoSchedule") for type_, key in _PRESSURES.items() if type_ in short]
    have = {(each.key, each.effect) for each in node.spec.taints if each.key in OURS}
    if have == set(wanted):
        return None
    kept = [each for each in node.spec.taints if each.key not in OURS or (each.key, each.effect) in wanted]
    found = [_taint(each) for each in kept]
    new = [each for each in wanted if each not in have]
    return found + [{"key": key, "effect": effect, "timeAdded": timestamp(now)} for key, effect in new]


def _taint(taint: Taint) -> Document:
    found: Document = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        found["value"] = taint.value
    if taint.time_added:
        found["timeAdded"] = taint.time_added
    return found


def eviction_at(pod: Pod, taints: Sequence[Taint], now: float) -> float | None:
    """When NoExecute taints evict the Pod, in seconds since the epoch: now or before where one isn't tolerated, None for never."""
    times: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        toleration = toleration_for(pod.spec.tolerations, taint)
        if toleration is None:
            return now
        if toleration.toleration_seconds is not None:
            since = parse_time(taint.time_added) if taint.time_added else now
            times.append(since + max(toleration.toleration_seconds, 0))
    return min(times, default=None)
