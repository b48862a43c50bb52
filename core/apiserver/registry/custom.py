"""Rules of custom resources: what their CustomResourceDefinition says, one strategy for one version of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.api.kinds import Kind
from core.apiserver.registry.strategy import Document, Strategy

__all__ = ["CustomStrategy", "custom_kinds", "storage_version"]


def custom_kinds(definition: Document) -> list[tuple[Kind, Document]]:
    """The kinds that a CustomResourceDefinition serves, each with its version's entry."""
    spec = definition["spec"]
    names = spec["names"]
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        below = version.get("subresources") or {}
        kind = Kind(
            spec["group"],
            version["name"],
            names["kind"],
            names["plural"],
            spec.get("scope") == "Namespaced",
            tuple(names.get("shortNames") or ()),
            tuple(each for each in ("scale", "status") if below.get(each) is not None),
            tuple(names.get("categories") or ()),
            singular_name=names.get("singular") or "",
            list_name=names.get("listKind") or "",
        )
        found.append((kind, version))
    return found


def storage_version(definition: Document) -> str:
    """`group/version` that objects are stored as."""
    spec = definition["spec"]
    return f"{spec['group']}/{next(each['name'] for each in spec['versions'] if each.get('storage'))}"


def _reader(path: str) -> Callable[[Document], str]:
    keys = path.strip(".").split(".")

    def read(document: Document) -> str:
        found: Any = document
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, bool):
            return str(found).lower()
        return "" if found is None else str(found)

    return read


class CustomStrategy(Strategy):
    """The generation counts every change but those of metadata and, where it is a subresource, of the status."""

    generation = True
    unconditional_update = False
    status_keeps_metadata = True

    def __init__(self, kind: Kind, version: Document) -> None:
        super().__init__(kind)
        paths = [str(each["jsonPath"]) for each in version.get("selectableFields") or ()]
        self.fields = {path.strip("."): _reader(path) for path in paths}

    def spec_changed(self, new: Document, old: Document) -> bool:
        return super().spec_changed(new, old) or (not self.has_status and new.get("status") != old.get("status"))
