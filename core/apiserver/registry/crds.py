"""Rules of CustomResourceDefinitions: established at once, and gone only after their objects.

A finalizer holds a definition that is being deleted until the API server has drained its objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.api.kinds import Kind
from core.api.meta import set_condition
from core.apiserver.crd import validate_crd
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import immutable, required
from core.clock import wall

__all__ = ["CLEANUP", "DefinitionStrategy"]

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
Hook = Callable[[Document], None]


class DefinitionStrategy(Strategy):
    """`on_stored` and `on_removed` are told of every definition that is served from now on, or no more."""

    generation = True
    unconditional_update = False

    def __init__(self, kind: Kind, on_stored: Hook, on_removed: Hook) -> None:
        super().__init__(kind)
        self._on_stored = on_stored
        self._on_removed = on_removed

    allotted = (("metadata", "finalizers"),)

    def prepare_create(self, document: Document, now: float) -> None:
        document.pop("status", None)
        finalizers = document["metadata"].setdefault("finalizers", [])
        if CLEANUP not in finalizers:
            finalizers.append(CLEANUP)

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        names = spec.setdefault("names", {})
        if names.get("kind"):
            names["singular"] = names.get("singular") or names["kind"].lower()
            names["listKind"] = names.get("listKind") or f"{names['kind']}List"
        conversion = spec.setdefault("conversion", {})
        conversion["strategy"] = conversion.get("strategy") or "None"
        self._establish(document)

    def _establish(self, document: Document) -> None:
        status = document.setdefault("status", {})
        status["acceptedNames"] = document["spec"]["names"]
        stored = list(status.get("storedVersions") or ())
        for version in document["spec"].get("versions") or ():
            if version.get("storage") and version.get("name") not in stored:
                stored.append(version.get("name"))
        status["storedVersions"] = stored
        now, conditions = wall(), status.get("conditions") or []
        conditions = set_condition(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
        status["conditions"] = set_condition(
            conditions, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now
        )

    def validate(self, document: Document) -> list[Cause]:
        found = list(validate_crd(document))
        for index, version in enumerate(document["spec"].get("versions") or ()):
            at = f"spec.versions[{index}]"
            found += [
                required(f"{at}.selectableFields[{place}].jsonPath")
                for place, each in enumerate(version.get("selectableFields") or ())
                if not each.get("jsonPath")
            ]
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        found = []
        for path in (("group",), ("scope",), ("names", "plural"), ("names", "kind")):
            now, was = _at(new["spec"], path), _at(old["spec"], path)
            if now != was:
                found.append(immutable(f"spec.{'.'.join(path)}", now))
        return found

    def mark_deleted(self, document: Document) -> None:
        status = dict(document.get("status") or {})
        status["conditions"] = set_condition(
            status.get("conditions") or [], "Terminating", "True", "InstanceDeletionInProgress",
            "CustomResource deletion is in progress", wall(),
        )  # fmt: skip
        document["status"] = status

    def stored(self, document: Document) -> None:
        self._on_stored(document)

    def removed(self, document: Document) -> None:
        self._on_removed(document)


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        found = (found or {}).get(key)
    return found
