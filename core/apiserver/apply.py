"""Server-side apply: an object as it becomes when a manager applies a configuration. Pure.

The configuration is merged into the object; then goes what the manager had applied before and doesn't any more, unless somebody
else manages it. The manager owns exactly what its configuration speaks of. (KEP-555, structured merge and diff.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.apiserver.fieldmerge import all_fields, compare, fields_of, merge, without
from core.apiserver.fieldsets import FieldSet, difference, intersection, union, with_named
from core.apiserver.fieldtypes import Node
from core.apiserver.managedfields import BEFORE_FIRST_APPLY, Entry, Managers, Who, settle, tracked
from core.errors import BadRequest

__all__ = ["LAST_APPLIED", "Applier"]

Document = dict[str, Any]
Shape = Callable[[Document], Document]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
_LONGEST_ANNOTATION = 262_144


class Applier:
    """One configuration by one manager. `fields` are those it speaks of; `shape` brings a whole document into its stored form,
    `canonical` the configuration alone (None: its schema speaks of whole objects only)."""

    def __init__(
        self,
        node: Node,
        config: Document,
        who: Who,
        version: str,
        shape: Shape,
        *,
        canonical: Shape | None = None,
        has_status: bool,
        status_metadata: bool = True,
        force: bool = False,
    ) -> None:
        self._node = node
        self._who = who
        self._version = version
        self._shape = shape
        self._has_status = has_status
        self._status_metadata = status_metadata
        self._force = force
        self.fields = self._tracked(fields_of(config, node))
        self._config = config if canonical is None else canonical(config)

    def _tracked(self, fields: FieldSet, subresource: str | None = None) -> FieldSet:
        return tracked(
            fields,
            self._who.subresource if subresource is None else subresource,
            has_status=self._has_status,
            status_metadata=self._status_metadata,
        )

    def first(self, now: str) -> Managers:
        """The managers of an object that is created by this configuration."""
        return {self._who: Entry(self.fields, self._version, now)} if self.fields else {}

    def apply(self, live: Document, managers: Managers | None, now: str) -> tuple[Document, Managers]:
        """The new object, and its managers. Raises `Conflict`, `BadRequest`."""
        node, who = self._node, self._who
        if managers is None:
            before = Who(BEFORE_FIRST_APPLY, "Update", self._version)
            had = self._tracked(all_fields(live, node), "")
            managers = {before: Entry(had, self._version, now)} if had else {}
        last = managers.get(who)
        managers = {**managers, who: Entry(self.fields, self._version, last.time if last else now)}
        merged = merge(live, self._config, node)
        if last is not None and last.fields:
            merged = self._prune(merged, last.fields, managers)
        new = self._shape(merged)
        changes = compare(live, new, node)
        found = settle(managers, who, changes, self._force, self._forgiven(live))
        moved = changes.added or changes.modified or changes.removed
        if who in found and (moved or last is None or last.fields != self.fields):
            found[who] = found[who]._replace(time=now)
        return self._annotated(new, live), found

    def _prune(self, merged: Document, last: FieldSet, managers: Managers) -> Document:
        """Three steps: what the manager had goes, what anybody has comes back, and so does what was not its own."""
        node = self._node
        last = with_named(last, node)
        everything = with_named(fields_of(merged, node), node)
        owned: FieldSet = {}
        for each in managers.values():
            owned = union(owned, each.fields)
        owned = with_named(owned, node)
        left = with_named(fields_of(without(merged, last, node), node), node)
        kept = without(merged, difference(everything, union(left, owned)), node)
        gone = difference(everything, with_named(fields_of(kept, node), node))
        pruned: Document = without(merged, intersection(gone, last), node)
        return pruned

    def _forgiven(self, live: Document) -> FieldSet:
        """kubectl may take over the fields that it applied on the client's side before, as they still are."""
        text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
        if self._who.name != _KUBECTL or not text:
            return {}
        try:
            before = msgspec.json.decode(text)
            fields = fields_of(before, self._node)
        except (msgspec.DecodeError, BadRequest):
            return {}
        changed = compare(before, live, self._node)
        return difference(difference(fields, union(changed.modified, changed.added)), changed.removed)

    def _annotated(self, merged: Document, live: Document) -> Document:
        """With the annotation of kubectl's client-side apply kept current, where kubectl goes between the two."""
        annotations = (live.get("metadata") or {}).get("annotations") or {}
        if self._who.name != _KUBECTL or LAST_APPLIED not in annotations:
            return merged
        config = {key: value for key, value in self._config.items() if key != "status"}
        text = msgspec.json.encode(config, order="sorted").decode() + "\n"
        metadata = merged["metadata"]
        kept = {**(metadata.get("annotations") or {}), LAST_APPLIED: text}
        if len(text) > _LONGEST_ANNOTATION:
            del kept[LAST_APPLIED]
        return {**merged, "metadata": {**metadata, "annotations": kept}}
