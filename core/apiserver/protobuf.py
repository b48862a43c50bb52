"""Kubernetes protobuf bodies into JSON documents, driven by the field numbers of the schema table.

A body is `k8s\\0` and a `runtime.Unknown` message: typeMeta (1) with apiVersion and kind, raw (2) with the object's message,
contentEncoding (3), contentType (4). Clients write every field that isn't a pointer, so zeros of those are left out as Go's JSON
leaves them out. Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import base64
import struct as packing
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from core.apiserver import schema
from core.apiserver.schema import Field, Shape, Struct
from core.clock import micro_time, timestamp
from core.errors import BadRequest, TooLarge

__all__ = ["MAGIC", "MAX_FIELDS", "decode"]

MAGIC = b"k8s\x00"
_MAX_DEPTH = 100

MAX_FIELDS = 50_000
"""Of a body, nested ones counted: each takes some 5 us in which nobody else is served. What is longer comes as JSON."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INTEGERS = frozenset("il")


class _Budget(threading.local):
    """How many more fields the body that this thread decodes may have."""

    left = 0


_budget = _Budget()


class _Malformed(Exception):
    """The bytes aren't what the field numbers promise."""


def decode(body: bytes) -> dict[str, Any]:
    """The JSON document in a protobuf body, with apiVersion and kind. BadRequest for anything else, whatever it is, and
    TooLarge for more than `MAX_FIELDS` fields.
    """
    if body[:4] != MAGIC:
        raise BadRequest(
            "the object provided is unrecognized: the protobuf body doesn't begin with the prefix k8s\\x00"
        )
    _budget.left = MAX_FIELDS
    try:
        return _envelope(memoryview(body)[4:])
    except (_Malformed, UnicodeDecodeError, OverflowError, ValueError, RecursionError) as error:
        raise BadRequest(f"the object provided is unrecognized: protobuf: {error}") from error


def _envelope(data: memoryview) -> dict[str, Any]:
    api_version = kind = ""
    raw = memoryview(b"")
    for number, value in _fields(data):
        if number == 1:
            for inner, text in _fields(_as_bytes(value)):
                if inner == 1:
                    api_version = str(_as_bytes(text), "utf-8")
                elif inner == 2:
                    kind = str(_as_bytes(text), "utf-8")
        elif number == 2:
            raw = _as_bytes(value)
        elif number == 3 and len(_as_bytes(value)):
            raise _Malformed("encoded contents are not supported")
        elif number == 4 and str(_as_bytes(value), "utf-8") not in ("", "application/vnd.kubernetes.protobuf"):
            raise _Malformed("the contents are of another type than protobuf")
    group, _, version = api_version.rpartition("/")
    struct = schema.load().of(group, version, kind)
    if struct is None:
        raise BadRequest(f'no kind "{kind}" is registered for version "{api_version}" in protobuf')
    return {"apiVersion": api_version, "kind": kind, **_message(struct, raw, 0)}


# The wire


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("unexpected end of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview | bytes]]:
    """(number, value) of each field: an int for numbers, a view for what has a length, bytes for fixed widths."""
    at, end, budget = 0, len(data), _budget
    while at < end:
        budget.left -= 1
        if budget.left < 0:
            raise TooLarge(f"Request entity too large: limit is {MAX_FIELDS} fields in protobuf")
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise _Malformed(f"illegal field number {number}")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire == _FIXED64:
            size = 8
        elif wire == _FIXED32:
            size = 4
        else:
            raise _Malformed(f"illegal wire type {wire}")
        if size > end - at:
            raise _Malformed("unexpected end of a field")
        yield number, data[at : at + size] if wire == _BYTES else bytes(data[at : at + size])
        at += size


def _as_bytes(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, memoryview):
        return value
    raise _Malformed("a field has another wire type than its message says")


def _as_int(value: int | memoryview | bytes) -> int:
    if isinstance(value, int):
        return value - 2**64 if value >= 2**63 else value
    raise _Malformed("a field has another wire type than its message says")


def _only(data: memoryview, number: int) -> int | memoryview | bytes | None:
    """The last value of one field of a message."""
    found = None
    for each, value in _fields(data):
        if each == number:
            found = value
    return found


# Messages


def _message(struct: Struct, data: memoryview, depth: int, into: dict[str, Any] | None = None) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise _Malformed("exceeded max depth")
    found: dict[str, Any] = {} if into is None else into
    numbers = struct.by_number
    for number, value in _fields(data):
        field = numbers.get(number)
        if field is None:
            continue
        if isinstance(field, Struct):
            _message(field, _as_bytes(value), depth + 1, found)
        elif field.shape.code == "[" and field.shape.item is not None:
            found.setdefault(field.name, []).extend(_items(field.shape.item, value, depth))
        elif field.shape.code == "{" and field.shape.item is not None:
            key, item = _entry(field.shape.item, _as_bytes(value), depth)
            found.setdefault(field.name, {})[key] = item
        else:
            one = _value(field.shape, value, depth)
            if _says_something(field, one):
                found[field.name] = one
    return found


def _says_something(field: Field, value: Any) -> bool:
    if value is None:
        return False
    if field.keep:
        return True
    return not (value in ("", 0, False) or value == {}) or field.shape.code == "x"


def _items(shape: Shape, value: int | memoryview | bytes, depth: int) -> list[Any]:
    if shape.code in _INTEGERS and isinstance(value, memoryview):  # packed
        found, at = [], 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_as_int(number))
        return found
    return [_value(shape, value, depth)]


def _entry(shape: Shape, data: memoryview, depth: int) -> tuple[str, Any]:
    key = _only(data, 1)
    value = _only(data, 2)
    name = "" if key is None else str(_as_bytes(key), "utf-8")
    if shape.code == "[" and shape.item is not None:
        # A list as the value of a map is a message whose field 1 repeats.
        inner = () if value is None else _fields(_as_bytes(value))
        return name, [_value(shape.item, each, depth) for number, each in inner if number == 1]
    if value is None:
        return name, shape.zero()
    return name, _value(shape, value, depth)


def _value(shape: Shape, value: int | memoryview | bytes, depth: int) -> Any:
    code = shape.code
    if code == "s":
        return str(_as_bytes(value), "utf-8")
    if code in _INTEGERS:
        number = _as_int(value)
        if code == "i" and not -(2**31) <= number < 2**31:
            raise _Malformed("a number is out of range")
        return number
    if code == "b":
        return bool(_as_int(value))
    if code == "@" and shape.struct is not None:
        return _message(shape.struct, _as_bytes(value), depth + 1)
    if code == "y":
        return base64.b64encode(_as_bytes(value)).decode()
    if code == "n":
        if not isinstance(value, bytes):
            raise _Malformed("a field has another wire type than its message says")
        number = packing.unpack("<d" if len(value) == 8 else "<f", value)[0]
        if number != number or number in (float("inf"), float("-inf")):
            raise _Malformed("a number is not finite")
        return number
    if code in "tT":
        return _time(_as_bytes(value), code)
    if code == "q":
        text = _only(_as_bytes(value), 1)
        return "0" if text is None else str(_as_bytes(text), "utf-8")
    if code == "x":
        return _int_or_string(_as_bytes(value))
    if code == "*":
        return _raw(_as_bytes(value))
    return _schema_or(shape, _as_bytes(value), depth)


def _time(data: memoryview, code: str) -> str | None:
    seconds = nanos = 0
    seen = False
    for number, value in _fields(data):
        if number == 1:
            seconds, seen = _as_int(value), True
        elif number == 2:
            nanos, seen = _as_int(value), True
    if not seen:
        return None
    if not (-62135596800 <= seconds < 253402300800 and 0 <= nanos < 10**9):
        raise _Malformed("a time is out of range")
    if code == "t":
        return timestamp(seconds)
    return f"{micro_time(seconds)[:-8]}.{nanos // 1000:06d}Z"


def _int_or_string(data: memoryview) -> int | str:
    kind = number = 0
    text = ""
    for field, value in _fields(data):
        if field == 1:
            kind = _as_int(value)
        elif field == 2:
            number = _as_int(value)
        elif field == 3:
            text = str(_as_bytes(value), "utf-8")
    return text if kind == 1 else number


def _raw(data: memoryview) -> Any:
    """What holds JSON as bytes: RawExtension, FieldsV1, JSON."""
    value = _only(data, 1)
    if value is None or not len(_as_bytes(value)):
        return None
    return msgspec.json.decode(_as_bytes(value))


def _schema_or(shape: Shape, data: memoryview, depth: int) -> Any:
    """JSONSchemaPropsOrArray, OrBool, OrStringArray."""
    schema_found: dict[str, Any] | None = None
    others: list[Any] = []
    allows: bool | None = None
    props = shape.struct
    if props is None:
        raise _Malformed("a schema has no type")
    for number, value in _fields(data):
        if shape.code == "B":
            if number == 1:
                allows = bool(_as_int(value))
            elif number == 2:
                schema_found = _message(props, _as_bytes(value), depth + 1)
        elif number == 1:
            schema_found = _message(props, _as_bytes(value), depth + 1)
        elif number == 2:
            one = str(_as_bytes(value), "utf-8") if shape.code == "S" else _message(props, _as_bytes(value), depth + 1)
            others.append(one)
    if schema_found is not None:
        return schema_found
    return bool(allows) if shape.code == "B" else others
