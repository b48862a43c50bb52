"""Sets of fields in the form that `managedFields` has them (FieldsV1), and what can be done with them. Pure.

A set is a tree of objects. Its keys are path elements: `f:NAME` a field, `k:{...}` the item of a keyed list, `v:VALUE` the item
of a list of distinct values. An element is in the set where its object is empty or has the key `.`; other keys lead to what is
below it. Nothing here changes its arguments; results may share parts with them.
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/, FieldsV1)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from core.apiserver.fieldtypes import Node

__all__ = [
    "FieldSet", "below", "cut", "difference", "has", "intersection", "item_element", "paths", "shown", "union", "value_element",
    "with_named",
]  # fmt: skip

FieldSet = dict[str, Any]
_SELF = "."


def has(element: FieldSet) -> bool:
    """Whether the element itself is in the set that it is part of."""
    return not element or _SELF in element


def item_element(keys: dict[str, Any]) -> str:
    """The path element of an item with these keys."""
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def value_element(value: Any) -> str:
    return "v:" + json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def below(node: Node | None, element: str) -> Node | None:
    """The node that a path element leads to."""
    if node is None:
        return None
    return node.child(element[2:]) if element.startswith("f:") else node.item


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in either."""
    if not left:
        return right
    if not right:
        return left
    found = dict(left)
    for key, each in right.items():
        found[key] = _join(found[key], each) if key in found else each
    return found


def _join(left: FieldSet, right: FieldSet) -> FieldSet:
    if left and right:
        return union(left, right)
    full = left or right
    return full if not full or _SELF in full else {_SELF: {}, **full}


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in `left` and not in `right`, element by element: one that goes doesn't take what is below it."""
    found: FieldSet = {}
    for key, each in left.items():
        if key not in right:
            found[key] = each
        elif key != _SELF and (rest := _less(each, right[key])) is not None:
            found[key] = rest
    return found


def cut(fields: FieldSet, path: tuple[str, ...]) -> FieldSet:
    """`fields` without the element at `path` and all that is below it; what only led there goes, too."""
    key, rest = path[0], path[1:]
    each = fields.get(key)
    if each is None or (rest and not each):
        return fields
    left = cut(each, rest) if rest else {}
    if left is each:
        return fields
    return {name: left if name == key else value for name, value in fields.items() if name != key or left}


def _less(left: FieldSet, right: FieldSet) -> FieldSet | None:
    stays = has(left) and not has(right)
    return _element(stays, {key: each for key, each in difference(left, right).items() if key != _SELF})


def _element(member: bool, children: FieldSet) -> FieldSet | None:
    if not children:
        return {} if member else None
    return {_SELF: {}, **children} if member else children


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in both."""
    found: FieldSet = {}
    for key, each in left.items():
        other = right.get(key)
        if other is None or key == _SELF:
            continue
        both = _element(has(each) and has(other), intersection(each, other))
        if both is not None:
            found[key] = both
    return found


def with_named(fields: FieldSet, node: Node | None) -> FieldSet:
    """And every field of a struct that has something in the set below it: whoever owns `spec.replicas` needs `spec`."""
    found: FieldSet = {}
    for key, each in fields.items():
        if key == _SELF or not each:
            found[key] = each
            continue
        inner = with_named(each, below(node, key))
        if key.startswith("f:") and _SELF not in inner and node is not None and node.declared(key[2:]) is not None:
            inner[_SELF] = {}
        found[key] = inner
    return found


def paths(fields: FieldSet, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The elements in the set, each as its way from the root, in order."""
    for key in sorted(fields):
        if key == _SELF:
            continue
        each, path = fields[key], (*above, key)
        if has(each):
            yield path
        yield from paths(each, path)


def shown(path: tuple[str, ...]) -> str:
    """As messages name it: `.spec.containers[name="c"].image`."""
    text = ""
    for element in path:
        rest = element[2:]
        if element.startswith("f:"):
            text += f".{rest}"
        elif element.startswith("k:"):
            inner = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in json.loads(rest).items())
            text += f"[{','.join(inner)}]"
        else:
            text += f"[={rest}]"
    return text
