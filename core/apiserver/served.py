"""The kinds that are served now: built-in ones from the start, custom ones as their definitions come and go."""

from __future__ import annotations

from collections.abc import Callable

from core.api.kinds import Kind
from core.apiserver.cache import Document
from core.apiserver.registry.generic import Registry

__all__ = ["Served"]


class Served:
    """Group, version and plural -> registry. `changes` counts, so that what is made from the table can be kept until it changes."""

    def __init__(self) -> None:
        self._registries: dict[tuple[str, str, str], Registry] = {}
        self.terminating: set[tuple[str, str]] = set()
        self.changes = 0
        self.changed: Callable[[], object] = lambda: None
        """Called after each change."""

    def add(self, registry: Registry) -> None:
        kind = registry.kind
        self._registries[kind.group, kind.version, kind.plural] = registry
        self.changes += 1
        self.changed()

    def remove(self, group: str, plural: str) -> None:
        """All versions of a custom kind."""
        for at in [each for each in self._registries if (each[0], each[2]) == (group, plural)]:
            del self._registries[at]
        self.terminating.discard((group, plural))
        self.changes += 1
        self.changed()

    def find(self, group: str, version: str, plural: str) -> Registry | None:
        return self._registries.get((group, version, plural))

    def of(self, kind: Kind) -> Registry:
        """The registry of a kind that is known to be served."""
        return self._registries[kind.group, kind.version, kind.plural]

    def kinds(self) -> list[Kind]:
        return [each.kind for each in self._registries.values()]

    def has_version(self, group: str, version: str) -> bool:
        return any((each[0], each[1]) == (group, version) for each in self._registries)

    def stored_as(self) -> dict[Kind, str]:
        """The version that each kind's objects are stored in: `v1`, `apps/v1`."""
        return {each.kind: each.storage_version for each in self._registries.values()}

    def schemas(self) -> dict[Kind, Document]:
        """The JSON schema of each custom kind."""
        return {each.kind: each.open_schema for each in self._registries.values() if each.open_schema is not None}
