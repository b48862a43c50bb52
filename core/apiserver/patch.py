"""The one door to the three patches: which content type means which, and who may use it."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver import body
from core.apiserver.patch_json import json_patch
from core.apiserver.patch_merge import merge_patch
from core.apiserver.patch_strategic import strategic_merge
from core.apiserver.schema import Schemas
from core.apiserver.shapes import Mismatch
from core.apiserver.status import invalid_value
from core.errors import BadRequest, Invalid, UnsupportedMediaType

__all__ = ["APPLY_PATCH", "JSON_PATCH", "MERGE_PATCH", "STRATEGIC_PATCH", "apply_patch", "doubtful", "unfit"]

APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


def apply_patch(
    kind: Kind, document: dict[str, Any], patch: bytes | Any, content_type: str, schema: Schemas
) -> dict[str, Any]:
    """`document` with `patch` (JSON as bytes, or decoded) applied: a value of its own, the arguments unchanged.

    Raises BadRequest for what isn't a patch, Invalid (422) for one that doesn't apply, and UnsupportedMediaType for a
    content type that the kind can't be patched with: strategic merge needs the merge keys of a built-in kind.
    """
    media = body.media_type(content_type)
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise UnsupportedMediaType(_accepted(kind, schema))
    struct = schema.struct(kind) if media == STRATEGIC_PATCH else None
    if media == STRATEGIC_PATCH and struct is None:
        raise UnsupportedMediaType(_accepted(kind, schema))
    if isinstance(patch, bytes | bytearray | memoryview):
        try:
            patch = body.parse(bytes(patch), body.JSON)[0]
        except BadRequest as error:
            raise BadRequest(f"error decoding patch: {error.message}") from error
    if media == JSON_PATCH:
        return json_patch(document, patch)
    if type(patch) is not dict:
        raise BadRequest("error decoding patch: json: a merge patch is an object")
    if struct is not None:
        return strategic_merge(document, patch, struct)
    found: dict[str, Any] = merge_patch(document, patch)
    return found


def _accepted(kind: Kind, schema: Schemas) -> str:
    types = [JSON_PATCH, MERGE_PATCH] + ([STRATEGIC_PATCH] if schema.struct(kind) is not None else []) + [APPLY_PATCH]
    return f"the body of the request was in an unknown format - accepted media types include: {', '.join(types)}"


def doubtful(patch: bytes, content_type: str) -> list[str]:
    """What a patch names twice, and what an operation of a JSON patch says that no operation has, as messages."""
    found, doubts = body.parse(patch, body.JSON, strict=True)
    if body.media_type(content_type) != JSON_PATCH:
        return doubts
    operations = enumerate(found if type(found) is list else ())
    doubts += [
        f'unknown field "[{index}].{key}"'
        for index, each in operations
        if type(each) is dict
        for key in each
        if key not in _OPERATION
    ]
    return [f"json patch {each}" for each in doubts]


_OPERATION = ("op", "path", "from", "value")


def unfit(patch: Any, patched: Any, content_type: str, error: BadRequest) -> Invalid:
    """Why what a patch made of an object is no object of its kind: about the patch itself, or else about the whole outcome, as JSON."""
    found = error.__cause__
    if body.media_type(content_type) == STRATEGIC_PATCH:
        shown = _go(patch)
        why = found.conversion() if isinstance(found, Mismatch) else error.message
    else:
        shown = msgspec.json.encode(patched).decode()
        why = found.message() if isinstance(found, Mismatch) else error.message
    at = why.find(_STRICT)
    each = invalid_value("patch", shown, why[at:] if at > 0 else why)
    return Invalid(f' "" is invalid: patch: {each["message"]}', {"causes": [each]})


_STRICT = "strict decoding error: "


def _go(value: Any) -> str:
    """As Go's `%+v` writes a decoded document."""
    if type(value) is dict:
        return f"map[{' '.join(f'{key}:{_go(each)}' for key, each in sorted(value.items()))}]"
    if type(value) is list:
        return f"[{' '.join(map(_go, value))}]"
    if value is None:
        return "<nil>"
    return str(value).lower() if type(value) is bool else str(value)
