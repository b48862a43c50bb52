"""The part of Kubernetes' JSONPath that printer columns use.

`.a.b`, `.a['b.c']`, `.a[0]`, `.a[-1]`, `.a[*]`, `.a[?(@.type=="Ready")].status` (with == != < > <= >=), `..` isn't in it.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["JsonPath", "compiled"]

_STEP = re.compile(
    r"""
    \.(?P<field>(?:\\.|[^.\[\]\\\s])+)
  | \[\s*(?P<index>-?\d+)\s*\]
  | \[\s*(?P<all>\*)\s*\]
  | \[\s*(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*\]
  | \[\?\(\s*@(?P<path>[^=!<>)]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^)\s]+)\s*)?\)\]
    """,
    re.VERBOSE,
)
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip

_Step = Callable[[Any], list[Any]]


class JsonPath:
    """A compiled path; calling it gives the values that it finds, none where there are none. ValueError for bad grammar."""

    def __init__(self, text: str) -> None:
        body = text.strip()
        if body.startswith("{") and body.endswith("}"):
            body = body[1:-1].strip()
        body = body.removeprefix("$")
        self._steps: list[_Step] = []
        at = 0
        while at < len(body):
            matched = _STEP.match(body, at)
            if matched is None:
                raise ValueError(f"{text!r} is not a JSONPath that is understood, at {body[at:]!r}")
            self._steps.append(_step(matched))
            at = matched.end()

    def __call__(self, document: Any) -> list[Any]:
        found = [document]
        for step in self._steps:
            found = [value for each in found for value in step(each)]
        return found


@functools.lru_cache(maxsize=1024)
def compiled(text: str) -> JsonPath:
    """The path of a printer column, compiled once: a watch asks for it with every event."""
    return JsonPath(text)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _step(matched: re.Match[str]) -> _Step:
    if matched["all"] or matched["field"] == "*":
        return lambda value: (
            list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
        )
    if matched["index"] is not None:
        index = int(matched["index"])
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if matched["path"] is not None:
        return _filter(matched)
    name = re.sub(r"\\(.)", r"\1", matched["field"]) if matched["field"] else _unquote(matched["quoted"])
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _filter(matched: re.Match[str]) -> _Step:
    path = JsonPath(matched["path"])
    if not matched["op"]:
        return lambda value: [each for each in value if path(each)] if isinstance(value, list) else []
    compare = _OPERATORS[matched["op"]]
    text = matched["value"]
    wanted: Any = _unquote(text) if text[0] in "'\"" else _literal(text)

    def keeps(item: Any) -> bool:
        for each in path(item):
            try:
                if compare(each, wanted):
                    return True
            except TypeError:
                continue
        return False

    return lambda value: [each for each in value if keeps(each)] if isinstance(value, list) else []


def _literal(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
