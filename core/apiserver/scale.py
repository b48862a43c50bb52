"""The `scale` subresource: an `autoscaling/v1 Scale` made from an object, and an object with the replicas of a Scale. Pure."""

from __future__ import annotations

from typing import Any

from core.api.kinds import REPLICATION_CONTROLLER, Kind
from core.apiserver.cache import Document
from core.apiserver.registry.replicasets import selector_text
from core.apiserver.status import invalid, invalid_value

__all__ = ["SCALE", "read_scale", "with_replicas"]

SCALE = Kind("autoscaling", "v1", "Scale", "scales")
_BUILT_IN = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}


def _get(document: Any, path: str) -> Any:
    for key in path.strip(".").split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def read_scale(kind: Kind, document: Document, paths: Document | None) -> Document:
    """`paths` are those of a CustomResourceDefinition; None for a built-in kind."""
    found = paths or _BUILT_IN
    metadata = document["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Document = {"replicas": _get(document, found["statusReplicasPath"]) or 0}
    if paths is None:
        selector = document["spec"].get("selector")
        status["selector"] = selector_text({"matchLabels": selector} if kind == REPLICATION_CONTROLLER else selector)
    elif path := found.get("labelSelectorPath"):
        status["selector"] = str(_get(document, path) or "")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": _get(document, found["specReplicasPath"]) or 0},
        "status": status,
    }


def with_replicas(document: Document, scale: Document, paths: Document | None) -> Document:
    """`document` (changed) with what `scale` asks for. Raises `Invalid`."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if type(replicas) is not int or not 0 <= replicas < 2**31:
        name = document["metadata"]["name"]
        raise invalid(SCALE, name, [invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")])
    *above, last = (paths or _BUILT_IN)["specReplicasPath"].strip(".").split(".")
    at = document
    for key in above:
        at = at.setdefault(key, {})
    at[last] = replicas
    wanted = scale.get("metadata") or {}
    for key in ("resourceVersion", "uid"):
        if wanted.get(key):
            document["metadata"][key] = wanted[key]
    return document
