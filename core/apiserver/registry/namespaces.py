"""Rules of Namespaces: a finalizer of their own, a phase, and the label with their name."""

from __future__ import annotations

from core.apiserver.registry.names import label
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Document, Strategy

__all__ = ["NAME_LABEL", "NamespaceStrategy"]

NAME_LABEL = "kubernetes.io/metadata.name"


_NAMESPACE_FIELDS = {"status.phase": text("status", "phase")}


class NamespaceStrategy(Strategy):
    """`spec.finalizers` hold a Namespace until its content is gone; they change by the subresource `finalize` alone."""

    fields = _NAMESPACE_FIELDS

    def check_name(self, name: str) -> str:
        return label(name)

    def prepare_create(self, document: Document, now: float) -> None:
        document["spec"] = {"finalizers": ["kubernetes"]}
        document["status"] = {"phase": "Active"}

    def prepare_update(self, new: Document, old: Document) -> None:
        super().prepare_update(new, old)
        new["spec"] = old.get("spec") or {}

    def complete(self, document: Document) -> None:
        metadata = document["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: metadata.get("name") or ""}

    def mark_deleted(self, document: Document) -> None:
        document["status"] = {**(document.get("status") or {}), "phase": "Terminating"}

    def held(self, document: Document) -> bool:
        return bool((document.get("spec") or {}).get("finalizers"))
