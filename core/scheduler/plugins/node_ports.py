"""NodePorts: a host port can be had once per node."""

from __future__ import annotations

from core.api.views import Pod
from core.scheduler.framework import SKIP, ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo


class NodePorts:
    name = "NodePorts"
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.POD_REMOVED})
    _refused = Status(name, ("node(s) didn't have free ports for the requested pod ports",))

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        ports = [
            (port.protocol, port.host_port) for each in pod.spec.containers for port in each.ports if port.host_port
        ]
        if not ports:
            return SKIP
        state[self.name] = ports
        return None

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        return self._refused if any(port in node.ports for port in state[self.name]) else None
