"""Typed values against each other: the fields of one, what differs between two, one merged into another, one without some fields. Pure.

The rules are those of structured merge and diff (KEP-555): structs and maps go field by field, keyed lists and sets item by
item, everything else is one value. None stands for an absent value.
"""

from __future__ import annotations

from typing import Any

from core.apiserver.fieldsets import FieldSet, has, item_element, value_element
from core.apiserver.fieldtypes import KEYED, LEAF, MAP, SET, Node
from core.errors import BadRequest

__all__ = ["Difference", "all_fields", "compare", "fields_of", "merge", "without"]

_LEAF_NODE = Node(LEAF)


class Difference:
    """The fields that one value has over another, those that it lacks, and those whose value is another."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.added: FieldSet = {}
        self.modified: FieldSet = {}
        self.removed: FieldSet = {}


def fields_of(value: Any, node: Node, path: str = "") -> FieldSet:
    """The fields that a configuration speaks of. Raises `BadRequest` for fields that the type doesn't have and items without their keys."""
    found: FieldSet = {}
    if node.shape == MAP and type(value) is dict:
        for key, each in value.items():
            declared = node.declared(key)
            child = declared or node.item
            if child is None:
                raise BadRequest(f"{path}.{key}: field not declared in schema")
            inner = fields_of(each, child, f"{path}.{key}")
            # Keys of maps are fields of their own; those of structs come with what is in them.
            if inner and declared is None:
                inner["."] = {}
            found[f"f:{key}"] = inner
    elif node.shape in (KEYED, SET) and type(value) is list:
        for element, each in _items(value, node, path):
            inner = fields_of(each, node.item or _LEAF_NODE, path + "[]")
            if inner:
                inner["."] = {}
            found[element] = inner
    return found


def _items(value: list[Any], node: Node, path: str = "") -> list[tuple[str, Any]]:
    """Path elements of a list's items. Raises `BadRequest`."""
    if node.shape == SET:
        return [(value_element(each), each) for each in value]
    found = []
    for each in value:
        if type(each) is not dict:
            raise BadRequest(f"{path}: an item of an associative list must be an object")
        keys = {}
        for key in node.keys:
            if key in each:
                keys[key] = each[key]
            elif key in node.defaults:
                keys[key] = node.defaults[key]
        if not any(key in each for key in node.keys):
            named = ", ".join(f'"{key}"' for key in node.keys)
            what = f"omits key field {named}" if len(node.keys) == 1 else f"omits all key fields {named}"
            raise BadRequest(
                f"{path}: associative list with keys has an element that {what} (and doesn't have default value)"
            )
        found.append((item_element(keys), each))
    return found


def compare(old: Any, new: Any, node: Node) -> Difference:
    """What changed from `old` to `new`, which are whole objects."""
    found = Difference()
    _compare_map(old, new, node, found.added, found.modified, found.removed)
    return found


def _compare(
    key: str, old: Any, new: Any, node: Node, always: bool, added: FieldSet, modified: FieldSet, removed: FieldSet
) -> None:
    """What changed under `key`, written into the sets of what is above it."""
    if old == new or (always and not old and not new):
        return
    if not _descends(old, new, node):
        if old is None:
            added[key] = {}
        elif new is None:
            removed[key] = {}
        else:
            modified[key] = {}
        return
    if always:
        empty: Any = {} if node.shape == MAP else []
        old, new = old or empty, new or empty
    into: tuple[FieldSet, FieldSet, FieldSet] = ({}, {}, {})
    (_compare_map if node.shape == MAP else _compare_list)(old, new, node, *into)
    if old is None:
        into[0]["."] = {}
    elif new is None:
        into[2]["."] = {}
    for inner, above in zip(into, (added, modified, removed), strict=True):
        if inner:
            above[key] = {} if len(inner) == 1 and "." in inner else inner


def _descends(old: Any, new: Any, node: Node) -> bool:
    if node.shape == LEAF or not (old or new):
        return False
    wanted = dict if node.shape == MAP else list
    return (old is None or type(old) is wanted) and (new is None or type(new) is wanted)


def _compare_map(old: Any, new: Any, node: Node, added: FieldSet, modified: FieldSet, removed: FieldSet) -> None:
    left, right = old or {}, new or {}
    for key, value in right.items():
        was = left.get(key)
        if was is None or was != value:
            child = node.child(key) or _LEAF_NODE
            _compare(f"f:{key}", was, value, child, old is not None and node.always(key), added, modified, removed)
    for key, was in left.items():
        if key not in right:
            child = node.child(key) or _LEAF_NODE
            _compare(f"f:{key}", was, None, child, new is not None and node.always(key), added, modified, removed)
    if old is None or new is None:
        # A struct that Go has by value comes and goes with what holds it, though JSON may not show it.
        side = right if old is None else left
        for key in node.embedded:
            if key not in side:
                (added if old is None else removed)[f"f:{key}"] = {}


def _compare_list(old: Any, new: Any, node: Node, added: FieldSet, modified: FieldSet, removed: FieldSet) -> None:
    try:
        left, right = dict(_items(old or [], node)), dict(_items(new or [], node))
    except BadRequest:
        # What a client stored without keys has no fields of its own.
        return
    child = node.item or _LEAF_NODE
    for element, value in right.items():
        was = left.get(element)
        if was is None or was != value:
            _compare(element, was, value, child, False, added, modified, removed)
    for element, was in left.items():
        if element not in right:
            _compare(element, was, None, child, False, added, modified, removed)


def all_fields(document: Any, node: Node) -> FieldSet:
    """The fields that a new object adds to nothing: as `compare` with an empty object says them, in one walk."""
    found: FieldSet = {}
    for key, value in document.items():
        child = node.declared(key) or node.item or _LEAF_NODE
        if key not in node.embedded:
            found[f"f:{key}"] = _new(value, child)
        elif value and ((inner := _new_below(value, child)) or not _descends(None, value, child)):
            found[f"f:{key}"] = inner
    return found


def _new_below(value: Any, node: Node) -> FieldSet:
    """What is below a value that was there before, though empty."""
    if node.shape == MAP and type(value) is dict:
        return all_fields(value, node)
    if node.shape in (KEYED, SET) and type(value) is list:
        return _new_items(value, node)
    return {}


def _new(value: Any, node: Node) -> FieldSet:
    if node.shape == LEAF or not value:
        return {}
    if node.shape == MAP:
        if type(value) is not dict:
            return {}
        found: FieldSet = {".": {}}
        for key, each in value.items():
            found[f"f:{key}"] = _new(each, node.declared(key) or node.item or _LEAF_NODE)
        for key in node.embedded:
            if key not in value:
                found[f"f:{key}"] = {}
        return found
    return {".": {}, **_new_items(value, node)} if type(value) is list else {}


def _new_items(value: list[Any], node: Node) -> FieldSet:
    try:
        items = _items(value, node)
    except BadRequest:
        return {}
    child = node.item or _LEAF_NODE
    return {element: _new(each, child) for element, each in items}


def merge(live: Any, config: Any, node: Node) -> Any:
    """`live` with everything that `config` says. Raises `BadRequest` for lists that name an item twice."""
    if node.shape == MAP and type(live) is dict and type(config) is dict:
        found = dict(live)
        for key, each in config.items():
            found[key] = merge(live.get(key), each, node.child(key) or _LEAF_NODE)
        return found
    if node.shape in (KEYED, SET) and type(config) is list:
        return _merge_lists(live if type(live) is list else [], config, node)
    if node.shape == MAP and type(config) is dict:
        return {key: merge(None, each, node.child(key) or _LEAF_NODE) for key, each in config.items()}
    return config


def _merge_lists(live: list[Any], config: list[Any], node: Node) -> list[Any]:
    """The configuration's items in its order; what only `live` has stays beside its neighbours."""
    wanted = _items(config, node)
    given = dict(wanted)
    if len(given) != len(wanted):
        twice = next(element for index, (element, _) in enumerate(wanted) if element in dict(wanted[:index]))
        raise BadRequest(f"duplicate entries for key {twice[2:]}")
    there = _items(live, node)
    first: dict[str, Any] = {}
    for element, each in there:
        first.setdefault(element, each)
    shared = [element for element in given if element in first]
    item, found, at = node.item or _LEAF_NODE, [], 0
    for element, each in wanted:
        # Whoever comes before the next item that both have comes first; shared items out of turn wait for theirs.
        while at < len(there) and (there[at][0] not in given or not shared or there[at][0] != shared[0]):
            if there[at][0] not in given:
                found.append(there[at][1])
            at += 1
        found.append(merge(first.get(element), each, item))
        if shared and element == shared[0]:
            shared.pop(0)
            at += at < len(there) and there[at][0] == element
    return found + [each for element, each in there[at:] if element not in given]


def without(value: Any, fields: FieldSet, node: Node) -> Any:
    """`value` without these fields and what is below them."""
    if type(value) is dict and node.shape == MAP:
        found = {}
        for key, each in value.items():
            element = fields.get(f"f:{key}")
            if element is None:
                found[key] = each
            elif not has(element):
                found[key] = without(each, element, node.child(key) or _LEAF_NODE)
        return found
    if type(value) is list and node.shape in (KEYED, SET):
        kept = []
        for path, each in _items(value, node):
            element = fields.get(path)
            if element is None:
                kept.append(each)
            elif not has(element):
                kept.append(without(each, element, node.item or _LEAF_NODE))
        return kept
    return value
