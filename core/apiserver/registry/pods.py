"""Rules of Pods: defaults and validation, what may change, binding to a node, graceful deletion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.api.kinds import POD
from core.api.meta import set_condition
from core.apiserver.fieldsets import item_element
from core.apiserver.registry.pod_defaults import (
    all_containers,
    complete_pod_spec,
    complete_requests,
    quality_of_service,
)
from core.apiserver.registry.pod_validation import validate_pod_spec
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import (
    conflict,
    forbidden,
    immutable,
    invalid,
    invalid_value,
    required,
    unknown_value,
)

__all__ = ["PodStrategy", "bind", "container_names", "text"]

_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_TOLERATED_SECONDS = 300
_UNHEALTHY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _spec(document: Document) -> Document:
    found: Document = document.get("spec") or {}
    return found


def text(*path: str) -> Any:
    def read(document: Document) -> str:
        found: Any = document
        for key in path:
            found = (found or {}).get(key)
        return "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)

    return read


_POD_FIELDS = {
    "spec.nodeName": text("spec", "nodeName"),
    "spec.restartPolicy": text("spec", "restartPolicy"),
    "spec.schedulerName": text("spec", "schedulerName"),
    "spec.serviceAccountName": text("spec", "serviceAccountName"),
    "spec.hostNetwork": lambda document: str(bool(_spec(document).get("hostNetwork"))).lower(),
    "status.phase": text("status", "phase"),
    "status.podIP": text("status", "podIP"),
    "status.nominatedNodeName": text("status", "nominatedNodeName"),
}


_NOT_ADDED = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy")


def _added(spec: Document) -> Iterator[Cause]:
    """What containers that are added to a Pod may not say, besides what no container may."""
    own = [str(each.get("name")) for key in ("containers", "initContainers") for each in spec.get(key) or ()]
    for index, each in enumerate(spec.get("ephemeralContainers") or ()):
        at = f"spec.ephemeralContainers[{index}]"
        target = each.get("targetContainerName")
        if target and target not in own:
            yield unknown_value(f"{at}.targetContainerName", target)
        for key in _NOT_ADDED:
            if each.get(key):
                yield forbidden(f"{at}.{key}", "cannot be set for an Ephemeral Container")


class PodStrategy(Strategy):
    soft_status = True
    returns_object = True
    graceful = True
    fields = _POD_FIELDS

    allotted = tuple(
        ("spec", key)
        for key in ("nodeName", "preemptionPolicy", "priority", "serviceAccount", "serviceAccountName", "tolerations")
    )
    parts = ("ephemeralcontainers", "resize")
    narrow = ("binding",)

    def repeatable(self, document: Document, what: str) -> bool:
        """A ReplicaSet's Pod and where it runs: there may be one too many for a moment. Others (a StatefulSet's) have an identity that no two may have."""
        if what not in ("create", "binding"):
            return False
        owners = document["metadata"].get("ownerReferences") or ()
        return any(each.get("controller") and each.get("kind") == "ReplicaSet" for each in owners)

    def unsaid(self, document: Document) -> list[tuple[str, ...]]:
        """And the resources of containers that ask for none: those that they get are a LimitRange's."""
        found = super().unsaid(document)
        for field in ("containers", "initContainers"):
            for each in _spec(document).get(field) or ():
                if not each.get("resources"):
                    at = ("f:spec", f"f:{field}", item_element({"name": each.get("name", "")}), "f:resources")
                    found += [(*at, "f:limits"), (*at, "f:requests")]
        return found

    def prepare_part(self, part: str, new: Document, old: Document) -> Document:
        spec, wanted = dict(_spec(old)), _spec(new)
        if part == "ephemeralcontainers":
            spec["ephemeralContainers"] = wanted.get("ephemeralContainers") or []
        else:
            for field in ("containers", "initContainers"):
                sizes = {each.get("name"): each.get("resources") or {} for each in wanted.get(field) or ()}
                if field in spec:
                    spec[field] = [
                        {**each, "resources": sizes.get(each["name"], each.get("resources") or {})}
                        for each in spec[field]
                    ]
        return {**old, "metadata": dict(old["metadata"]), "spec": spec}

    def validate_part(self, part: str, new: Document, old: Document) -> list[Cause]:
        """Ephemeral containers are added, never changed or removed."""
        if part != "ephemeralcontainers":
            if quality_of_service(_spec(new)) != (old.get("status") or {}).get("qosClass"):
                return [invalid_value("metadata", old["metadata"]["name"], "Pod QoS is immutable")]
            return []
        now = {each.get("name"): each for each in _spec(new).get("ephemeralContainers") or ()}
        found = []
        for each in _spec(old).get("ephemeralContainers") or ():
            name = each["name"]
            kept = now.get(name)
            if kept is None:
                found.append(
                    forbidden(
                        "spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be removed\n'
                    )
                )
            elif any(kept.get(key) != value for key, value in each.items()):
                found.append(
                    forbidden(
                        "spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be changed\n'
                    )
                )
        return found + list(_added(_spec(new)))

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"phase": "Pending"}
        document.setdefault("spec", {}).pop("ephemeralContainers", None)
        spec = document.setdefault("spec", {})
        spec.setdefault("serviceAccountName", spec.get("serviceAccount") or "default")
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        spec.setdefault("priority", 0)
        _tolerate_unhealthy(spec)

    def prepare_update(self, new: Document, old: Document) -> None:
        super().prepare_update(new, old)
        # A client that leaves these out (it replaces the Pod by its manifest) doesn't mean to remove them: they have a server's value.
        spec = new.setdefault("spec", {})
        for key in ("nodeName", "preemptionPolicy", "priority", "serviceAccount", "serviceAccountName"):
            if key in _spec(old):
                spec.setdefault(key, old["spec"][key])
        _tolerate_unhealthy(spec)

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        complete_pod_spec(spec)
        complete_requests(spec)
        spec.setdefault("enableServiceLinks", True)
        status = document.setdefault("status", {})
        status.setdefault("phase", "Pending")
        if "qosClass" not in status:
            status["qosClass"] = quality_of_service(spec)

    def prepare_status(self, new: Document, old: Document) -> Document:
        found = super().prepare_status(new, old)
        if quality := (old.get("status") or {}).get("qosClass"):
            found.setdefault("status", {}).setdefault("qosClass", quality)
        return found

    def validate(self, document: Document) -> list[Cause]:
        return validate_pod_spec(_spec(document))

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        found = []
        if self._fixed(new, old) != _spec(old):
            found.append(forbidden("spec", _IMMUTABLE))
        before, after = _spec(old).get("tolerations") or [], _spec(new).get("tolerations") or []
        if any(each not in after for each in before):
            found.append(
                forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
            )
        now, was = _spec(new).get("activeDeadlineSeconds"), _spec(old).get("activeDeadlineSeconds")
        if was is not None and (now is None or now > was):
            found.append(immutable("spec.activeDeadlineSeconds", now))
        return found

    def _fixed(self, new: Document, old: Document) -> Document:
        """The new spec with the old values of what may change."""
        was = _spec(old)
        found = {**_spec(new)}
        for key in ("activeDeadlineSeconds", "tolerations"):
            found.pop(key, None)
            if key in was:
                found[key] = was[key]
        for key in ("containers", "initContainers"):
            if len(found.get(key) or ()) == len(was.get(key) or ()):
                pairs = zip(found.get(key) or (), was.get(key) or (), strict=True)
                merged = [{**each, "image": before.get("image")} for each, before in pairs]
                if key in found:
                    found[key] = merged
        return found


def _tolerate_unhealthy(spec: Document) -> None:
    """A Pod outlives a sick node for five minutes, unless it says how long itself."""
    tolerations = spec.setdefault("tolerations", [])
    for key in _UNHEALTHY:
        if not any(_covers(each, key) for each in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATED_SECONDS}
            )


def _covers(toleration: Document, key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def bind(pod: Document, binding: Document, now: float) -> Document:
    """The Pod with the node of a `Binding`. Raises `Conflict` where it has one or is going, `Invalid` for a bad target."""
    name = pod["metadata"]["name"]
    target = binding.get("target") or {}
    if target.get("kind") not in (None, "", "Node") or not target.get("name"):
        raise invalid(POD, name, [required("target.name")])
    spec = pod["spec"]
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(POD, name, f"pod {name} is being deleted, cannot be assigned to a host", "binding")
    if spec.get("nodeName"):
        raise conflict(POD, name, f'pod {name} is already assigned to node "{spec["nodeName"]}"', "binding")
    spec["nodeName"] = target["name"]
    if annotations := (binding.get("metadata") or {}).get("annotations"):
        pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), **annotations}
    status = pod.setdefault("status", {})
    conditions = set_condition(status.get("conditions") or [], "PodScheduled", "True", "", "", now)
    status["conditions"] = [{key: value for key, value in each.items() if value != ""} for each in conditions]
    return pod


def container_names(pod: Document) -> list[str]:
    return [str(each["name"]) for _, each in all_containers(_spec(pod))]
