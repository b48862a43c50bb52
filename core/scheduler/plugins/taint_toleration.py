"""TaintToleration: NoSchedule and NoExecute taints keep Pods away, PreferNoSchedule taints make a node a worse choice."""

from __future__ import annotations

from collections.abc import Sequence

from core.api.taints import tolerates
from core.api.views import Pod
from core.scheduler.framework import MAX_SCORE, ClusterEvent, CycleState, Status
from core.scheduler.snapshot import NodeInfo


class TaintToleration:
    name = "TaintToleration"
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED})
    weight = 3.0

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        for taint in node.hard_taints:
            if not tolerates(pod.spec.tolerations, taint):
                return Status(self.name, (f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}",))
        return None

    def score(self, state: CycleState, pod: Pod, node: NodeInfo) -> float:
        """How many soft taints are not tolerated: fewer is better."""
        if not node.soft_taints:
            return 0.0
        return float(sum(not tolerates(pod.spec.tolerations, taint) for taint in node.soft_taints))

    def normalise(self, scores: Sequence[float]) -> Sequence[float]:
        most = max(scores) or 1.0
        return [MAX_SCORE * (1.0 - each / most) for each in scores]
