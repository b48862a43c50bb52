"""One scheduling cycle: filter, score, choose. Pure over a snapshot of nodes.

Of many nodes only some are looked at, as with kube-scheduler's percentageOfNodesToScore: the search begins where the last one
ended and stops once enough nodes will do. Fifty give a placement close to the best at a cost that doesn't grow with the cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.api.views import Pod
from core.scheduler.framework import (
    SKIP,
    CycleState,
    FilterPlugin,
    PreBindPlugin,
    PreFilterPlugin,
    ReservePlugin,
    ScorePlugin,
    Status,
)
from core.scheduler.snapshot import NodeInfo

__all__ = ["Decision", "Profile", "nodes_to_find", "schedule"]

SAMPLE = 50
SAMPLE_SHARE = 100


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins of a scheduler, by what they do."""

    pre_filters: tuple[PreFilterPlugin, ...]
    filters: tuple[FilterPlugin, ...]
    scores: tuple[ScorePlugin, ...]
    reserves: tuple[ReservePlugin, ...]
    pre_binds: tuple[PreBindPlugin, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a cycle found: the node, or why there is none. `looked_at` is how many nodes were filtered."""

    node: NodeInfo | None
    message: str = ""
    plugins: frozenset[str] = frozenset()
    """Those that refused a node, so that only events that may help them wake the Pod."""
    looked_at: int = 0
    state: CycleState = field(default_factory=dict)


def nodes_to_find(total: int) -> int:
    """How many nodes that will do are enough: all of a small cluster, 50 or one in a hundred of a large one."""
    return max(min(total, SAMPLE), total // SAMPLE_SHARE)


def schedule(profile: Profile, nodes: Sequence[NodeInfo], pod: Pod, start: int = 0) -> Decision:
    """Choose a node for the Pod; the search begins at index `start`."""
    total = len(nodes)
    if not total:
        return Decision(None, "no nodes available to schedule pods", frozenset({"Nodes"}))
    state: CycleState = {}
    skipped: set[str] = set()
    for plugin in profile.pre_filters:
        answer = plugin.pre_filter(state, pod)
        if answer is SKIP:
            skipped.add(plugin.name)
        elif isinstance(answer, Status):
            message = f"0/{total} nodes are available: {', '.join(answer.reasons)}."
            return Decision(None, message, frozenset({answer.plugin}), 0, state)
    filters = [each for each in profile.filters if each.name not in skipped]
    feasible, failures, looked_at = _filter(filters, state, pod, nodes, start)
    if not feasible:
        return Decision(None, explain(total, failures), frozenset(each.plugin for each in failures), looked_at, state)
    node = feasible[0] if len(feasible) == 1 else _best(profile.scores, state, pod, feasible)
    return Decision(node, "", frozenset(), looked_at, state)


def _filter(
    filters: Sequence[FilterPlugin], state: CycleState, pod: Pod, nodes: Sequence[NodeInfo], start: int
) -> tuple[list[NodeInfo], Counter[Status], int]:
    total = len(nodes)
    wanted = nodes_to_find(total)
    calls = [each.filter for each in filters]
    feasible: list[NodeInfo] = []
    failures: Counter[Status] = Counter()
    looked_at = 0
    for at in range(start, start + total):
        node = nodes[at % total]
        looked_at += 1
        for call in calls:
            refused = call(state, pod, node)
            if refused is not None:
                failures[refused] += 1
                break
        else:
            feasible.append(node)
            if len(feasible) >= wanted:
                break
    return feasible, failures, looked_at


def _best(scores: Sequence[ScorePlugin], state: CycleState, pod: Pod, feasible: Sequence[NodeInfo]) -> NodeInfo:
    totals = [0.0] * len(feasible)
    for plugin in scores:
        call = plugin.score
        raw = [call(state, pod, node) for node in feasible]
        if any(raw):
            weight = plugin.weight
            totals = [total + weight * each for total, each in zip(totals, plugin.normalise(raw), strict=True)]
    return feasible[totals.index(max(totals))]


def explain(total: int, failures: Counter[Status]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {key: value}.`"""
    reasons: Counter[str] = Counter()
    for status, count in failures.items():
        for reason in status.reasons:
            reasons[reason] += count
    return (
        f"0/{total} nodes are available: {', '.join(sorted(f'{count} {reason}' for reason, count in reasons.items()))}."
    )
