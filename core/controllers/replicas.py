"""ReplicaSets, the pure part: which Pods belong to one, how many to create, which to delete, what its status says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.api.kinds import REPLICA_SET, Kind
from core.api.meta import Document, controller_reference, set_condition
from core.api.selectors import Selector, from_label_selector
from core.api.views import Pod, ReplicaSet
from core.clock import parse_time

__all__ = ["BURST", "Claim", "Plan", "active", "available_in", "claim", "new_status", "plan", "pod_document", "ranked"]

BURST = 500
"""Creations or deletions in one sync."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_parse_time = lru_cache(maxsize=8192)(parse_time)


@dataclass(frozen=True, slots=True)
class Claim:
    """Pods by what a ReplicaSet has to do with them: `adopt` has no controller and matches, `release` no longer matches."""

    owned: list[Pod] = field(default_factory=list)
    adopt: list[Pod] = field(default_factory=list)
    release: list[Pod] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    create: int = 0
    delete: list[Pod] = field(default_factory=list)


def selector_of(replica_set: ReplicaSet) -> Selector | None:
    """None (nothing matches) where there is no selector, an empty one, or one that can't be read."""
    try:
        return from_label_selector(replica_set.spec.selector) or None
    except (ValueError, KeyError, TypeError):
        return None


def claim(replica_set: ReplicaSet, pods: Iterable[Pod]) -> Claim:
    """Sort the Pods of the namespace that have this controller or none."""
    selector = selector_of(replica_set)
    found = Claim()
    uid = replica_set.metadata.uid
    going = replica_set.metadata.deletion_timestamp is not None
    for pod in pods:
        controller = pod.metadata.controller
        matches = selector is not None and selector.matches(pod.metadata.labels)
        if controller is not None:
            if controller.uid != uid:
                continue
            if matches or going:
                found.owned.append(pod)
            elif pod.metadata.deletion_timestamp is None:
                found.release.append(pod)
        elif matches and not going and active(pod):
            found.adopt.append(pod)
    return found


def active(pod: Pod) -> bool:
    """Whether the Pod counts as a replica."""
    return pod.metadata.deletion_timestamp is None and not pod.terminal


def _ready_since(pod: Pod) -> float:
    for each in pod.status.conditions:
        if each.type == "Ready" and each.status == "True" and each.last_transition_time:
            return _parse_time(each.last_transition_time)
    return 0.0


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


_PHASES = {"Pending": 0, "": 0, "Unknown": 1}


def ranked(pods: Sequence[Pod]) -> list[Pod]:
    """The order in which Pods are deleted, after kubernetes' `ActivePodsWithRanks`.

    Unassigned, then pending, then not ready, then of lower deletion cost, then on nodes with more of these Pods, then ready for a
    shorter time, then with more restarts, then younger.
    """
    together = Counter(pod.spec.node_name for pod in pods if pod.spec.node_name)

    def rank(pod: Pod) -> tuple[Any, ...]:
        created = pod.metadata.creation_timestamp
        restarts = max((each.restart_count for each in pod.status.container_statuses), default=0)
        return (
            bool(pod.spec.node_name),
            _PHASES.get(pod.status.phase, 2),
            pod.ready,
            _deletion_cost(pod),
            -together[pod.spec.node_name],
            -_ready_since(pod),
            -restarts,
            -_parse_time(created) if created else 0.0,
            pod.metadata.name,
        )

    return sorted(pods, key=rank)


def plan(replica_set: ReplicaSet, owned: Sequence[Pod]) -> Plan:
    """How many Pods to create, or which to delete. `owned` are the Pods that the cache shows."""
    if replica_set.metadata.deletion_timestamp is not None:
        return Plan()
    living = [pod for pod in owned if active(pod)]
    missing = replica_set.spec.replicas - len(living)
    if missing >= 0:
        return Plan(create=min(missing, BURST))
    return Plan(delete=ranked(living)[: min(-missing, BURST)])


def pod_document(replica_set: ReplicaSet, kind: Kind = REPLICA_SET) -> Document:
    """The Pod to POST. It shares the template's parts: encode it, don't change it."""
    template = replica_set.spec.template
    metadata: dict[str, Any] = {
        "generateName": f"{replica_set.name}-",
        "namespace": replica_set.namespace,
        "ownerReferences": [controller_reference(kind, replica_set.name, replica_set.metadata.uid)],
    }
    for name in ("labels", "annotations", "finalizers"):
        value = (template.get("metadata") or {}).get(name)
        if value:
            metadata[name] = value
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def available_in(pod: Pod, min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the Pod is available, 0 where it is, None where it isn't ready."""
    if not pod.ready:
        return None
    if not min_ready_seconds:
        return 0.0
    return max(_ready_since(pod) + min_ready_seconds - now, 0.0)


def new_status(replica_set: ReplicaSet, owned: Iterable[Pod], now: float, failure: str | None) -> Document | None:
    """The status as it should be, None where the object has it. `failure` is why Pods could not be created or deleted."""
    labels = ((replica_set.spec.template.get("metadata") or {}).get("labels") or {}).items()
    pods = [pod for pod in owned if active(pod)]
    wait = [available_in(pod, replica_set.spec.min_ready_seconds, now) for pod in pods]
    old = replica_set.status
    conditions = [_document(each) for each in old.conditions]
    if failure is not None:
        reason, _, message = failure.partition(": ")
        conditions = set_condition(conditions, "ReplicaFailure", "True", reason, message, now)
    else:
        conditions = [each for each in conditions if each["type"] != "ReplicaFailure"]
    counts = {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(labels <= pod.metadata.labels.items() for pod in pods),
        "readyReplicas": sum(each is not None for each in wait),
        "availableReplicas": sum(each == 0.0 for each in wait),
        "observedGeneration": replica_set.metadata.generation,
    }
    before = {
        "replicas": old.replicas,
        "fullyLabeledReplicas": old.fully_labeled_replicas,
        "readyReplicas": old.ready_replicas,
        "availableReplicas": old.available_replicas,
        "observedGeneration": old.observed_generation,
    }
    if counts == before and conditions == [_document(each) for each in old.conditions]:
        return None
    return {**counts, "conditions": conditions}


def _document(condition: Any) -> Document:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.last_transition_time,
    }
