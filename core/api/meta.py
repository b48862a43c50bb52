"""Helpers for objects as plain JSON documents (`dict`), the form that is written to the API."""

from __future__ import annotations

from typing import Any

from core.api.kinds import Kind
from core.clock import timestamp

__all__ = ["Document", "controller_reference", "disruption_target", "key", "set_condition"]

Document = dict[str, Any]


def key(document: Document) -> str:
    """`namespace/name`, or `name` for an object of the cluster: the key of informer caches and work queues."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def controller_reference(kind: Kind, name: str, uid: str) -> Document:
    """The `ownerReferences` entry that makes (kind, name, uid) the managing controller of an object."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def disruption_target(reason: str, message: str, now: float) -> Document:
    """The condition of a Pod that says that it is taken away through no fault of its own (KEP-3329): failure policies of Jobs go by it."""
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(now),
    }


def set_condition(
    conditions: list[Document], type_: str, status: str, reason: str, message: str, now: float, **extra: Any
) -> list[Document]:
    """A new list in which the condition of that type has these values.

    `lastTransitionTime` moves only where `status` changes (KEP-1623). `status` is "True", "False" or "Unknown".
    """
    old = next((each for each in conditions if each.get("type") == type_), None)
    moved = old is None or old.get("status") != status
    since = timestamp(now) if moved or old is None else old.get("lastTransitionTime")
    new = {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since, **extra}
    if old is None:
        return [*conditions, new]
    return [new if each is old else each for each in conditions]
