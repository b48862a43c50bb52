"""The validations that one JSON schema makes of one value, with Kubernetes' words for what is wrong.

Formats that aren't known are not checked, as in Kubernetes.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
import uuid
from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import msgspec

from core.clock import parse_time
from core.errors import cause

__all__ = ["Values", "compile_pattern", "quoted_key"]

Causes = list[dict[str, str]]

_JSON_NAMES: dict[type, str] = {
    str: "string", dict: "object", list: "array", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


def quoted_key(key: str) -> str:
    """A key of a map as part of a path: `[my-key]`."""
    return f"[{key}]"


def _show(value: Any) -> str:
    return msgspec.json.encode(value).decode() if type(value) is not float or math.isfinite(value) else str(value)


def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern of Go's syntax as Python's; ValueError where it can't be had. `$` is the end of the text, `\\d` ASCII."""
    found: list[str] = []
    in_class = False
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            following = text[at + 1]
            found.append("\\Z" if following == "z" else char + following)
            at += 2
            continue
        if char == "[" and not in_class:
            in_class = True
        elif char == "]" and in_class:
            in_class = False
        found.append("\\Z" if char == "$" and not in_class else char)
        at += 1
    try:
        return re.compile("".join(found), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"error parsing regexp: {error}: `{text}`") from error


class Values:
    """The compiled validations of one schema, those under allOf, anyOf, oneOf and not among them."""

    __slots__ = ("_checks", "_empty", "_int_or_string", "_type")

    def __init__(self, raw: dict[str, Any]) -> None:
        self._type: str = raw.get("type") or ""
        self._int_or_string = raw.get("x-kubernetes-int-or-string") is True
        self._checks: list[Callable[[Any, str, Causes], None]] = []
        for key, make in _CHECKS.items():
            if raw.get(key) is not None and raw[key] is not False:
                self._checks.append(make(raw[key], raw))
        self._empty = not (self._type or self._int_or_string or self._checks)

    def check(self, value: Any, path: str, causes: Causes) -> bool:
        """Add what is wrong with `value` itself; whether its type is right, so that it can be looked into."""
        if self._empty:
            return True
        if self._int_or_string:
            if type(value) not in (int, str):
                causes.append(_wrong_type(value, path, "integer,string"))
                return False
        elif self._type and not _is_type(value, self._type):
            causes.append(_wrong_type(value, path, self._type))
            return False
        for each in self._checks:
            each(value, path, causes)
        return True

    def holds(self, value: Any) -> bool:
        causes: Causes = []
        self.check(value, "", causes)
        return not causes


def _is_type(value: Any, wanted: str) -> bool:
    if wanted == "number":
        return type(value) in (int, float)
    if wanted == "integer":
        return type(value) is int or (type(value) is float and value.is_integer())
    return _JSON_NAMES.get(type(value)) == wanted


def _wrong_type(value: Any, path: str, wanted: str) -> dict[str, str]:
    name = _JSON_NAMES.get(type(value), "null")
    message = f'Invalid value: "{name}": {_body(path)} must be of type {wanted}: "{name}"'
    return cause("FieldValueTypeInvalid", message, path)


def _body(path: str) -> str:
    return f"{path} in body"


def _bad(value: Any, path: str, text: str) -> dict[str, str]:
    return cause("FieldValueInvalid", f"Invalid value: {_show(value)}: {_body(path)} {text}", path)


Check = Callable[[Any, str, Causes], None]


def _enum(values: Any, raw: dict[str, Any]) -> Check:
    keys = {(type(each) is bool, _show(each)) for each in values}
    listed = ", ".join(_show(each) for each in values)

    def check(value: Any, path: str, causes: Causes) -> None:
        if (type(value) is bool, _show(value)) not in keys:
            causes.append(
                cause("FieldValueNotSupported", f"Unsupported value: {_show(value)}: supported values: {listed}", path)
            )

    return check


def _required(names: Any, raw: dict[str, Any]) -> Check:
    def check(value: Any, path: str, causes: Causes) -> None:
        if type(value) is dict:
            for name in names:
                if name not in value:
                    causes.append(cause("FieldValueRequired", "Required value", f"{path}.{name}" if path else name))

    return check


def _pattern(text: Any, raw: dict[str, Any]) -> Check:
    pattern = compile_pattern(text)

    def check(value: Any, path: str, causes: Causes) -> None:
        if type(value) is str and not pattern.search(value):
            causes.append(_bad(value, path, f"should match '{text}'"))

    return check


def _number(
    test: Callable[[Any, Any], bool], words: str, exclusive: str = "", exclusive_words: str = ""
) -> Callable[[Any, dict[str, Any]], Check]:
    def make(bound: Any, raw: dict[str, Any]) -> Check:
        strict = bool(exclusive and raw.get(exclusive))
        text = f"should be {exclusive_words if strict else words} {_show(bound)}"

        def check(value: Any, path: str, causes: Causes) -> None:
            if type(value) in (int, float) and (not test(value, bound) or (strict and value == bound)):
                causes.append(_bad(value, path, text))

        return check

    return make


def _at_least(value: Any, bound: Any) -> bool:
    return bool(value >= bound)


def _at_most(value: Any, bound: Any) -> bool:
    return bool(value <= bound)


def _is_multiple(value: Any, of: Any) -> bool:
    if type(value) is int and type(of) is int:
        return value % of == 0
    ratio = value / of
    return math.isclose(ratio, round(ratio), rel_tol=1e-12, abs_tol=1e-9)


def _size(
    of: type[str] | type[list[Any]] | type[dict[str, Any]], least: bool, words: str
) -> Callable[[Any, dict[str, Any]], Check]:
    def make(bound: Any, raw: dict[str, Any]) -> Check:
        def check(value: Any, path: str, causes: Causes) -> None:
            if type(value) is not of or (len(value) >= bound if least else len(value) <= bound):
                return
            if least:
                shown = value if of is str else len(value)
                causes.append(_bad(shown, path, f"should {words.format(bound)}"))
            elif of is str:
                causes.append(cause("FieldValueTooLong", f"Too long: may not be more than {bound} bytes", path))
            else:
                causes.append(
                    cause("FieldValueTooMany", f"Too many: {len(value)}: must have at most {bound} items", path)
                )

        return check

    return make


# Formats


def _date_time(text: str) -> None:
    if len(text) < 20 or text[10] not in "Tt" or not re.search(r"([zZ]|[+-]\d\d:\d\d)$", text):
        raise ValueError(text)
    parse_time(text.upper())


def _byte(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def _matches(pattern: str) -> Callable[[str], object]:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> None:
        if not compiled.fullmatch(text):
            raise ValueError(text)

    return check


def _uri(text: str) -> None:
    if not urlsplit(text).scheme:
        raise ValueError(text)


def _int_range(bits: int) -> Callable[[Any], object]:
    def check(value: Any) -> None:
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise ValueError(value)

    return check


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_FORMATS: dict[str, tuple[tuple[type, ...], Callable[[Any], object]]] = {
    "date-time": ((str,), _date_time),
    "date": ((str,), date.fromisoformat),
    "ipv4": ((str,), ipaddress.IPv4Address),
    "ipv6": ((str,), ipaddress.IPv6Address),
    "cidr": ((str,), lambda text: ipaddress.ip_network(text if "/" in text else "/", strict=False)),
    "mac": ((str,), _matches(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")),
    "email": ((str,), _matches(r"[^@\s]+@[^@\s]+")),
    "hostname": ((str,), _matches(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?")),
    "uri": ((str,), _uri),
    "uuid": ((str,), uuid.UUID),
    "byte": ((str,), _byte),
    "duration": ((str,), _matches(r"-?(\d+(\.\d+)?\s*(ns|us|µs|ms|s|m|h|d|w)\s*)+|0")),
    "int32": ((int,), _int_range(32)),
    "int64": ((int,), _int_range(64)),
}


def _format(name: Any, raw: dict[str, Any]) -> Check:
    types, test = _FORMATS.get(name, ((), bool))

    def check(value: Any, path: str, causes: Causes) -> None:
        if type(value) in types:
            try:
                test(value)
            except ValueError:
                causes.append(_bad(value, path, f"must be of type {name}: {_show(value)}"))

    return check


# Lists by key, and logic


def _list_type(kind: Any, raw: dict[str, Any]) -> Check:
    keys: list[str] = raw.get("x-kubernetes-list-map-keys") or []
    defaults = {key: ((raw.get("items") or {}).get("properties") or {}).get(key, {}).get("default") for key in keys}

    def check(value: Any, path: str, causes: Causes) -> None:
        if kind == "atomic" or type(value) is not list:
            return
        seen: set[str] = set()
        for index, each in enumerate(value):
            if kind == "map":
                if type(each) is not dict:
                    continue
                shown = _show({key: each.get(key, defaults[key]) for key in keys})
            else:
                shown = _show(each)
            if shown in seen:
                causes.append(cause("FieldValueDuplicate", f"Duplicate value: {shown}", f"{path}[{index}]"))
            seen.add(shown)

    return check


def _deep(raw: dict[str, Any]) -> Callable[[Any], bool]:
    """Whether a value holds against a schema under a logical operator, properties and items included."""
    here = Values(raw)
    properties = {key: _deep(each) for key, each in (raw.get("properties") or {}).items()}
    items = _deep(raw["items"]) if type(raw.get("items")) is dict else None
    more = _deep(raw["additionalProperties"]) if type(raw.get("additionalProperties")) is dict else None

    def holds(value: Any) -> bool:
        if not here.holds(value):
            return False
        if type(value) is dict:
            for key, each in value.items():
                below = properties.get(key, more)
                if below is not None and not below(each):
                    return False
        elif type(value) is list and items is not None:
            return all(map(items, value))
        return True

    return holds


def _all_of(schemas: Any, raw: dict[str, Any]) -> Check:
    tests = [_deep(each) for each in schemas]

    def check(value: Any, path: str, causes: Causes) -> None:
        if not all(test(value) for test in tests):
            causes.append(_logic(value, path, "must validate all the schemas (allOf)"))

    return check


def _any_of(schemas: Any, raw: dict[str, Any]) -> Check:
    tests = [_deep(each) for each in schemas]

    def check(value: Any, path: str, causes: Causes) -> None:
        if not any(test(value) for test in tests):
            causes.append(_logic(value, path, "must validate at least one schema (anyOf)"))

    return check


def _one_of(schemas: Any, raw: dict[str, Any]) -> Check:
    tests = [_deep(each) for each in schemas]

    def check(value: Any, path: str, causes: Causes) -> None:
        holding = sum(test(value) for test in tests)
        if holding != 1:
            found = f"Found {holding} valid alternatives" if holding else "Found none valid"
            causes.append(_logic(value, path, f"must validate one and only one schema (oneOf). {found}"))

    return check


def _not(schema: Any, raw: dict[str, Any]) -> Check:
    test = _deep(schema)

    def check(value: Any, path: str, causes: Causes) -> None:
        if test(value):
            causes.append(_logic(value, path, "must not validate the schema (not)"))

    return check


def _logic(value: Any, path: str, text: str) -> dict[str, str]:
    shown = _show(value) if type(value) not in (dict, list) else '""'
    return cause("FieldValueInvalid", f'Invalid value: {shown}: "{path}" {text}', path)


def _embedded(on: Any, raw: dict[str, Any]) -> Check:
    def check(value: Any, path: str, causes: Causes) -> None:
        if type(value) is dict:
            for name in ("apiVersion", "kind"):
                if not value.get(name):
                    causes.append(cause("FieldValueRequired", "Required value: must not be empty", f"{path}.{name}"))

    return check


_CHECKS: dict[str, Callable[[Any, dict[str, Any]], Check]] = {
    "enum": _enum,
    "required": _required,
    "pattern": _pattern,
    "minimum": _number(_at_least, "greater than or equal to", "exclusiveMinimum", "greater than"),
    "maximum": _number(_at_most, "less than or equal to", "exclusiveMaximum", "less than"),
    "multipleOf": _number(_is_multiple, "a multiple of"),
    "minLength": _size(str, True, "be at least {} chars long"),
    "maxLength": _size(str, False, ""),
    "minItems": _size(list, True, "have at least {} items"),
    "maxItems": _size(list, False, ""),
    "minProperties": _size(dict, True, "have at least {} properties"),
    "maxProperties": _size(dict, False, ""),
    "format": _format,
    "x-kubernetes-list-type": _list_type,
    "x-kubernetes-embedded-resource": _embedded,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
}
