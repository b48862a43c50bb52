"""NodeAffinity: nodeSelector and required node affinity must match, preferred node affinity adds to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.api.selectors import Requirement, Selector
from core.api.views import Pod
from core.scheduler.framework import MAX_SCORE, SKIP, ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists", "Gt": ">", "Lt": "<"}


class _Term:
    """One NodeSelectorTerm: expressions over labels and over fields (`metadata.name` is the only one there is)."""

    __slots__ = ("_fields", "_labels")

    def __init__(self, term: Mapping[str, Any]) -> None:
        self._labels = _selector(term.get("matchExpressions") or ())
        self._fields = _selector(term.get("matchFields") or ())

    def matches(self, node: NodeInfo) -> bool:
        """A term without any expression matches no node."""
        if not self._labels and not self._fields:
            return False
        return self._labels.matches(node.labels) and (
            not self._fields or self._fields.matches({"metadata.name": node.name})
        )


def _selector(expressions: Sequence[Mapping[str, Any]]) -> Selector:
    return Selector(
        tuple(
            Requirement(
                each["key"], _OPERATORS[each["operator"]], frozenset(str(value) for value in each.get("values") or ())
            )
            for each in expressions
        )
    )


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
            terms = None if required is None else [_Term(each) for each in required.get("nodeSelectorTerms") or ()]
            if preferred:
                state["NodeAffinity/preferred"] = [(each["weight"], _Term(each["preference"])) for each in preferred]
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
        if terms is not None and not any(term.matches(node) for term in terms):
            return self._refused
        return None

    def score(self, state: CycleState, pod: Pod, node: NodeInfo) -> float:
        preferred = state.get("NodeAffinity/preferred")
        if preferred is None:
            return 0.0
        return float(sum(weight for weight, term in preferred if term.matches(node)))

    def normalise(self, scores: Sequence[float]) -> Sequence[float]:
        most = max(scores) or 1.0
        return [MAX_SCORE * each / most for each in scores]
