"""DaemonSets, the pure part: which nodes are to have a Pod, which Pods to create or delete, what the status says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from core.api.kinds import DAEMON_SET
from core.api.meta import Document, controller_reference
from core.api.nodeselector import node_matches
from core.api.taints import tolerates
from core.api.views import DaemonSet, Node, Pod, Taint, Toleration
from core.controllers.replicas import available_in
from core.controllers.revisions import LABEL

__all__ = ["TOLERATIONS", "Plan", "decide", "new_status", "next_check", "node_of", "pod_document", "wanted"]

TOLERATIONS: tuple[Document, ...] = (
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
)
"""What every Pod of a DaemonSet tolerates (https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/)."""
_UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


@dataclass(frozen=True, slots=True)
class Plan:
    """`create` has the names of nodes."""

    create: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)


def wanted(found: DaemonSet, node: Node) -> tuple[bool, bool]:
    """(whether a Pod belongs on the node, whether one that is there may stay)."""
    spec = found.spec.template.get("spec") or {}
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False, False
    if spec.get("nodeName") and spec["nodeName"] != node.name:
        return False, False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity is not None and not node_matches(affinity, node.name, labels):
        return False, False
    tolerations = msgspec.convert([*(spec.get("tolerations") or ()), *TOLERATIONS], list[Toleration])
    taints = [*node.spec.taints, *([_UNSCHEDULABLE] if node.spec.unschedulable else ())]
    refused = [each for each in taints if each.effect != "PreferNoSchedule" and not tolerates(tolerations, each)]
    return not refused, not any(each.effect == "NoExecute" for each in refused)


def node_of(pod: Pod) -> str:
    """The node that the Pod runs on or is meant for."""
    if pod.spec.node_name:
        return pod.spec.node_name
    required = ((pod.spec.affinity or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    for term in (required or {}).get("nodeSelectorTerms") or ():
        for each in term.get("matchFields") or ():
            if each.get("key") == "metadata.name" and each.get("values"):
                return str(each["values"][0])
    return ""


def _share(found: DaemonSet, key: str, default: int, nodes: int) -> int:
    """Of the nodes, rounded up where it is a percentage."""
    value = (found.spec.update_strategy.get("rollingUpdate") or {}).get(key, default)
    return math.ceil(nodes * int(value.rstrip("%") or 0) / 100) if isinstance(value, str) else int(value)


def _max_surge(found: DaemonSet, nodes: int) -> int:
    """On how many nodes a second Pod may run during an update; 0 where the old one goes first."""
    return _share(found, "maxSurge", 0, nodes) if found.spec.update_strategy.get("type") != "OnDelete" else 0


def _max_unavailable(found: DaemonSet, nodes: int) -> int:
    count = _share(found, "maxUnavailable", 1, nodes)
    return count if _max_surge(found, nodes) else max(count, 1)


def _available(found: DaemonSet, pod: Pod, now: float) -> bool:
    return available_in(pod, found.spec.min_ready_seconds, now) == 0.0


def next_check(found: DaemonSet, pods: Iterable[Pod], now: float) -> float | None:
    """Seconds until a Pod has been ready for long enough; None where that isn't waited for."""
    waits = [available_in(pod, found.spec.min_ready_seconds, now) for pod in pods]
    return min((each for each in waits if each), default=None)


def decide(found: DaemonSet, nodes: Iterable[Node], pods: Sequence[Pod], update: str, now: float) -> Plan:
    """What to create and delete; `update` is the hash of the newest revision, `now` is seconds since the epoch."""
    by_node: dict[str, list[Pod]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    create: list[str] = []
    delete: list[Pod] = []
    serving: list[Pod] = []
    missing = 0
    known = list(nodes)
    surge = _max_surge(found, len(known))
    surging, fresh = 0, []
    for node in known:
        run, stay = wanted(found, node)
        mine = by_node.pop(node.name, [])
        living = [pod for pod in mine if pod.metadata.deletion_timestamp is None]
        ended = [pod for pod in living if pod.terminal]
        living = sorted(
            (pod for pod in living if not pod.terminal), key=lambda pod: pod.metadata.creation_timestamp or ""
        )
        delete += ended
        if not run and not stay:
            delete += living
        elif run and not mine:
            create.append(node.name)
            missing += 1
        elif surge and (second := _second(living, update)) is not None:
            # A new Pod beside an old one: that one goes when it can be done without.
            first, surging = living[0], surging + 1
            spare = _available(found, second, now) or not first.ready
            delete += [pod for pod in living if pod is not second and (pod is not first or spare)]
        else:
            delete += living[1:]
            serving += living[:1]
            missing += not any(_available(found, pod, now) for pod in living[:1])
            fresh += [(node.name, pod) for pod in living[:1] if run]
    delete += [pod for left in by_node.values() for pod in left if pod.metadata.deletion_timestamp is None]
    if found.spec.update_strategy.get("type") != "OnDelete" and not create:
        if surge:
            old = [(name, pod) for name, pod in fresh if pod.metadata.labels.get(LABEL) != update]
            create += [name for name, _ in sorted(old, key=lambda each: each[1].ready)][: max(surge - surging, 0)]
        if not surge or _max_unavailable(found, len(known)):
            taken = set(create)
            serving = [pod for pod in serving if node_of(pod) not in taken]
            delete += _outdated(found, serving, missing, len(known), update)
    return Plan(create, delete)


def _second(living: Sequence[Pod], update: str) -> Pod | None:
    """The new Pod that was made beside an old one."""
    if len(living) < 2 or living[0].metadata.labels.get(LABEL) == update:
        return None
    return next((pod for pod in living[1:] if pod.metadata.labels.get(LABEL) == update), None)


def _outdated(found: DaemonSet, serving: Sequence[Pod], missing: int, nodes: int, update: str) -> list[Pod]:
    """Old Pods that may go now: those that don't work at once, the others as far as there may be too few."""
    old = [pod for pod in serving if pod.metadata.labels.get(LABEL) != update]
    broken = [pod for pod in old if not pod.ready]
    room = max(_max_unavailable(found, nodes) - missing, 0)
    return broken + [pod for pod in old if pod.ready][:room]


def pod_document(found: DaemonSet, node: str, revision: str) -> Document:
    """The Pod to POST: the scheduler binds it to the one node that its affinity names."""
    template = found.spec.template
    metadata, spec = template.get("metadata") or {}, dict(template.get("spec") or {})
    affinity = dict(spec.get("affinity") or {})
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    spec["affinity"] = affinity
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *TOLERATIONS]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{found.name}-",
            "namespace": found.namespace,
            "labels": {**(metadata.get("labels") or {}), LABEL: revision},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [controller_reference(DAEMON_SET, found.name, found.metadata.uid)],
        },
        "spec": spec,
    }


def new_status(
    found: DaemonSet, nodes: Iterable[Node], pods: Iterable[Pod], update: str, now: float
) -> Document | None:
    """The status as it should be, None where the object has it."""
    on: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod.metadata.deletion_timestamp is None:
            on.setdefault(node_of(pod), []).append(pod)
    desired = current = misscheduled = ready = available = updated = 0
    for node in nodes:
        run, _ = wanted(found, node)
        mine = on.get(node.name, [])
        desired += run
        current += run and bool(mine)
        misscheduled += not run and bool(mine)
        ready += run and any(pod.ready for pod in mine)
        available += run and any(_available(found, pod, now) for pod in mine)
        updated += run and any(pod.metadata.labels.get(LABEL) == update for pod in mine)
    counts = {
        "observedGeneration": found.metadata.generation, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled, "numberReady": ready, "numberAvailable": available, "numberUnavailable": desired - available,
        "updatedNumberScheduled": updated,
    }  # fmt: skip
    was = found.status
    before = (
        was.observed_generation, was.desired_number_scheduled, was.current_number_scheduled, was.number_misscheduled, was.number_ready,
        was.number_available, was.number_unavailable, was.updated_number_scheduled,
    )  # fmt: skip
    return None if tuple(counts.values()) == before else counts
