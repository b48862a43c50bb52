"""Claims and volumes, the pure part: which belong together, what is to be made, what becomes of a volume without its claim.

After k8s.io/kubernetes/pkg/controller/volume/persistentvolume (pv_controller.go, index.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.api import quantity
from core.api.kinds import PERSISTENT_VOLUME_CLAIM
from core.api.meta import Document
from core.api.nodeselector import node_matches
from core.api.selectors import from_label_selector
from core.api.views import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from core.api.volumes import (
    BIND_COMPLETED,
    HOSTNAME,
    LOCAL_DRIVER,
    NO_PROVISIONER,
    PROVISIONED_BY,
)

__all__ = [
    "Bind", "Event", "Lost", "Nothing", "Phase", "Provision", "Reclaim", "Unbind", "Wait", "affine", "claim_reference", "claim_step",
    "is_for", "misfit", "node_names", "volume_document", "volume_step",
]  # fmt: skip


class Event(NamedTuple):
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Bind:
    volume: PersistentVolume


@dataclass(frozen=True, slots=True)
class Provision:
    """Make a volume of the class, or wait for whoever makes those."""

    storage_class: StorageClass


@dataclass(frozen=True, slots=True)
class Wait:
    """The claim stays Pending; `event` says why, where there is something to say."""

    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    event: Event


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


ClaimStep = Bind | Provision | Wait | Lost | Nothing


def requested(claim: PersistentVolumeClaim) -> int:
    """Bytes."""
    return quantity.whole(claim.spec.resources.requests.get("storage", 0))


def _capacity(volume: PersistentVolume) -> int:
    return quantity.whole(volume.spec.capacity.get("storage", 0))


def is_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether the volume says that it is this claim's; one that was meant for a name says no uid yet."""
    found = volume.spec.claim_ref
    if found is None or (found.get("namespace"), found.get("name")) != (claim.namespace, claim.name):
        return False
    return found.get("uid") in (None, "", claim.metadata.uid)


def misfit(claim: PersistentVolumeClaim, volume: PersistentVolume) -> str:
    """Why the volume won't do; "" where it will."""
    if _capacity(volume) < requested(claim):
        return "requested PV is too small"
    if volume.spec.storage_class_name != (claim.spec.storage_class_name or ""):
        return "storageClassName does not match"
    if volume.spec.volume_mode != claim.spec.volume_mode:
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes) <= set(volume.spec.access_modes):
        return "incompatible accessMode"
    return ""


def affine(volume: PersistentVolume, name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node can have the volume."""
    required = (volume.spec.node_affinity or {}).get("required")
    try:
        return required is None or node_matches(required, name, labels)
    except (KeyError, TypeError):
        return False


def _find(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], node: Node | None, *, delayed: bool
) -> PersistentVolume | None:
    """The volume that was meant for the claim, or the smallest that fits; with `delayed` only what `node` can have."""
    selector = from_label_selector(claim.spec.selector) if claim.spec.selector else None
    best: PersistentVolume | None = None
    for each in volumes:
        if each.metadata.deletion_timestamp is not None:
            continue
        if is_for(each, claim) and not misfit(claim, each):
            return each
        if each.spec.claim_ref is not None or each.status.phase != "Available" or misfit(claim, each):
            continue
        if selector is not None and not selector.matches(each.metadata.labels):
            continue
        if delayed and (node is None or not affine(each, node.name, node.metadata.labels)):
            continue
        if best is None or (_capacity(each), each.name) < (_capacity(best), best.name):
            best = each
    return best


def claim_step(
    claim: PersistentVolumeClaim,
    volumes: Mapping[str, PersistentVolume],
    storage_class: StorageClass | None,
    node: Node | None,
) -> ClaimStep:
    """What to do for a claim. `storage_class` is the one that it names, `node` that of its first consumer, once it has one."""
    name = claim.spec.volume_name
    if BIND_COMPLETED in claim.metadata.annotations:
        return _kept(claim, volumes.get(name))
    if name:
        return _asked_for(claim, volumes.get(name))
    delayed = storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"
    try:
        found = _find(claim, volumes.values(), node, delayed=delayed)
    except (KeyError, ValueError, TypeError):
        return Wait()
    if found is not None:
        return Bind(found)
    if delayed and node is None:
        text = "waiting for first consumer to be created before binding"
        return Wait(Event("Normal", "WaitForFirstConsumer", text))
    if not claim.spec.storage_class_name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return Wait(Event("Normal", "FailedBinding", text))
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{claim.spec.storage_class_name}" not found'
        return Wait(Event("Warning", "ProvisioningFailed", text))
    if storage_class.provisioner == NO_PROVISIONER:
        text = f"no volume plugin matched name: {NO_PROVISIONER}"
        return Wait(Event("Warning", "ProvisioningFailed", text))
    if storage_class.provisioner == LOCAL_DRIVER and claim.spec.volume_mode == "Block":
        text = f"{LOCAL_DRIVER} does not support block volume provisioning"
        return Wait(Event("Warning", "ProvisioningFailed", text))
    return Provision(storage_class)


def _kept(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> ClaimStep:
    """Of a claim that was bound before."""
    if not claim.spec.volume_name:
        return _lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
    if volume is None:
        return _lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    if volume.spec.claim_ref is not None and not is_for(volume, claim):
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        return _lost("ClaimMisbound", text)
    return Bind(volume)


def _lost(reason: str, message: str) -> Lost:
    return Lost(Event("Warning", reason, message))


def _asked_for(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> ClaimStep:
    """Of a claim that names its volume."""
    if volume is None:
        return Wait()
    if volume.spec.claim_ref is not None and not is_for(volume, claim):
        text = f'volume "{volume.name}" already bound to a different claim.'
        return Wait(Event("Warning", "FailedBinding", text))
    if why := misfit(claim, volume):
        text = f'Cannot bind to requested volume "{volume.name}": {why}'
        return Wait(Event("Warning", "VolumeMismatch", text))
    return Bind(volume)


# Volumes


@dataclass(frozen=True, slots=True)
class Phase:
    phase: str


@dataclass(frozen=True, slots=True)
class Unbind:
    """It was meant for a claim that took another."""


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Its claim is gone: Released, and then as its policy says."""


VolumeStep = Phase | Unbind | Reclaim


def volume_step(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> VolumeStep:
    """What becomes of a volume; `claim` is what its `claimRef` is about, None where that is gone, or was another of the name."""
    reference = volume.spec.claim_ref
    if reference is None or not reference.get("uid"):
        return Phase("Available")
    if claim is None or claim.metadata.uid != reference["uid"]:
        return Reclaim()
    if not claim.spec.volume_name:
        return Phase(volume.status.phase if volume.status.phase in ("Bound", "Available") else "Available")
    if claim.spec.volume_name == volume.name:
        return Phase("Bound")
    if PROVISIONED_BY in volume.metadata.annotations and volume.spec.persistent_volume_reclaim_policy == "Delete":
        return Reclaim()
    return Unbind()


def claim_reference(claim: PersistentVolumeClaim) -> Document:
    return {
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
    }


def node_names(volume: PersistentVolume) -> list[str]:
    """The nodes whose folder a volume of the nodes' own is."""
    required = (volume.spec.node_affinity or {}).get("required") or {}
    return [
        str(value)
        for term in required.get("nodeSelectorTerms") or ()
        for each in term.get("matchExpressions") or ()
        if each.get("key") == HOSTNAME
        for value in each.get("values") or ()
    ]


def volume_document(claim: PersistentVolumeClaim, storage_class: StorageClass, node: Node) -> Document:
    """A volume of the nodes' own for the claim: a folder of that node."""
    name = f"pvc-{claim.metadata.uid}"
    host = node.metadata.labels.get(HOSTNAME, node.name)
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]}
    spec: Document = {
        "accessModes": list(claim.spec.access_modes),
        "capacity": {"storage": claim.spec.resources.requests["storage"]},
        "claimRef": claim_reference(claim),
        "csi": {"driver": LOCAL_DRIVER, "volumeHandle": name},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        "persistentVolumeReclaimPolicy": storage_class.reclaim_policy,
        "storageClassName": storage_class.name,
        "volumeMode": claim.spec.volume_mode,
    }
    if storage_class.mount_options:
        spec["mountOptions"] = list(storage_class.mount_options)
    notes = {PROVISIONED_BY: LOCAL_DRIVER}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": notes},
        "spec": spec,
    }
