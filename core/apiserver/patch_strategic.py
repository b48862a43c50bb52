"""Strategic merge patch: a merge patch that knows by which key the lists of built-in kinds merge.

The directives (https://git.k8s.io/community/contributors/devel/sig-api-machinery/strategic-merge-patch.md):
`$patch: replace|delete|merge` in an object or as an item of a list, `$deleteFromPrimitiveList/KEY`, `$setElementOrder/KEY`,
`$retainKeys`. Nothing here changes its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.apiserver.patch_merge import clone
from core.apiserver.schema import Field, Struct
from core.errors import BadRequest

__all__ = ["strategic_merge"]

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def strategic_merge(document: dict[str, Any], patch: dict[str, Any], struct: Struct) -> dict[str, Any]:
    """`document` of type `struct` with `patch` applied, as a value of its own. BadRequest for a malformed patch."""
    return _merge(document, patch, struct)


def _merge(original: dict[str, Any], patch: dict[str, Any], struct: Struct | None) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive is not None:
        if directive == "replace":
            return {key: clone(value) for key, value in patch.items() if key != _PATCH}
        if directive == "delete":
            return {}
        if directive != "merge":
            raise BadRequest(f"unable to find api field: Unknown patch type found: {directive}")
    found = {key: value if key in patch else clone(value) for key, value in original.items()}
    if _RETAIN in patch:
        found = _retain(found, patch)
    fields = struct.fields if struct is not None else {}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            _require_list(value, key)
            if type(found.get(name)) is list and name not in patch:
                found[name] = [clone(each) for each in found[name] if each not in value]
            continue
        if key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            _require_list(value, key)
            if name not in patch and type(found.get(name)) is list:
                found[name] = _merge_list(found[name], [], fields.get(name), value)
            continue
        if key in (_PATCH, _RETAIN):
            continue
        if value is None:
            found.pop(key, None)
            continue
        field = fields.get(key)
        here = found.get(key)
        if type(value) is dict and type(here) is dict and not (field is not None and "replace" in field.strategies):
            found[key] = _merge(here, value, _below(field))
        elif type(value) is list and type(here) is list and field is not None and "merge" in field.strategies:
            merged = _merge_list(here, value, field, patch.get(_ORDER + key))
            dropped = patch.get(_DELETE + key)
            found[key] = [each for each in merged if each not in dropped] if type(dropped) is list else merged
        elif type(value) is list and field is not None and "merge" in field.strategies:
            found[key] = _merge_list([], value, field, patch.get(_ORDER + key))
        else:
            found[key] = _plain(value)
    return found


def _below(field: Field | None) -> Struct | None:
    """The struct that an object in this field (or in the items of this field) is of."""
    if field is None:
        return None
    shape = field.shape
    while shape.item is not None:
        shape = shape.item
    return shape.struct if shape.code == "@" else None


def _require_list(value: Any, key: str) -> None:
    if type(value) is not list:
        raise BadRequest(f"invalid strategic merge patch: {key} must be a list")


def _retain(found: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    keys = patch[_RETAIN]
    _require_list(keys, _RETAIN)
    for key, value in patch.items():
        if not key.startswith("$") and value is not None and key not in keys:
            raise BadRequest(
                f"invalid strategic merge patch: {_RETAIN} list doesn't contain {key}, which the patch sets"
            )
    return {key: value for key, value in found.items() if key in keys}


def _plain(value: Any) -> Any:
    """A value that a patch brings where there was none: without its directives, and without the nulls in its objects."""
    if type(value) is dict:
        if value.get(_PATCH) == "delete":
            return {}
        return {key: _plain(each) for key, each in value.items() if each is not None and not _is_directive(key)}
    if type(value) is list:
        return [
            _plain(each) for each in value if not (type(each) is dict and each.get(_PATCH) in ("delete", "replace"))
        ]
    return value


def _is_directive(key: str) -> bool:
    return key in (_PATCH, _RETAIN) or key.startswith((_ORDER, _DELETE))


def _merge_list(original: list[Any], patch: list[Any], field: Field | None, order: list[Any] | None) -> list[Any]:
    objects = any(type(each) is dict for each in (*original, *patch))
    if objects and (field is None or not field.merge_key):
        found: list[Any] = _plain(patch) if patch else clone(original)
        return found
    if objects and not all(type(each) is dict for each in (*original, *patch)):
        raise BadRequest("invalid strategic merge patch: a list to merge has items of different types")
    if objects and field is not None:
        if any(each.get(_PATCH) == "replace" for each in patch):
            replaced: list[Any] = _plain([each for each in patch if _PATCH not in each])
            return replaced
        key = field.merge_key
        merged = _merge_objects(original, patch, key, _below(field))
        wanted = [each for each in patch if each.get(_PATCH) != "delete"]

        def identify(value: Any) -> tuple[str, Any]:
            return _identity(value.get(key) if type(value) is dict else value)
    else:
        identify = _identity
        merged = list({identify(each): clone(each) for each in (*original, *patch)}.values())
        wanted = patch
    places = [identify(each) for each in wanted]
    if order is not None:
        given = [identify(each) for each in order]
        missing = [each for each in places if each not in given]
        if missing:
            raise BadRequest(
                f"invalid strategic merge patch: {_ORDER} list doesn't contain {missing[0][1]!r}, which the patch sets"
            )
        places = given
    return _arrange(merged, original, places, identify)


def _identity(value: Any) -> tuple[str, Any]:
    """What equal values have in common, hashable; true is not 1."""
    if type(value) in (dict, list):
        return type(value).__name__, repr(value)
    return "bool" if type(value) is bool else "", value


def _merge_objects(original: list[Any], patch: list[Any], key: str, struct: Struct | None) -> list[Any]:
    """The items of both, in the order of `original` and then of `patch`; an item of `patch` merges into the first of its key.

    The server may hold several items of one key (ports 53 of TCP and of UDP), and keeps those.
    """
    found = [(_identity(each.get(key)), clone(each)) for each in original]
    for each in patch:
        if each.get(key) is None:
            raise BadRequest(f"map: {each} does not contain declared merge key: {key}")
        place = _identity(each[key])
        directive = each.get(_PATCH)
        if directive == "delete":
            found = [item for item in found if item[0] != place]
            continue
        if directive is not None and directive != "merge":
            raise BadRequest(f"unable to find api field: Unknown patch type found: {directive}")
        at = next((index for index, item in enumerate(found) if item[0] == place), None)
        if at is None:
            found.append((place, _plain(each)))
        else:
            found[at] = (place, _merge(found[at][1], each, struct))
    return [value for _, value in found]


def _arrange(merged: list[Any], original: list[Any], places: list[Any], identify: Callable[[Any], Any]) -> list[Any]:
    """`merged` with the items in `places` in that order, and the others where the original order puts them among those.

    An item of the server's goes before the first item of the patch that it stood before; where the original order doesn't say,
    the patch's item goes first.
    """
    order: dict[Any, int] = {}
    for index, each in enumerate(places):
        order.setdefault(each, index)
    before = {identify(each): index for index, each in reversed(list(enumerate(original)))}
    named = sorted((each for each in merged if identify(each) in order), key=lambda each: order[identify(each)])
    others = [each for each in merged if identify(each) not in order]
    found: list[Any] = []
    at = 0
    for each in named:
        place = before.get(identify(each))
        while place is not None and at < len(others) and before.get(identify(others[at]), place) < place:
            found.append(others[at])
            at += 1
        found.append(each)
    return found + others[at:]
