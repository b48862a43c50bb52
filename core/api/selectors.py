"""Label and field selectors: parsed once, matched often."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FieldSelector",
    "FieldTerm",
    "Requirement",
    "Selector",
    "from_label_selector",
    "parse_fields",
    "parse_labels",
]

_NAME = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)"
_PREFIX = r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?"
_KEY = re.compile(_PREFIX + _NAME)
_VALUE = re.compile(f"(?:{_NAME})?")
_SET = re.compile(r"\s*(\S+)\s+(in|notin)\s*\(([^()]*)\)\s*")
_EQUALITY = re.compile(r"\s*([^\s=!<>()]+)\s*(==|=|!=|>|<)\s*([^\s=!<>()]*)\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s=!<>()]+)\s*")
_COMMA = re.compile(r",(?![^(]*\))")
_TERMS = re.compile(r"(?:[^,\\]|\\.?)+", re.DOTALL)
_ESCAPES = re.compile(r"\\.?|=", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Requirement:
    """`key operator values`; operators: `in notin = != exists !exists > <`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        has = self.key in labels
        match self.operator:
            case "in" | "=":
                return has and labels[self.key] in self.values
            case "notin" | "!=":
                return not has or labels[self.key] not in self.values
            case "exists":
                return has
            case "!exists":
                return not has
            case _:
                return has and self._compares(labels[self.key])

    def _compares(self, text: str) -> bool:
        try:
            value, bound = int(text), int(next(iter(self.values)))
        except ValueError:
            return False
        return value > bound if self.operator == ">" else value < bound


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements hold. An empty selector matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        found = labels or {}
        return all(each.matches(found) for each in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


def _requirement(key: str, operator: str, values: list[str]) -> Requirement:
    if not _KEY.fullmatch(key):
        raise ValueError(f"invalid label key {key!r}")
    for value in values:
        if len(value) > 63 or not _VALUE.fullmatch(value):
            raise ValueError(f"invalid label value {value!r} at key {key!r}")
    return Requirement(key, operator, frozenset(values))


def parse_labels(text: str) -> Selector:
    """A selector from its query form: `a=b,c!=d,e in (f,g),h,!i,j>3`. ValueError says what is wrong."""
    found = []
    for part in _COMMA.split(text) if text.strip() else ():
        if matched := _SET.fullmatch(part):
            values = [each.strip() for each in matched[3].split(",")]
            found.append(_requirement(matched[1], matched[2], values))
        elif matched := _EQUALITY.fullmatch(part):
            operator = "=" if matched[2] == "==" else matched[2]
            found.append(_requirement(matched[1], operator, [matched[3]]))
        elif matched := _EXISTS.fullmatch(part):
            found.append(_requirement(matched[2], "!exists" if matched[1] else "exists", []))
        else:
            raise ValueError(f"unable to parse requirement: {part!r}")
    return Selector(tuple(found))


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists", "Gt": ">", "Lt": "<"}


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector | None:
    """A selector from a `metav1.LabelSelector`: None (matches nothing) stays None, `{}` matches everything."""
    if selector is None:
        return None
    found = [Requirement(key, "=", frozenset((value,))) for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        operator = _OPERATORS.get(each.get("operator", ""))
        if operator is None:
            raise ValueError(f"{each.get('operator')!r} is not a valid label selector operator")
        found.append(_requirement(each["key"], operator, [str(value) for value in each.get("values") or ()]))
    return Selector(tuple(found))


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    equal: bool
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All of its terms hold. It is called with a getter: field path -> value as text ("" where there is none)."""

    terms: tuple[FieldTerm, ...]

    def __call__(self, get: Callable[[str], str]) -> bool:
        return all((get(term.field) == term.value) == term.equal for term in self.terms)


def parse_fields(text: str) -> FieldSelector:
    """A selector from its query form `a.b=c,d!=e`. ValueError says what is wrong.

    Empty terms are passed over, as some clients end theirs with a comma; `\\\\`, `\\,` and `\\=` in a value stand for the character.
    """
    terms = []
    for part in _TERMS.findall(text) if text.strip() else ():
        matched = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*", part, re.DOTALL)
        if matched is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
        terms.append(FieldTerm(matched[1], matched[2] != "!=", _unescaped(matched[3])))
    return FieldSelector(tuple(terms))


def _unescaped(value: str) -> str:
    for each in _ESCAPES.finditer(value):
        if each[0] == "=":
            raise ValueError("invalid field selector: unescaped character in value: =")
        if each[0] not in ("\\\\", "\\,", "\\="):
            raise ValueError(f"invalid field selector: invalid escape sequence: {each[0]}")
    return _ESCAPES.sub(lambda each: each[0][1:], value)
