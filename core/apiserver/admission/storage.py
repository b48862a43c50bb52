"""What the server adds to claims and volumes: their class and their protection.

DefaultStorageClass and StorageObjectInUseProtection of
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from core.api.volumes import CLAIM_PROTECTION, DEFAULT_CLASS, VOLUME_PROTECTION
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["StorageObjects", "default_class"]

Document = dict[str, Any]
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def default_class(classes: list[Document]) -> str:
    """The name of the default class; of several the one made last, then the first by name. "" where there is none."""
    marked = [each["metadata"] for each in classes if (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]  # fmt: skip
    names = sorted(marked, key=lambda each: str(each["name"]))
    newest = max((str(each.get("creationTimestamp", "")) for each in names), default="")
    return next((str(each["name"]) for each in names if str(each.get("creationTimestamp", "")) == newest), "")


class StorageObjects:
    verbs = ("create",)
    kinds = frozenset((PERSISTENT_VOLUME.resource, PERSISTENT_VOLUME_CLAIM.resource))

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        document, kind = attributes.document, attributes.kind
        if document is None or attributes.info.subresource:
            return
        if kind.resource == PERSISTENT_VOLUME.resource:
            _protect(document, VOLUME_PROTECTION)
        elif kind.resource == PERSISTENT_VOLUME_CLAIM.resource:
            _protect(document, CLAIM_PROTECTION)
            spec = document.setdefault("spec", {})
            if (
                spec.get("storageClassName") is None
                and _BETA_CLASS not in ((document.get("metadata") or {}).get("annotations") or {})
                and (found := default_class(await self._classes()))
            ):
                spec["storageClassName"] = found

    async def _classes(self) -> list[Document]:
        page = await self._store.list(f"/{STORAGE_CLASS.resource}/")
        return [msgspec.json.decode(each.value) for each in page.entries]


def _protect(document: Document, finalizer: str) -> None:
    metadata = document.setdefault("metadata", {})
    found = metadata.get("finalizers") or []
    if finalizer not in found:
        metadata["finalizers"] = [*found, finalizer]
