"""Request bodies into JSON documents: JSON, YAML and Kubernetes protobuf. Whatever a client sends, only `ApiError`s come out.

Duplicate keys are kept silently (the last one wins, as in Go) unless `strict` asks for them to be reported.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from core.apiserver import protobuf, yamlbody
from core.errors import BadRequest, TooLarge, UnsupportedMediaType

__all__ = ["APPLY_PATCH", "JSON", "MAX_DEPTH", "MAX_VALUES", "PROTOBUF", "YAML", "media_type", "parse", "unknown_type"]

JSON = "application/json"
YAML = "application/yaml"
APPLY_PATCH = "application/apply-patch+yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

MAX_DEPTH = 250
"""Deepest nesting of a body, so that recursive walks over documents stay far from Python's recursion limit."""

MAX_VALUES = 100_000
"""Of a body: what is done with each of them holds up everybody else. An object of the size that stores take has far less."""
_ABSURD = b"[" * (MAX_DEPTH + 1)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_JSON_TYPES = frozenset(("", JSON))
_YAML_TYPES = frozenset((YAML, APPLY_PATCH))


def media_type(content_type: str) -> str:
    """`application/json` from `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def parse(body: bytes, content_type: str, *, strict: bool = False) -> tuple[Any, list[str]]:
    """The document in a body, and with `strict` what is doubtful in it (`duplicate field "spec.replicas"`).

    No content type stands for JSON. Raises BadRequest for what can't be decoded or nests deeper than `MAX_DEPTH`, TooLarge for more than
    `MAX_VALUES` values, and UnsupportedMediaType for an unknown content type.
    """
    media = media_type(content_type)
    found: list[str] = []
    if media in _JSON_TYPES:
        _check_size(body)
        document = _json(body)
        if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
            _check_depth(document)
        if strict:
            found = _duplicates(body)
    elif media in _YAML_TYPES:
        if body[:1] == b"{" and (parsed := _json_in_yaml(body, strict)) is not None:
            return parsed, []
        document, found = yamlbody.load(body, MAX_DEPTH)
        if not strict:
            found = []
    elif media == PROTOBUF:
        document = protobuf.decode(body)
        _check_depth(document)
    else:
        raise unknown_type()
    return document, found


def unknown_type() -> UnsupportedMediaType:
    """For a body whose content type no document has."""
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
    )


def _check_size(body: bytes) -> None:
    """Without decoding it: every value but the first of a collection has a comma before it.

    What is above all deep is refused for that, as in Kubernetes: the decoder would say so, too.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        bare = _STRING.sub(b"", body)
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > MAX_VALUES:
            if _ABSURD in bare:
                raise BadRequest("the object provided is unrecognized: json parse error: exceeded max depth")
            raise TooLarge(f"Request entity too large: limit is {MAX_VALUES} values")


def _json_in_yaml(body: bytes, strict: bool) -> Any | None:
    """What clients send as YAML is mostly JSON, and reads a hundred times as fast; None where it isn't, or names a key twice."""
    _check_size(body)
    try:
        document = _json(body)
    except BadRequest:
        return None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_depth(document)
    return None if strict and _duplicates(body) else document


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"the object provided is unrecognized: json parse error: {error}") from error
    except RecursionError as error:
        raise BadRequest("the object provided is unrecognized: json parse error: exceeded max depth") from error


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                below += [value for value in each.values() if type(value) in (dict, list)]
            elif type(each) is list:
                below += [value for value in each if type(value) in (dict, list)]
        if not below:
            return
        level = below
    raise BadRequest(f"the object provided is unrecognized: exceeded max depth of {MAX_DEPTH}")


class _Repeated(dict[str, Any]):
    """A JSON object that named some of its keys more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _duplicates(body: bytes) -> list[str]:
    """The messages for keys that occur twice in one object, with their paths. `body` is known to be good JSON."""
    any_found = False

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal any_found
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        any_found = True
        return _Repeated(pairs)

    document = json.loads(body, object_pairs_hook=gather)
    messages: list[str] = []
    if any_found:
        _name_repeated(document, "", messages)
    return messages


def _name_repeated(value: Any, path: str, into: list[str]) -> None:
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        if isinstance(value, _Repeated):
            into += [f'duplicate field "{prefix}{key}"' for key in dict.fromkeys(value.repeated)]
        for key, each in value.items():
            _name_repeated(each, prefix + key, into)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _name_repeated(each, f"{path}[{index}]", into)
