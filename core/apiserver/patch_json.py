"""JSON patch (RFC 6902) with JSON pointers (RFC 6901). The document is copied first; a patch applies whole or not at all."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from core.apiserver.patch_merge import clone
from core.errors import BadRequest, Invalid, TooLarge

__all__ = ["MAX_OPERATIONS", "json_patch"]

MAX_OPERATIONS = 10_000
_MAX_COPIED = 3 * 1024 * 1024
"""Bytes of JSON that the `copy` operations of one patch may make: repeated doubling would fill the memory otherwise."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NEEDS_VALUE = frozenset(("add", "replace", "test"))
_NEEDS_FROM = frozenset(("move", "copy"))
_OPERATIONS = _NEEDS_VALUE | _NEEDS_FROM | {"remove"}


class _Failed(Exception):
    """The operation doesn't apply; the text says why."""


def json_patch(document: dict[str, Any], operations: Any) -> dict[str, Any]:
    """`document` with the operations applied, as a value of its own.

    Raises BadRequest for what isn't a patch, TooLarge for more than `MAX_OPERATIONS`, and Invalid (422) for an operation
    that doesn't apply, a failing `test` among them.
    """
    if type(operations) is not list:
        raise BadRequest("error decoding patch: json: a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(f"the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    root: Any = clone(document)
    copied = 0
    for each in operations:
        name, path, source = _read(each)
        try:
            if name == "test":
                _test(root, path, each["value"])
            elif name == "add":
                root = _add(root, path, clone(each["value"]))
            elif name == "replace":
                root = _replace(root, path, clone(each["value"]))
            elif name == "remove":
                root = _remove(root, path, "remove")[0]
            elif name == "move":
                if source is not None and path[: len(source)] == source and len(path) > len(source):
                    raise _Failed(f"move operation does not apply: {each['from']} is a parent of {each['path']}")
                root, value = _remove(root, source or (), "move")
                root = _add(root, path, value)
            else:
                value = _get(root, source or (), "copy")
                copied += len(msgspec.json.encode(value))
                if copied > _MAX_COPIED:
                    raise TooLarge(f"the copy operations of a JSON patch may copy {_MAX_COPIED} bytes at most")
                root = _add(root, path, clone(value))
        except _Failed as error:
            raise _invalid(str(error)) from error
    if type(root) is not dict:
        raise _invalid("the patched document is not an object")
    return root


def _invalid(text: str) -> Invalid:
    message = f"the server rejected our request due to an error in our request: {text}"
    return Invalid(message)


def _read(operation: Any) -> tuple[str, tuple[str, ...], tuple[str, ...] | None]:
    if type(operation) is not dict:
        raise BadRequest("error decoding patch: json: an operation of a JSON patch is an object")
    name = operation.get("op")
    if type(name) is not str or name not in _OPERATIONS:
        raise _invalid(f"Unexpected kind: {name if type(name) is str else 'unknown'}")
    if name in _NEEDS_VALUE and "value" not in operation:
        raise _invalid(f"{name} operation does not apply: missing value")
    source = _pointer(operation.get("from"), name) if name in _NEEDS_FROM else None
    return name, _pointer(operation.get("path"), name), source


def _pointer(text: Any, name: str) -> tuple[str, ...]:
    if type(text) is not str:
        raise _invalid(f"{name} operation failed to decode path: missing value")
    if not text:
        return ()
    if text[0] != "/":
        raise _invalid(f'{name} operation does not apply: doc is missing path: "{text}": missing value')
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def _show(path: tuple[str, ...]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _index(part: str, path: tuple[str, ...], name: str, bound: int) -> int:
    if not _INDEX.fullmatch(part) or int(part) >= bound:
        raise _Failed(f"{name} operation does not apply: doc is missing path: {_show(path)}: invalid index referenced")
    return int(part)


def _parent(root: Any, path: tuple[str, ...], name: str) -> Any:
    """The container that the last part of `path` is in."""
    here = root
    for part in path[:-1]:
        if type(here) is dict and part in here:
            here = here[part]
        elif type(here) is list:
            here = here[_index(part, path, name, len(here))]
        else:
            raise _Failed(f'{name} operation does not apply: doc is missing path: "{_show(path)}": missing value')
    if type(here) not in (dict, list):
        raise _Failed(f'{name} operation does not apply: doc is missing path: "{_show(path)}": missing value')
    return here


def _get(root: Any, path: tuple[str, ...], name: str) -> Any:
    if not path:
        return root
    parent = _parent(root, path, name)
    if type(parent) is list:
        return parent[_index(path[-1], path, name, len(parent))]
    if path[-1] not in parent:
        raise _Failed(f"{name} operation does not apply: doc is missing key: {_show(path)}: missing value")
    return parent[path[-1]]


def _add(root: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(root, path, "add")
    if type(parent) is list:
        at = len(parent) if path[-1] == "-" else _index(path[-1], path, "add", len(parent) + 1)
        parent.insert(at, value)
    else:
        parent[path[-1]] = value
    return root


def _replace(root: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    _get(root, path, "replace")
    parent = _parent(root, path, "replace")
    if type(parent) is list:
        parent[int(path[-1])] = value
    else:
        parent[path[-1]] = value
    return root


def _remove(root: Any, path: tuple[str, ...], name: str) -> tuple[Any, Any]:
    """The root without the value, and the value."""
    value = _get(root, path, name)
    if not path:
        return None, value
    parent = _parent(root, path, name)
    if type(parent) is list:
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
    return root, value


def _test(root: Any, path: tuple[str, ...], expected: Any) -> None:
    try:
        actual = _get(root, path, "test")
    except _Failed as error:
        # A test for null passes where an object lacks the key: clients guard "not there yet" so.
        if expected is None and "missing key" in str(error):
            return
        raise
    if not _equal(actual, expected):
        raise _Failed(f"testing value {_show(path)} failed: test failed")


def _equal(left: Any, right: Any) -> bool:
    """Equality of JSON: true is not 1, but 1 is 1.0."""
    if type(left) is dict:
        return (
            type(right) is dict
            and len(left) == len(right)
            and all(key in right and _equal(each, right[key]) for key, each in left.items())
        )
    if type(left) is list:
        return type(right) is list and len(left) == len(right) and all(map(_equal, left, right))
    return (type(left) is bool) == (type(right) is bool) and bool(left == right)
