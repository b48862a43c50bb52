"""NodeAffinity: nodeSelector and required node affinity must match, preferred node affinity adds to the score."""

from __future__ import annotations

from collections.abc import Sequence

from core.api.nodeselector import NodeTerm
from core.api.views import Pod
from core.scheduler.framework import MAX_SCORE, SKIP, ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo


class NodeAffinity:
    name = "NodeAffinity"
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED})
    weight = 2.0
    _refused = Status(name, ("node(s) didn't match Pod's node affinity/selector",))

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        try:
            terms = None if required is None else [NodeTerm(each) for each in required.get("nodeSelectorTerms") or ()]
            if preferred:
                state["NodeAffinity/preferred"] = [(each["weight"], NodeTerm(each["preference"])) for each in preferred]
        except (KeyError, TypeError) as error:
            return Status(self.name, (f"the Pod's node affinity can't be read: {error}",))
        if terms is None and not pod.spec.node_selector:
            return SKIP
        state["NodeAffinity/required"] = terms
        return None

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        labels = node.labels
        for key, value in pod.spec.node_selector.items():
            if labels.get(key) != value:
                return self._refused
        terms = state["NodeAffinity/required"]
        if terms is not None and not any(term.matches(node.name, node.labels) for term in terms):
            return self._refused
        return None

    def score(self, state: CycleState, pod: Pod, node: NodeInfo) -> float:
        preferred = state.get("NodeAffinity/preferred")
        if preferred is None:
            return 0.0
        return float(sum(weight for weight, term in preferred if term.matches(node.name, node.labels)))

    def normalise(self, scores: Sequence[float]) -> Sequence[float]:
        most = max(scores) or 1.0
        return [MAX_SCORE * each / most for each in scores]
