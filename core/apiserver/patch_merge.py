"""JSON merge patch (RFC 7396), and the copy of documents that all patches start from. Nothing here changes its arguments."""

from __future__ import annotations

from typing import Any

__all__ = ["clone", "merge_given", "merge_patch"]


def clone(value: Any) -> Any:
    """A copy of a JSON value that shares no container with it."""
    if type(value) is dict:
        return {key: clone(each) if type(each) in (dict, list) else each for key, each in value.items()}
    if type(value) is list:
        return [clone(each) if type(each) in (dict, list) else each for each in value]
    return value


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied, as a value of its own (RFC 7396, section 2)."""
    if type(patch) is not dict:
        return clone(patch)
    old = target if type(target) is dict else {}
    found: dict[str, Any] = {}
    for key, each in old.items():
        if key not in patch:
            found[key] = clone(each)
        elif patch[key] is not None:
            found[key] = merge_patch(each, patch[key])
    for key, each in patch.items():
        if each is not None and key not in old:
            found[key] = merge_patch(None, each)
    return found


def merge_given(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """As `merge_patch`, of a target that its owner gives away: what the patch leaves alone isn't copied, but is in the result itself."""
    found: dict[str, Any] = {}
    for key, each in target.items():
        if key not in patch:
            found[key] = each
            continue
        wanted = patch[key]
        if type(wanted) is dict and type(each) is dict:
            found[key] = merge_given(each, wanted)
        elif wanted is not None:
            found[key] = merge_patch(None, wanted)
    for key, each in patch.items():
        if each is not None and key not in target:
            found[key] = merge_patch(None, each)
    return found
