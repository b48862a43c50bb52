"""The managedFields of one kind's objects through its registry's writes.

Fields are tracked where an object was created by a client outside of the server's process, or applied to since; what the
server's own components make has no managers (docs/decisions/ says why), and writing it costs nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.api.kinds import Kind
from core.apiserver.apply import Applier
from core.apiserver.fieldmerge import compare
from core.apiserver.fieldsets import union
from core.apiserver.fieldtypes import Node
from core.apiserver.managedfields import Who, created, read, reset, take, tracked, write
from core.apiserver.registry.strategy import Strategy

__all__ = ["Tracking"]

Document = dict[str, Any]


class Tracking:
    """Times are `metav1.Time` texts."""

    def __init__(self, kind: Kind, strategy: Strategy, node: Node) -> None:
        self._kind = kind
        self._strategy = strategy
        self._node = node

    def created(self, document: Document, manager: str, unsaid: Sequence[tuple[str, ...]], now: str) -> list[Document]:
        """Of an object that `manager` created and in which it left `unsaid` what the server then set."""
        version = self._kind.api_version
        who = Who(manager, "Update", version)
        return created(self._node, document, who, version, now, has_status=self._strategy.has_status, besides=unsaid)

    def applied(self, applier: Applier, now: str) -> list[Document]:
        """Of an object that is created by being applied."""
        return write(applier.first(now))

    def apply(self, applier: Applier, live: Document, now: str) -> tuple[Document, list[Document]]:
        managers = read(live["metadata"].pop("managedFields", None))
        new, found = applier.apply(live, managers, now)
        return new, write(found)

    def updated(
        self, new: Document, old: Document, wanted: Any, manager: str, subresource: str, now: str
    ) -> list[Document] | None:
        """After an update from `old` to `new`, whose writer sent `wanted` as managedFields.

        A writer may change them where it can be understood; where it sent none, or nothing of sense, they go on from what they were.
        """
        there: list[Document] | None = old["metadata"].get("managedFields")
        if subresource == "binding" or (there is None and not wanted):
            return there
        before = there
        if not subresource and wanted != there:
            if reset(wanted):
                return None
            if read(wanted) is not None:
                before = wanted
        managers = read(before)
        if managers is None:
            return None
        changes = compare(old, new, self._node)
        if not (changes.added or changes.modified or changes.removed):
            return before
        fields = tracked(
            union(changes.added, changes.modified),
            subresource,
            has_status=self._strategy.has_status,
            status_metadata=not self._strategy.status_keeps_metadata,
        )
        version = self._kind.api_version
        return write(take(managers, Who(manager, "Update", version, subresource), changes, fields, version, now))
