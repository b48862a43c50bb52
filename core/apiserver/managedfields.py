"""Who manages which fields: `metadata.managedFields`, read, kept current by every write, and written.

A manager is a name, an operation and a subresource; that of an Update also has the version that it wrote in. Whoever updates a
field takes it from the others; whoever applies a field that another manages has a conflict, unless both want the same value, or
it insists (`force`). The rules are those of https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from core.apiserver.fieldmerge import Difference, all_fields
from core.apiserver.fieldsets import FieldSet, cut, difference, intersection, paths, shown, union
from core.apiserver.fieldtypes import Node
from core.errors import Conflict, cause

__all__ = [
    "BEFORE_FIRST_APPLY", "Entry", "Managers", "Who", "created", "manager_name", "read", "reset", "settle", "take", "tracked",
    "write",
]  # fmt: skip

Document = dict[str, Any]

BEFORE_FIRST_APPLY = "before-first-apply"
"""Manages what an object had that nobody was known to manage when it was first applied."""
_ANCIENT = "ancient-changes"
_MOST_UPDATERS = 10
_UNTRACKED = ("apiVersion", "kind")
_UNTRACKED_METADATA = (
    "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion",
)  # fmt: skip


class Who(NamedTuple):
    """`operation` is `Apply` or `Update`; `version` is empty for an applier, who is the same in every version."""

    name: str
    operation: str
    version: str = ""
    subresource: str = ""


class Entry(NamedTuple):
    fields: FieldSet
    version: str
    time: str = ""


Managers = dict[Who, Entry]


def manager_name(field_manager: str, user_agent: str) -> str:
    """What a client is called: as it says, or by its User-Agent up to the first slash."""
    if field_manager:
        return field_manager
    return "".join(each for each in user_agent.partition("/")[0] if each.isprintable())[:128] or "unknown"


def read(entries: Any) -> Managers | None:
    """None where `entries` isn't a list of managed fields that can be understood, or is empty."""
    if type(entries) is not list or not entries:
        return None
    found: Managers = {}
    for each in entries:
        if type(each) is not dict or each.get("operation") not in ("Apply", "Update"):
            return None
        fields = each.get("fieldsV1")
        if each.get("fieldsType") != "FieldsV1" or not _is_set(fields):
            return None
        operation, version = each["operation"], str(each.get("apiVersion") or "")
        subresource = str(each.get("subresource") or "")
        who = Who(str(each.get("manager") or ""), operation, version if operation == "Update" else "", subresource)
        found[who] = Entry(fields, version, str(each.get("time") or ""))
    return found


def _is_set(fields: Any) -> TypeGuard[FieldSet]:
    if type(fields) is not dict:
        return False
    for key, each in fields.items():
        if key != "." and (key[:2] not in ("f:", "k:", "v:") or not _is_set(each)):
            return False
        if key[:2] in ("k:", "v:"):
            try:
                inner = json.loads(key[2:])
            except ValueError:
                return False
            if key[0] == "k" and type(inner) is not dict:
                return False
    return True


def write(managers: Managers) -> list[Document]:
    """Appliers first, then by time, then by name."""
    found = []
    for who in sorted(managers, key=lambda who: (who.operation, managers[who].time, *who)):
        entry = managers[who]
        each: Document = {
            "manager": who.name,
            "operation": who.operation,
            "apiVersion": entry.version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": entry.fields,
        }
        if not entry.time:
            del each["time"]
        if who.subresource:
            each["subresource"] = who.subresource
        found.append(each)
    return found


def reset(entries: Any) -> bool:
    """Whether a client wants managedFields gone: a list of one empty entry. (An empty list may come from one who doesn't know them.)"""
    return type(entries) is list and len(entries) == 1 and entries[0] == {}


def tracked(fields: FieldSet, subresource: str, *, has_status: bool, status_metadata: bool = True) -> FieldSet:
    """Without the fields that are nobody's, and those that a write of the main object, or of its status, doesn't reach."""
    found = {key: each for key, each in fields.items() if key[2:] not in _UNTRACKED and key != "."}
    if subresource == "status":
        keep = ("f:metadata", "f:status") if status_metadata else ("f:status",)
        found = {key: each for key, each in found.items() if key in keep}
    elif has_status:
        found.pop("f:status", None)
    metadata = found.get("f:metadata")
    if metadata is not None:
        rest = {key: each for key, each in metadata.items() if key != "." and key[2:] not in _UNTRACKED_METADATA}
        if rest:
            found["f:metadata"] = rest
        else:
            del found["f:metadata"]
    return found


def created(
    node: Node,
    document: Document,
    who: Who,
    version: str,
    now: str,
    *,
    has_status: bool,
    besides: Sequence[tuple[str, ...]] = (),
) -> list[Document]:
    """The managedFields of a new object: all that it has is its creator's, but for what is `besides` and below."""
    # What is nobody's isn't looked at.
    own = {key: value for key, value in document.items() if key not in _UNTRACKED}
    if type(metadata := own.get("metadata")) is dict:
        own["metadata"] = {key: value for key, value in metadata.items() if key not in _UNTRACKED_METADATA}
    fields = all_fields(own, node)
    for path in besides:
        fields = cut(fields, path)
    fields = tracked(fields, "", has_status=has_status)
    return write({who: Entry(fields, version, now)}) if fields else []


def take(managers: Managers, who: Who, changes: Difference, fields: FieldSet, version: str, now: str) -> Managers:
    """After an update by `who` that changed `fields` (what it added or modified, as far as it is tracked)."""
    found = _yield(managers, changes, _touched(managers, None, changes))
    if fields:
        before = found.get(who) or Entry({}, version)
        found[who] = Entry(union(before.fields, fields), version, now)
        if len(found) > _MOST_UPDATERS:
            found = _capped(found)
    return found


def _touched(managers: Managers, besides: Who | None, changes: Difference) -> Managers:
    """Which of the changed fields each of the managers had."""
    touched = union(changes.added, changes.modified)
    found: Managers = {}
    for who, entry in managers.items():
        if who != besides:
            fields = intersection(entry.fields, touched)
            if fields:
                found[who] = entry._replace(fields=fields)
    return found


def _yield(managers: Managers, changes: Difference, lost: Mapping[Who, Entry]) -> Managers:
    """Without the fields that were taken from their managers, and those that are gone."""
    found: Managers = {}
    for who, entry in managers.items():
        fields = entry.fields
        if who in lost:
            fields = difference(fields, lost[who].fields)
        if changes.removed:
            fields = difference(fields, changes.removed)
        if fields:
            found[who] = entry if fields is entry.fields else entry._replace(fields=fields)
    return found


def settle(managers: Managers, applier: Who, changes: Difference, force: bool, forgiven: FieldSet) -> Managers:
    """After an apply by `applier`, whose own entry says what it wants. Raises `Conflict` where others manage what it changes.

    `forgiven` are fields that it may take all the same.
    """
    lost = _touched(managers, applier, changes)
    if lost and not force:
        kept = {who: difference(entry.fields, forgiven) for who, entry in lost.items()}
        if any(kept.values()):
            raise _conflict({who: fields for who, fields in kept.items() if fields})
    own = managers[applier]
    found = _yield({who: entry for who, entry in managers.items() if who != applier}, changes, lost)
    if own.fields:
        found[applier] = own
    return found


def _conflict(fields: Mapping[Who, FieldSet]) -> Conflict:
    found = [(_named(who), shown(path)) for who in sorted(fields) for path in paths(fields[who])]
    causes = [cause("FieldManagerConflict", f"conflict with {manager}", path) for manager, path in found]
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        parts = []
        for manager in sorted({each for each, _ in found}):
            listed = "\n".join(f"- {path}" for each, path in found if each == manager)
            parts.append(f"conflicts with {manager}:\n{listed}")
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(parts)
    return Conflict(message, {"causes": causes})


def _named(who: Who) -> str:
    text = json.dumps(who.name, ensure_ascii=False)
    if who.subresource:
        text += f" with subresource {json.dumps(who.subresource)}"
    return f"{text} using {who.version}" if who.operation == "Update" else text


def _capped(managers: Managers) -> Managers:
    """The oldest updaters become one, so that the list doesn't grow with the number of clients."""
    updaters = sorted((who for who in managers if who.operation == "Update"), key=lambda who: managers[who].time)
    found = dict(managers)
    for who in updaters[: max(0, len(updaters) - _MOST_UPDATERS + 1)] if len(updaters) > _MOST_UPDATERS else ():
        entry = found.pop(who)
        ancient = Who(_ANCIENT, "Update", who.version, who.subresource)
        before = found.get(ancient)
        found[ancient] = entry if before is None else entry._replace(fields=union(before.fields, entry.fields))
    return found
