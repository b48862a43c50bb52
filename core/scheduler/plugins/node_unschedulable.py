"""NodeUnschedulable: cordoned nodes take no Pods, but those that tolerate it."""

from __future__ import annotations

from core.api.taints import tolerates
from core.api.views import Pod, Taint
from core.scheduler.framework import ClusterEvent, CycleState, Status
from core.scheduler.snapshot import NodeInfo

_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class NodeUnschedulable:
    name = "NodeUnschedulable"
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED})
    _refused = Status(name, ("node(s) were unschedulable",))

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        if not node.unschedulable or tolerates(pod.spec.tolerations, _TAINT):
            return None
        return self._refused
