"""One YAML document into JSON values, by the rules that Kubernetes' YAML has.

Built from parser events with a stack of its own, so that nesting and aliases are bounded before they cost anything. Plain
scalars resolve as go-yaml resolves them and not as PyYAML does: dates and `22:30` stay text, `1e3` is a number, keys become text.
"""

from __future__ import annotations

import base64
import math
import re
from typing import Any

import yaml

from core.errors import BadRequest

__all__ = ["load"]

_MAX_NODES = 50_000
"""Bound of all values after aliases are expanded: each takes some 10 us in which nobody else is served. What is longer comes as JSON."""

_INT = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_TAG = "tag:yaml.org,2002:"
_MERGE = object()


def load(body: bytes, max_depth: int) -> tuple[Any, list[str]]:
    """The one document in `body` (None where there is none), and a message for each key that a mapping has twice.

    Raises BadRequest for anything that isn't one YAML document of JSON values nested at most `max_depth` deep.
    """
    try:
        return _Builder(max_depth).build(body)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"error converting YAML to JSON: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


class _Builder:
    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._repeated: list[str] = []

    def build(self, body: bytes) -> tuple[Any, list[str]]:
        root: list[Any] = []
        documents = 0
        # Each open collection: (container, pending keys for a mapping, anchor, node count when it opened).
        stack: list[_Open] = [_Open(root, None, 0)]
        for event in yaml.parse(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.ScalarEvent):
                self._count(1)
                value = _scalar(event)
                self._keep(event.anchor, value, 1)
                self._add(stack, value, _line(event))
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._count(1)
                if len(stack) > self._max_depth:
                    raise BadRequest(f"error converting YAML to JSON: exceeded max depth of {self._max_depth}")
                container: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append(_Open(container, event.anchor, self._nodes))
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = stack.pop()
                self._keep(done.anchor, done.value, self._nodes - done.nodes + 1)
                self._add(stack, done.value, _line(event))
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self._anchors:
                    raise BadRequest(f"error converting YAML to JSON: yaml: unknown anchor {event.anchor!r} referenced")
                value, size = self._anchors[event.anchor]
                self._count(size)
                self._add(stack, _copy(value), _line(event))
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise BadRequest("error converting YAML to JSON: the body has more than one document")
        return (root[0] if root else None), self._repeated

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise BadRequest(
                "error converting YAML to JSON: yaml: document contains excessive aliasing, or more than "
                f"{_MAX_NODES} values, which only JSON may have"
            )

    def _keep(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)

    def _add(self, stack: list[_Open], value: Any, line: int) -> None:
        """`line` is that of the event, from 1 on."""
        top = stack[-1]
        if type(top.value) is list:
            if value is _MERGE:
                value = "<<"
            top.value.append(value)
        elif top.key is None:
            top.key, top.line = _key(value), line
        else:
            key, top.key = top.key, None
            if key is _MERGE:
                _merge(top.value, value)
                return
            if value is _MERGE:
                value = "<<"
            if key in top.own:
                self._repeated.append(f'line {top.line}: key "{key}" already set in map')
            top.own.add(key)
            top.value[key] = value


class _Open:
    """A collection whose end has not come yet. `own` are the keys that it names itself (not by `<<`)."""

    __slots__ = ("anchor", "key", "line", "nodes", "own", "value")

    def __init__(self, value: Any, anchor: str | None, nodes: int) -> None:
        self.value = value
        self.anchor = anchor
        self.nodes = nodes
        self.key: Any = None
        self.line = 0
        self.own: set[str] = set()


def _key(value: Any) -> Any:
    if value is _MERGE or type(value) is str:
        return value
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (int, float):
        return str(value)
    raise BadRequest("error converting YAML to JSON: yaml: invalid map key: a collection")


def _merge(into: dict[str, Any], value: Any) -> None:
    for each in value if type(value) is list else [value]:
        if type(each) is not dict:
            raise BadRequest(
                "error converting YAML to JSON: yaml: map merge requires map or sequence of maps as the value"
            )
        for key, item in each.items():
            into.setdefault(key, _copy(item))


def _copy(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copy(each) for key, each in value.items()}
    if type(value) is list:
        return [_copy(each) for each in value]
    return value


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    tag = event.tag
    if tag is None or tag == "!":
        return _plain(text) if event.implicit[0] and tag is None else text
    name = tag.removeprefix(_TAG)
    if name in ("str", "timestamp"):
        return text
    if name == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except ValueError as error:
            raise BadRequest(
                "error converting YAML to JSON: yaml: !!binary value contains invalid base64 data"
            ) from error
    value = _plain(text)
    wanted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}
    if type(value) in wanted.get(name, ()):
        return float(value) if name == "float" else value
    raise BadRequest(f"error converting YAML to JSON: yaml: cannot decode {text[:80]!r} as a {name[:80]}")


def _plain(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    first = text[0]
    if first in "0123456789+-.":
        if _INT.fullmatch(text):
            return _integer(text.replace("_", ""))
        if _FLOAT.fullmatch(text):
            number = float(text.replace("_", ""))
            return number if math.isfinite(number) else text
    elif text == "<<":
        return _MERGE
    return text


def _integer(text: str) -> int | float | str:
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2].lower(), 10)
    try:
        if base != 10:
            value = int(digits[2:], base)
        elif len(digits) > 1 and digits[0] == "0":
            value = int(digits, 8)  # YAML 1.1, which file modes rely on
        elif len(digits) > 400:
            return text
        else:
            value = int(digits)
    except ValueError:
        return float(text) if base == 10 else text
    return sign * value if value < 2**64 else float(sign * value)
