"""Rules of the storage kinds: volumes, claims, classes and drivers."""

from __future__ import annotations

from types import MappingProxyType

from core.api.quantity import whole
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import forbidden, immutable, invalid_value, not_supported, required

__all__ = [
    "ClaimStrategy", "CsiDriverStrategy", "CsiNodeStrategy", "StorageClassStrategy", "VolumeAttachmentStrategy", "VolumeStrategy",
    "complete_claim",
]  # fmt: skip

_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_VOLUME_OWN = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy", "storageClassName",
    "volumeAttributesClassName", "volumeMode",
)  # fmt: skip


def _access_modes(modes: list[str], at: str) -> list[Cause]:
    found = [not_supported(at, each, _MODES) for each in modes if each not in _MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        found.append(forbidden(at, "may not use ReadWriteOncePod with other access modes"))
    return found


class VolumeStrategy(Strategy):
    allotted = (("metadata", "finalizers"),)
    returns_object = True

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"phase": "Pending"}

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
        spec["volumeMode"] = spec.get("volumeMode") or "Filesystem"
        if (host := spec.get("hostPath")) is not None:
            host.setdefault("type", "")

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = []
        if not spec.get("accessModes"):
            found.append(required("spec.accessModes"))
        found += _access_modes(spec.get("accessModes") or [], "spec.accessModes")
        if not spec.get("capacity"):
            found.append(required("spec.capacity"))
        elif "storage" not in spec["capacity"]:
            found.append(not_supported("spec.capacity", next(iter(spec["capacity"])), ("storage",)))
        if spec["volumeMode"] not in ("Block", "Filesystem"):
            found.append(not_supported("spec.volumeMode", spec["volumeMode"], ("Block", "Filesystem")))
        policy = spec["persistentVolumeReclaimPolicy"]
        if policy not in ("Delete", "Recycle", "Retain"):
            found.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, ("Delete", "Recycle", "Retain")))
        sources = [each for each in spec if each not in _VOLUME_OWN]
        if not sources:
            found.append(required("spec", "must specify a volume type"))
        found += [forbidden(f"spec.{each}", "may not specify more than 1 volume type") for each in sources[1:]]
        if "hostPath" in sources and not spec["hostPath"].get("path"):
            found.append(required("spec.hostPath.path"))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        sources = [{key: value for key, value in each["spec"].items() if key not in _VOLUME_OWN} for each in (new, old)]
        found = []
        if sources[0] != sources[1]:
            why = "spec.persistentvolumesource is immutable after creation"
            found.append(forbidden("spec.persistentvolumesource", why))
        if new["spec"]["volumeMode"] != old["spec"].get("volumeMode", "Filesystem"):
            found.append(immutable("spec.volumeMode", new["spec"]["volumeMode"]))
        return found


def complete_claim(claim: Document) -> None:
    """The defaults of a claim, also of one in a StatefulSet."""
    spec = claim.setdefault("spec", {})
    spec["volumeMode"] = spec.get("volumeMode") or "Filesystem"
    claim.setdefault("status", {}).setdefault("phase", "Pending")
    if spec.get("dataSource") and not spec.get("dataSourceRef"):
        spec["dataSourceRef"] = dict(spec["dataSource"])


class ClaimStrategy(Strategy):
    returns_object = True
    allotted = (("metadata", "finalizers"), ("spec", "storageClassName"))

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"phase": "Pending"}

    def complete(self, document: Document) -> None:
        complete_claim(document)

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = []
        if not spec.get("accessModes"):
            found.append(required("spec.accessModes", "at least 1 access mode is required"))
        found += _access_modes(spec.get("accessModes") or [], "spec.accessModes")
        if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
            found.append(required("spec.resources[storage]"))
        if spec["volumeMode"] not in ("Block", "Filesystem"):
            found.append(not_supported("spec.volumeMode", spec["volumeMode"], ("Block", "Filesystem")))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        bound = (old.get("status") or {}).get("phase") == "Bound"
        free = {"volumeAttributesClassName", *(("resources",) if bound else ())}
        if not old["spec"].get("volumeName"):
            free.add("volumeName")
        if not old["spec"].get("storageClassName"):
            free.add("storageClassName")
        kept = [{key: value for key, value in each["spec"].items() if key not in free} for each in (new, old)]
        if kept[0] != kept[1]:
            why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            return [forbidden("spec", why)]
        asked = [
            whole(((each["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0))
            for each in (new, old)
        ]
        if asked[0] < asked[1]:
            why = "field can not be less than status.capacity"
            return [forbidden("spec.resources.requests.storage", why)]
        return []


class StorageClassStrategy(Strategy):
    returns_object = True

    def complete(self, document: Document) -> None:
        document["reclaimPolicy"] = document.get("reclaimPolicy") or "Delete"
        document["volumeBindingMode"] = document.get("volumeBindingMode") or "Immediate"

    def validate(self, document: Document) -> list[Cause]:
        found = [] if document.get("provisioner") else [required("provisioner")]
        for key, known in (
            ("reclaimPolicy", ("Delete", "Retain")),
            ("volumeBindingMode", ("Immediate", "WaitForFirstConsumer")),
        ):
            if document[key] not in known:
                found.append(not_supported(key, document[key], known))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        found = [
            forbidden(key, f"updates to {key} are forbidden.")
            for key in ("parameters", "provisioner")
            if (new.get(key) or None) != (old.get(key) or None)
        ]
        changed = [key for key in ("reclaimPolicy", "volumeBindingMode") if new[key] != old.get(key)]
        return found + [immutable(key, new[key]) for key in changed]


_DRIVER_DEFAULTS = (
    ("attachRequired", True), ("podInfoOnMount", False), ("storageCapacity", False), ("requiresRepublish", False),
    ("seLinuxMount", False), ("fsGroupPolicy", "ReadWriteOnceWithFSType"), ("volumeLifecycleModes", ["Persistent"]),
)  # fmt: skip


class CsiDriverStrategy(Strategy):
    returns_object = True
    generation = True

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        for key, value in _DRIVER_DEFAULTS:
            if spec.get(key) is None:
                spec[key] = list(value) if isinstance(value, list) else value

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return [
            immutable(f"spec.{key}", new["spec"][key])
            for key in ("attachRequired", "volumeLifecycleModes")
            if new["spec"][key] != old["spec"].get(key)
        ]


class CsiNodeStrategy(Strategy):
    returns_object = True

    def validate(self, document: Document) -> list[Cause]:
        drivers = (document.get("spec") or {}).get("drivers") or ()
        return [
            required(f"spec.drivers[{index}].{key}")
            for index, each in enumerate(drivers)
            for key in ("name", "nodeID")
            if not each.get(key)
        ]


class VolumeAttachmentStrategy(Strategy):
    returns_object = True
    fields = MappingProxyType({"spec.attacher": text("spec", "attacher"), "spec.nodeName": text("spec", "nodeName")})

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"attached": False}

    def validate(self, document: Document) -> list[Cause]:
        spec = document.get("spec") or {}
        found = [required(f"spec.{key}") for key in ("attacher", "nodeName") if not spec.get(key)]
        source = spec.get("source") or {}
        if not source.get("persistentVolumeName") and not source.get("inlineVolumeSpec"):
            found.append(
                required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
            )
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if new.get("spec") != old.get("spec"):
            return [invalid_value("spec", "", "field is immutable")]
        return []
