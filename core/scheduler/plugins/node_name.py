"""NodeName: a Pod may only run on the node that its spec names."""

from __future__ import annotations

from core.api.views import Pod
from core.scheduler.framework import SKIP, ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo


class NodeName:
    name = "NodeName"
    helped_by = frozenset({ClusterEvent.NODE_ADDED})
    _refused = Status(name, ("node(s) didn't match the requested node name",))

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        return None if pod.spec.node_name else SKIP

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        return None if pod.spec.node_name == node.name else self._refused
