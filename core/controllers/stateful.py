"""StatefulSets, the pure part: which Pod to create or delete next, and what the status says.

After https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/: in order, one at a time, unless the policy is Parallel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from core.api.kinds import POD, STATEFUL_SET
from core.api.meta import Document, controller_reference
from core.api.views import PersistentVolumeClaim, Pod, StatefulSet
from core.controllers.replicas import available_in
from core.controllers.revisions import LABEL

__all__ = [
    "Step", "claim_owners", "claim_references", "claims", "decide", "new_status", "next_check", "ordinal", "pod_document",
]  # fmt: skip

INDEX_LABEL = "apps.kubernetes.io/pod-index"
NAME_LABEL = "statefulset.kubernetes.io/pod-name"


@dataclass(frozen=True, slots=True)
class Step:
    """`create`: (ordinal, whether of the new revision)."""

    create: list[tuple[int, bool]] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)


def ordinal(found: StatefulSet, pod: Pod) -> int:
    """-1 where the Pod's name isn't one of this set's."""
    prefix, _, number = pod.name.rpartition("-")
    return int(number) if prefix == found.name and number.isdigit() else -1


def _healthy(found: StatefulSet, pod: Pod, now: float) -> bool:
    """Ready, and for as long as the set asks for."""
    there = pod.metadata.deletion_timestamp is None
    return there and available_in(pod, found.spec.min_ready_seconds, now) == 0.0


def next_check(found: StatefulSet, pods: Iterable[Pod], now: float) -> float | None:
    """Seconds until a Pod has been ready for long enough; None where that isn't waited for."""
    waits = [available_in(pod, found.spec.min_ready_seconds, now) for pod in pods]
    return min((each for each in waits if each), default=None)


def _partition(found: StatefulSet) -> int:
    return int((found.spec.update_strategy.get("rollingUpdate") or {}).get("partition") or 0)


def decide(found: StatefulSet, pods: Iterable[Pod], update: str, now: float) -> Step:
    """The next step; `update` is the hash of the revision that the set has now, `now` is seconds since the epoch."""
    if found.metadata.deletion_timestamp is not None:
        return Step()
    first = int(found.spec.ordinals.get("start") or 0)
    wanted = range(first, first + found.spec.replicas)
    by_number = {number: pod for pod in pods if (number := ordinal(found, pod)) >= 0}
    parallel = found.spec.pod_management_policy == "Parallel"
    # Below the partition Pods stay what they are; with a set that has never been another, both revisions are the same.
    old_remains = found.status.current_revision not in ("", f"{found.name}-{update}")
    create: list[tuple[int, bool]] = []
    delete: list[Pod] = []
    for number in wanted:
        pod = by_number.get(number)
        if pod is None:
            create.append((number, not old_remains or number >= first + _partition(found)))
        elif pod.terminal:
            if pod.metadata.deletion_timestamp is None:
                delete.append(pod)
        elif _healthy(found, pod, now):
            continue
        if not parallel:
            return Step(create, delete)
    if create or delete:
        return Step(create, delete)
    for number in sorted((each for each in by_number if each not in wanted), reverse=True):
        pod = by_number[number]
        if pod.metadata.deletion_timestamp is None:
            delete.append(pod)
        if not parallel:
            return Step([], delete)
    if delete or found.spec.update_strategy.get("type") == "OnDelete":
        return Step([], delete)
    for number in sorted(wanted, reverse=True):
        if number < first + _partition(found):
            break
        pod = by_number[number]
        if not _healthy(found, pod, now):
            break
        if pod.metadata.labels.get(LABEL) != update:
            return Step([], [pod])
    return Step()


def claim_owners(found: StatefulSet, pods: Iterable[Pod]) -> dict[str, Pod | StatefulSet | None]:
    """By the names of claims, with whom each of the Pods' is to go: with the set, with its Pod, or with nobody.

    A Pod takes its claims along where it goes because the set got smaller (`whenScaled: Delete`); all go with the set where that is said
    (`whenDeleted: Delete`).
    """
    policy, first = found.spec.persistent_volume_claim_retention_policy, int(found.spec.ordinals.get("start") or 0)
    owners: dict[str, Pod | StatefulSet | None] = {}
    for pod in pods:
        number = ordinal(found, pod)
        wanted = first <= number < first + found.spec.replicas
        owner: Pod | StatefulSet | None = found if policy.get("whenDeleted") == "Delete" else None
        if not wanted and policy.get("whenScaled") == "Delete":
            owner = pod
        owners |= {claim["metadata"]["name"]: owner for claim in claims(found, number)}
    return owners


def claim_references(claim: PersistentVolumeClaim, owner: Pod | StatefulSet | None) -> list[Document] | None:
    """The `ownerReferences` that the claim is to have; None where they are so. Those of others stay."""
    kind = STATEFUL_SET if isinstance(owner, StatefulSet) else POD
    ours = {STATEFUL_SET.kind, POD.kind}
    kept = [msgspec.to_builtins(each) for each in claim.metadata.owner_references if each.kind not in ours]
    new = [*kept, controller_reference(kind, owner.name, owner.metadata.uid)] if owner is not None else kept
    before = {(each.kind, each.uid) for each in claim.metadata.owner_references}
    return None if before == {(each["kind"], each["uid"]) for each in new} else new


def claims(found: StatefulSet, number: int) -> list[Document]:
    """The volume claims of a Pod."""
    made: list[Document] = []
    policy = found.spec.persistent_volume_claim_retention_policy
    owners = [controller_reference(STATEFUL_SET, found.name, found.metadata.uid)]
    with_set = {"ownerReferences": owners} if policy.get("whenDeleted") == "Delete" else {}
    for template in found.spec.volume_claim_templates:
        metadata = template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), **((found.spec.selector or {}).get("matchLabels") or {})}
        made.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": f"{metadata.get('name', '')}-{found.name}-{number}",
                    "namespace": found.namespace,
                    "labels": labels,
                    "annotations": dict(metadata.get("annotations") or {}),
                    **with_set,
                },
                "spec": template.get("spec") or {},
            }
        )
    return made


def pod_document(found: StatefulSet, template: Document, number: int, revision: str) -> Document:
    """The Pod to POST: a name and a host name that stay, and its own volumes."""
    metadata, name = template.get("metadata") or {}, f"{found.name}-{number}"
    labels = {**(metadata.get("labels") or {}), LABEL: revision, NAME_LABEL: name, INDEX_LABEL: str(number)}
    spec = {**(template.get("spec") or {}), "hostname": name, "subdomain": found.spec.service_name}
    own = [
        {
            "name": (each.get("metadata") or {}).get("name", ""),
            "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
        }
        for each, claim in zip(found.spec.volume_claim_templates, claims(found, number), strict=True)
    ]
    if own:
        names = {each["name"] for each in own}
        spec["volumes"] = [*(each for each in spec.get("volumes") or () if each.get("name") not in names), *own]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{found.name}-",
            "namespace": found.namespace,
            "labels": labels,
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [controller_reference(STATEFUL_SET, found.name, found.metadata.uid)],
        },
        "spec": spec,
    }


def new_status(found: StatefulSet, pods: Iterable[Pod], update: str, now: float) -> Document | None:
    """The status as it should be, None where the object has it. `update` is the name of the newest revision."""
    was = found.status
    living = [pod for pod in pods if pod.metadata.deletion_timestamp is None and not pod.terminal]
    label = update.removeprefix(f"{found.name}-")
    updated = sum(pod.metadata.labels.get(LABEL) == label for pod in living)
    ready = sum(pod.ready for pod in living)
    current = was.current_revision or update
    done = updated == len(living) == ready == found.spec.replicas
    if done and not _partition(found):
        current = update
    current_label = current.removeprefix(f"{found.name}-")
    counts = {
        "observedGeneration": found.metadata.generation,
        "replicas": len(living),
        "readyReplicas": ready,
        "availableReplicas": sum(available_in(pod, found.spec.min_ready_seconds, now) == 0.0 for pod in living),
        "currentReplicas": sum(pod.metadata.labels.get(LABEL) == current_label for pod in living),
        "updatedReplicas": updated,
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": was.collision_count or 0,
    }
    before = (
        was.observed_generation, was.replicas, was.ready_replicas, was.available_replicas, was.current_replicas, was.updated_replicas,
        was.current_revision, was.update_revision, was.collision_count,
    )  # fmt: skip
    return None if tuple(counts.values()) == before else counts
