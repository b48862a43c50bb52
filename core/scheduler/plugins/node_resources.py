"""NodeResourcesFit: what a Pod requests must be free on its node; emptier and more evenly used nodes score higher."""

from __future__ import annotations

from collections.abc import Sequence

from core.api.views import Pod
from core.scheduler.framework import ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo, Requests, requests_of

__all__ = ["FIT", "NodeResourcesFit"]

FIT = "NodeResourcesFit"
"""The key under which the cycle's state has the Pod's `Requests`."""


class NodeResourcesFit:
    name = FIT
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.POD_REMOVED})
    weight = 1.0

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        state[FIT] = requests_of(pod)
        return None

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        asked: Requests = state[FIT]
        if (
            len(node.pods) < node.allocatable_pods
            and (not asked.cpu or node.requested_cpu + asked.cpu <= node.allocatable_cpu)
            and (not asked.memory or node.requested_memory + asked.memory <= node.allocatable_memory)
            and not asked.other
        ):
            return None
        reasons = _lacking(asked, node)
        return Status(FIT, tuple(reasons)) if reasons else None

    def score(self, state: CycleState, pod: Pod, node: NodeInfo) -> float:
        """The mean of the shares left free (LeastAllocated), and how near the shares used are to each other (BalancedAllocation).

        In percent, the first with the same weight as the second.
        """
        asked: Requests = state[FIT]
        cpu, memory = node.allocatable_cpu, node.allocatable_memory
        used_cpu = min((node.scored_cpu + asked.scored_cpu) / cpu, 1.0) if cpu else 1.0
        used_memory = min((node.scored_memory + asked.scored_memory) / memory, 1.0) if memory else 1.0
        return 50.0 * (2.0 - used_cpu - used_memory) + 100.0 * (1.0 - abs(used_cpu - used_memory) / 2.0)

    def normalise(self, scores: Sequence[float]) -> Sequence[float]:
        return [each / 2.0 for each in scores]


def _lacking(asked: Requests, node: NodeInfo) -> list[str]:
    reasons = []
    if len(node.pods) >= node.allocatable_pods:
        reasons.append("Too many pods")
    if asked.cpu and node.requested_cpu + asked.cpu > node.allocatable_cpu:
        reasons.append("Insufficient cpu")
    if asked.memory and node.requested_memory + asked.memory > node.allocatable_memory:
        reasons.append("Insufficient memory")
    for name, amount in asked.other.items():
        if node.requested_other.get(name, 0) + amount > node.allocatable_other.get(name, 0):
            reasons.append(f"Insufficient {name}")
    return reasons
