"""Deployments, the pure part: which ReplicaSet is the new one, how far each may be scaled now, what the status says.

The arithmetic is that of k8s.io/kubernetes/pkg/controller/deployment; sizes are numbers of Pods.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.api.kinds import DEPLOYMENT
from core.api.meta import Document, controller_reference
from core.api.views import Condition, Deployment, ReplicaSet
from core.clock import parse_time, timestamp

__all__ = [
    "DESIRED", "HASH_LABEL", "MAXIMUM", "REVISION", "REVISION_HISTORY", "Scaling", "annotations_of", "complete", "copied_annotations",
    "find_new", "max_surge", "max_unavailable", "new_set", "new_status", "next_check", "obsolete", "proportional", "recreate", "revision",
    "rolling", "same_template", "scaling_event", "template_hash",
]  # fmt: skip

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset((
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAXIMUM, "deprecated.deployment.rollback.to",
))  # fmt: skip
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Scaling:
    """A ReplicaSet that is to have this many replicas."""

    set: ReplicaSet
    replicas: int


def template_hash(template: Document, collisions: int | None) -> str:
    """The value of the label `pod-template-hash`: of letters that make no words."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (str(collisions) if collisions else "")
    number = zlib.crc32(text.encode()) ^ zlib.adler32(text.encode())
    return "".join(_ALPHABET[ord(each) % len(_ALPHABET)] for each in str(number & 0xFFFFFFFF))


def _bare(template: Document) -> Document:
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {key: value for key, value in metadata.items() if value}}


def same_template(one: Document, other: Document) -> bool:
    """Whether two templates differ in nothing but the label with their hash."""
    return _bare(one) == _bare(other)


def _age(found: ReplicaSet) -> tuple[str, str]:
    return found.metadata.creation_timestamp or "", found.name


def find_new(deployment: Deployment, sets: Iterable[ReplicaSet]) -> ReplicaSet | None:
    """The oldest of the ReplicaSets that have the Deployment's template."""
    wanted = deployment.spec.template
    return min((each for each in sets if same_template(each.spec.template, wanted)), key=_age, default=None)


def revision(found: ReplicaSet | Deployment) -> int:
    text = found.metadata.annotations.get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _share(value: Any, of: int, *, up: bool) -> int:
    if isinstance(value, str):
        exact = of * int(value.rstrip("%") or 0) / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value or 0)


def _bounds(deployment: Deployment) -> tuple[int, int]:
    rolling = deployment.spec.strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge"), deployment.spec.replicas, up=True)
    missing = _share(rolling.get("maxUnavailable"), deployment.spec.replicas, up=False)
    return surge, missing or (0 if surge else 1)


def _is_rolling(deployment: Deployment) -> bool:
    return bool(deployment.spec.strategy.get("type") != "Recreate")


def max_surge(deployment: Deployment) -> int:
    """How many Pods there may be over the wanted number."""
    return _bounds(deployment)[0] if _is_rolling(deployment) else 0


def max_unavailable(deployment: Deployment) -> int:
    """How many of the wanted Pods may be missing."""
    if not _is_rolling(deployment) or not deployment.spec.replicas:
        return 0
    return min(_bounds(deployment)[1], deployment.spec.replicas)


def _size(sets: Iterable[ReplicaSet]) -> int:
    return sum(each.spec.replicas for each in sets)


def _first_size(deployment: Deployment, new: int, everything: int) -> int:
    """How large the new ReplicaSet, now of `new` replicas, may become while there are `everything`."""
    wanted = deployment.spec.replicas
    if not _is_rolling(deployment):
        return wanted
    free = wanted + max_surge(deployment) - everything
    return new if free <= 0 else new + max(min(free, wanted - new), 0)


def annotations_of(deployment: Deployment) -> dict[str, str]:
    """What every ReplicaSet says of the size of its Deployment."""
    wanted = deployment.spec.replicas
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + max_surge(deployment))}


def copied_annotations(deployment: Deployment) -> dict[str, str]:
    return {key: value for key, value in deployment.metadata.annotations.items() if key not in _NOT_COPIED}


def new_set(deployment: Deployment, old: Sequence[ReplicaSet]) -> Document:
    """The ReplicaSet to POST."""
    meta, template = deployment.metadata, deployment.spec.template
    label = template_hash(template, deployment.status.collision_count)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: label}
    selector = dict(deployment.spec.selector or {})
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: label}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta.name}-{label}",
            "namespace": meta.namespace,
            "labels": labels,
            "annotations": {
                **copied_annotations(deployment),
                **annotations_of(deployment),
                REVISION: str(max((revision(each) for each in old), default=0) + 1),
            },
            "ownerReferences": [controller_reference(DEPLOYMENT, meta.name, meta.uid)],
        },
        "spec": {
            "replicas": _first_size(deployment, 0, _size(old)),
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }


def scaling_event(deployment: Deployment, sets: Iterable[ReplicaSet]) -> bool:
    """Whether the Deployment was scaled since its ReplicaSets were."""
    return any(
        each.spec.replicas and each.metadata.annotations.get(DESIRED, "") not in ("", str(deployment.spec.replicas))
        for each in sets
    )


def _saturated(deployment: Deployment, new: ReplicaSet | None) -> bool:
    wanted = deployment.spec.replicas
    if new is None:
        return False
    said = new.metadata.annotations.get(DESIRED, "")
    return said == str(new.spec.replicas) and new.spec.replicas == wanted and new.status.available_replicas == wanted


def proportional(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Scaling]:
    """Sizes after the Deployment itself was scaled: the only active ReplicaSet follows, several share the difference."""
    every = [*old, *([new] if new is not None else [])]
    active = [each for each in every if each.spec.replicas]
    wanted = deployment.spec.replicas
    if len(active) <= 1:
        only = active[0] if active else new
        if only is None and every:
            only = max(every, key=_age)
        return [] if only is None else [Scaling(only, wanted)]
    if _saturated(deployment, new):
        return [Scaling(each, 0) for each in old if each.spec.replicas]
    if not _is_rolling(deployment):
        return []
    allowed = wanted + max_surge(deployment) if wanted else 0
    left = allowed - _size(active)
    # Larger ones first; of equal ones those that are to grow are the newer, those that are to shrink the older.
    ordered = sorted(active, key=_age, reverse=left > 0)
    ordered.sort(key=lambda each: -each.spec.replicas)
    sizes: dict[str, int] = {}
    given = 0
    for each in ordered:
        before = int(each.metadata.annotations.get(MAXIMUM) or 0) or allowed
        share = round(each.spec.replicas * allowed / before) - each.spec.replicas if left else 0
        share = min(share, left - given) if left > 0 else max(share, left - given)
        given += share
        sizes[each.name] = each.spec.replicas + share
    if ordered:
        first = ordered[0]
        sizes[first.name] = max(sizes[first.name] + left - given, 0)
    return [Scaling(each, max(sizes[each.name], 0)) for each in ordered]


def rolling(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> list[Scaling]:
    """The next step of a rolling update: the new ReplicaSet grows, or else old ones shrink."""
    wanted, everything = deployment.spec.replicas, _size([*old, new])
    size = wanted if new.spec.replicas > wanted else _first_size(deployment, new.spec.replicas, everything)
    if size != new.spec.replicas:
        return [Scaling(new, size)]
    if not _size(old):
        return []
    least = wanted - max_unavailable(deployment)
    pending = new.spec.replicas - new.status.available_replicas
    spare = everything - least - pending
    if spare <= 0:
        return []
    sizes = {each.name: each.spec.replicas for each in old}
    by_age = sorted(old, key=_age)
    # Those of the old that don't work anyway cost nothing.
    cleaned = 0
    for each in by_age:
        count = min(spare - cleaned, max(each.spec.replicas - each.status.available_replicas, 0))
        sizes[each.name] -= count
        cleaned += count
    available = sum(each.status.available_replicas for each in [*old, new])
    free = available - least
    for each in by_age:
        count = max(min(sizes[each.name], free), 0)
        sizes[each.name] -= count
        free -= count
    return [Scaling(each, sizes[each.name]) for each in by_age if sizes[each.name] != each.spec.replicas]


def recreate(old: Sequence[ReplicaSet]) -> list[Scaling]:
    """The old ones go before the new one comes."""
    return [Scaling(each, 0) for each in old if each.spec.replicas]


def obsolete(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """The old ReplicaSets past the history's limit, the oldest first."""
    limit = deployment.spec.revision_history_limit
    if limit is None:
        return []
    idle = [each for each in old if each.metadata.deletion_timestamp is None]
    excess = len(idle) - limit
    found = sorted(idle, key=lambda each: (revision(each), *_age(each)))[: max(excess, 0)]
    return [
        each
        for each in found
        if not each.spec.replicas
        and not each.status.replicas
        and each.metadata.generation <= each.status.observed_generation
    ]


# Status


def _condition(status: Document, type_: str) -> Document | None:
    return next((each for each in status["conditions"] if each["type"] == type_), None)


def _set(status: Document, type_: str, value: str, reason: str, message: str, now: float) -> None:
    old = _condition(status, type_)
    if old is not None and (old["status"], old["reason"]) == (value, reason):
        return
    moved = old["lastTransitionTime"] if old is not None and old["status"] == value else timestamp(now)
    kept = [each for each in status["conditions"] if each["type"] != type_]
    new = {
        "type": type_, "status": value, "lastUpdateTime": timestamp(now), "lastTransitionTime": moved, "reason": reason, "message": message,
    }  # fmt: skip
    status["conditions"] = [*kept, new]


def _document(condition: Condition) -> Document:
    return {
        "type": condition.type, "status": condition.status, "lastUpdateTime": condition.last_update_time,
        "lastTransitionTime": condition.last_transition_time, "reason": condition.reason, "message": condition.message,
    }  # fmt: skip


def complete(deployment: Deployment, status: Document) -> bool:
    """Whether every Pod is of the new template, available, and nothing else is left."""
    wanted = deployment.spec.replicas
    counts = (status["updatedReplicas"], status["replicas"], status["availableReplicas"])
    return counts == (wanted,) * 3 and status["observedGeneration"] >= deployment.metadata.generation


def _progressing(old: Document, new: Document) -> bool:
    return bool(
        new["updatedReplicas"] > old["updatedReplicas"]
        or new["replicas"] - new["updatedReplicas"] < old["replicas"] - old["updatedReplicas"]
        or new["readyReplicas"] > old["readyReplicas"]
        or new["availableReplicas"] > old["availableReplicas"]
    )


def _counts(deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> Document:
    available = sum(each.status.available_replicas for each in sets)
    return {
        "observedGeneration": deployment.metadata.generation,
        "replicas": sum(each.status.replicas for each in sets),
        "updatedReplicas": new.status.replicas if new is not None else 0,
        "readyReplicas": sum(each.status.ready_replicas for each in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(_size(sets) - available, 0),
    }


def new_status(
    deployment: Deployment,
    new: ReplicaSet | None,
    old: Sequence[ReplicaSet],
    now: float,
    *,
    created: str = "",
    refused: str = "",
) -> Document | None:
    """The status as it should be, None where the object has it.

    `created` is the name of a ReplicaSet that was just made; `refused` is why one couldn't be.
    """
    was = deployment.status
    before: Document = {
        "observedGeneration": was.observed_generation, "replicas": was.replicas, "updatedReplicas": was.updated_replicas,
        "readyReplicas": was.ready_replicas, "availableReplicas": was.available_replicas,
        "unavailableReplicas": was.unavailable_replicas, "conditions": [_document(each) for each in was.conditions],
    }  # fmt: skip
    sets = [*old, *([new] if new is not None else [])]
    found: Document = {**_counts(deployment, new, sets), "conditions": before["conditions"]}
    if found["availableReplicas"] >= deployment.spec.replicas - max_unavailable(deployment):
        _set(found, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        why = "Deployment does not have minimum availability."
        _set(found, "Available", "False", "MinimumReplicasUnavailable", why, now)
    _progress(deployment, new, before, found, now, created, refused)
    failure = next((each for one in sets for each in one.status.conditions if each.type == "ReplicaFailure"), None)
    if failure is not None:
        _set(found, "ReplicaFailure", failure.status, failure.reason, failure.message, now)
    else:
        found["conditions"] = [each for each in found["conditions"] if each["type"] != "ReplicaFailure"]
    return None if found == before else found


def _progress(
    deployment: Deployment,
    new: ReplicaSet | None,
    before: Document,
    found: Document,
    now: float,
    created: str,
    refused: str,
) -> None:
    if deployment.spec.progress_deadline_seconds is None:
        found["conditions"] = [each for each in found["conditions"] if each["type"] != "Progressing"]
        return
    if deployment.spec.paused:
        _set(found, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
        return
    current = _condition(found, "Progressing")
    if current is not None and current["reason"] == "DeploymentPaused":
        _set(found, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    if refused:
        _set(found, "Progressing", "False", "ReplicaSetCreateError", refused, now)
        return
    if created:
        _set(found, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{created}"', now)
        return
    if new is None:
        return
    if current is None:
        _set(found, "Progressing", "True", "FoundNewReplicaSet", f'Found new replica set "{new.name}"', now)
        current = _condition(found, "Progressing")
    done = current is not None and current["reason"] == "NewReplicaSetAvailable"
    if done and found["replicas"] == found["updatedReplicas"]:
        return
    name = f'ReplicaSet "{new.name}"'
    if complete(deployment, found):
        _set(found, "Progressing", "True", "NewReplicaSetAvailable", f"{name} has successfully progressed.", now)
    elif _progressing(before, found):
        kept = current is not None and current["status"] == "True"
        since = current["lastTransitionTime"] if kept and current is not None else timestamp(now)
        found["conditions"] = [each for each in found["conditions"] if each["type"] != "Progressing"]
        _set(found, "Progressing", "True", "ReplicaSetUpdated", f"{name} is progressing.", now)
        found["conditions"][-1]["lastTransitionTime"] = since
    elif _overdue(deployment, current, now) == 0.0:
        _set(found, "Progressing", "False", "ProgressDeadlineExceeded", f"{name} has timed out progressing.", now)


def _overdue(deployment: Deployment, current: Document | None, now: float) -> float | None:
    """Seconds until a rollout that doesn't move has failed; None where it can't fail."""
    deadline = deployment.spec.progress_deadline_seconds
    if current is None or deadline is None or current["reason"] == "NewReplicaSetAvailable":
        return None
    if current["reason"] == "ProgressDeadlineExceeded":
        return 0.0
    return max(parse_time(current["lastUpdateTime"] or timestamp(now)) + deadline - now, 0.0)


def next_check(deployment: Deployment, now: float) -> float | None:
    """Seconds after which a rollout must be looked at again though nothing happens."""
    current = next((_document(each) for each in deployment.status.conditions if each.type == "Progressing"), None)
    left = _overdue(deployment, current, now)
    return left + 1.0 if left else None
