"""Types of handlers' parameters: how a value is read as one, and the JSON Schema (2020-12) that describes it.

Knows the plain types, collections, Optional, Union, Literal, Enum, dates, dataclasses, TypedDicts and named tuples by itself, and pydantic's
models and annotations through the pydantic that the function's layer has.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import sys
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["MISSING", "Faults", "Kind", "Unsupported", "kind_of"]

MISSING: Any = object()
Loc = tuple[Any, ...]


class Unsupported(Exception):
    """An annotation that no value can be read as."""


class Faults(list[dict[str, Any]]):
    """What is wrong with a call's arguments, each with where it is."""

    def add(self, loc: Loc, message: str) -> Any:
        self.append({"loc": list(loc), "message": message})
        return MISSING

    def text(self) -> str:
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['message']}" for each in self[:10])


class Kind:
    """`read(value, loc, faults, text)`: the value as this type, or MISSING with a fault added. `text`: it comes from a query or form.

    `scalar` kinds fit into a query; `schema(definitions)` adds named types to `definitions`.
    """

    def __init__(self, read: Callable[[Any, Loc, Faults, bool], Any], schema: Callable[[dict[str, Any]], dict[str, Any]], scalar: bool = False) -> None:  # fmt: skip
        self.read, self.schema, self.scalar = read, schema, scalar


def kind_of(annotation: Any) -> Kind:
    """Raises `Unsupported`."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, typing.NewType):
        return kind_of(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        if any(type(each).__module__.partition(".")[0] in ("pydantic", "annotated_types") for each in metadata):
            return _pydantic(annotation, kind_of(inner).scalar)
        return kind_of(inner)
    if origin in (typing.Union, types.UnionType):
        return _union([kind_of(each) for each in typing.get_args(annotation)])
    if origin is typing.Literal:
        return _choice(list(typing.get_args(annotation)))
    if origin in (typing.Required, typing.NotRequired):
        return kind_of(typing.get_args(annotation)[0])
    if hasattr(annotation, "model_validate") or hasattr(annotation, "__pydantic_validator__"):
        return _pydantic(annotation, False)
    kind = origin or annotation
    arguments = typing.get_args(annotation)
    if kind is tuple:
        return _tuple(arguments)
    if kind in _COLLECTIONS:
        return _list(_COLLECTIONS[kind], kind_of(arguments[0] if arguments else Any), kind in (set, frozenset))
    if kind in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return _dict(kind_of(arguments[1] if len(arguments) > 1 else Any))
    if isinstance(kind, type):
        if issubclass(kind, enum.Enum):
            return _enum(kind)
        if dataclasses.is_dataclass(kind):
            return _dataclass(kind)
        if typing.is_typeddict(kind):
            return _typed_dict(kind)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return _named_tuple(kind)
    raise Unsupported(f"{getattr(annotation, '__name__', annotation)!s} can't be read from a request")


# Scalars


def _scalar(name: str, schema: dict[str, Any], convert: Callable[[Any], Any], parse: Callable[[str], Any]) -> Kind:
    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        try:
            return parse(value) if text and isinstance(value, str) else convert(value)
        except (ValueError, TypeError, decimal.InvalidOperation, binascii.Error, OverflowError):
            return faults.add(loc, f"must be {name}")

    return Kind(read, lambda _: dict(schema), True)


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError
        return value

    return convert


def _whole(value: Any) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    return int(_exactly(int)(value))


def _boolean(text: str) -> bool:
    lower = text.lower()
    if lower in ("true", "1", "yes", "on"):
        return True
    if lower in ("false", "0", "no", "off"):
        return False
    raise ValueError


def _from_text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: parse(_exactly(str)(value))


def _duration(value: Any) -> datetime.timedelta:
    return datetime.timedelta(seconds=float(_exactly(int, float)(value)))


def _any(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
    return value


def _none(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
    return None if value is None or (text and value == "") else faults.add(loc, "must be null")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(_exactly(str)(value), validate=True)


_STRING = {"type": "string"}
_PLAIN: dict[Any, Kind] = {
    Any: Kind(_any, lambda _: {}),
    object: Kind(_any, lambda _: {}),
    None: Kind(_none, lambda _: {"type": "null"}, True),
    type(None): Kind(_none, lambda _: {"type": "null"}, True),
    str: _scalar("text", _STRING, _exactly(str), str),
    int: _scalar("a whole number", {"type": "integer"}, _whole, int),
    float: _scalar("a number", {"type": "number"}, lambda value: float(_exactly(int, float)(value)), float),
    bool: _scalar("true or false", {"type": "boolean"}, _exactly(bool), _boolean),
    bytes: _scalar("base64", {**_STRING, "contentEncoding": "base64"}, _bytes, _bytes),
    uuid.UUID: _scalar("a UUID", {**_STRING, "format": "uuid"}, _from_text(uuid.UUID), uuid.UUID),
    decimal.Decimal: _scalar("a decimal number", {"type": ["number", "string"]}, lambda value: decimal.Decimal(str(_exactly(int, float, str)(value))), decimal.Decimal),
    datetime.datetime: _scalar("a date and time, such as 2024-05-01T12:00:00Z", {**_STRING, "format": "date-time"}, _from_text(datetime.datetime.fromisoformat), datetime.datetime.fromisoformat),
    datetime.date: _scalar("a date, such as 2024-05-01", {**_STRING, "format": "date"}, _from_text(datetime.date.fromisoformat), datetime.date.fromisoformat),
    datetime.time: _scalar("a time, such as 12:00:00", {**_STRING, "format": "time"}, _from_text(datetime.time.fromisoformat), datetime.time.fromisoformat),
    datetime.timedelta: _scalar("a number of seconds", {"type": "number"}, _duration, lambda text: datetime.timedelta(seconds=float(text))),
}  # fmt: skip
_COLLECTIONS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, set: set, frozenset: frozenset, collections.abc.Sequence: list, collections.abc.Iterable: list, collections.abc.Collection: list,
}  # fmt: skip


def _choice(values: list[Any]) -> Kind:
    listed = ", ".join(map(repr, values))

    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        for each in values:
            if (each == value and type(each) is type(value)) or (text and str(each) == value):
                return each
        return faults.add(loc, f"must be one of {listed}")

    return Kind(read, lambda _: {"enum": values}, True)


def _enum(kind: Any) -> Kind:
    members = {each.value: each for each in kind}
    plain = _choice(list(members))

    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        found = plain.read(value, loc, faults, text)
        return MISSING if found is MISSING else members[found]

    return Kind(read, plain.schema, True)


# Collections


def _union(kinds: list[Kind]) -> Kind:
    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        tried: list[Faults] = []
        for each in kinds:
            found = each.read(value, loc, mine := Faults(), text)
            if not mine:
                return found
            tried.append(mine)
        # The one that came furthest knows best what was meant.
        faults.extend(max(tried, key=lambda each: max(len(fault["loc"]) for fault in each)))
        return MISSING

    def schema(definitions: dict[str, Any]) -> dict[str, Any]:
        return {"anyOf": [each.schema(definitions) for each in kinds]}

    return Kind(read, schema, all(each.scalar for each in kinds))


def _list(make: Callable[[list[Any]], Any], item: Kind, unique: bool) -> Kind:
    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        if not isinstance(value, list):
            return faults.add(loc, "must be a list")
        return make([item.read(each, (*loc, at), faults, text) for at, each in enumerate(value)])

    def schema(definitions: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": item.schema(definitions), **({"uniqueItems": True} if unique else {})}

    return Kind(read, schema)


def _tuple(arguments: tuple[Any, ...]) -> Kind:
    if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _list(tuple, kind_of(arguments[0] if arguments else Any), False)
    items = [kind_of(each) for each in arguments]

    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            return faults.add(loc, f"must be a list of {len(items)}")
        return tuple(
            item.read(each, (*loc, at), faults, text) for at, (item, each) in enumerate(zip(items, value, strict=True))
        )

    def schema(definitions: dict[str, Any]) -> dict[str, Any]:
        size = len(items)
        return {"type": "array", "prefixItems": [each.schema(definitions) for each in items], "minItems": size, "maxItems": size}  # fmt: skip

    return Kind(read, schema)


def _dict(item: Kind) -> Kind:
    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        if not isinstance(value, dict):
            return faults.add(loc, "must be an object")
        return {key: item.read(each, (*loc, key), faults, text) for key, each in value.items()}

    return Kind(read, lambda definitions: {"type": "object", "additionalProperties": item.schema(definitions)})


# Records


def _record(name: str, make: Callable[[dict[str, Any]], Any], fields: Callable[[], dict[str, tuple[Kind, bool, Any]]], doc: str) -> Kind:  # fmt: skip
    """`fields`: kind, whether it is required, and its default; asked for late, as types may refer to themselves."""
    known: dict[str, tuple[Kind, bool, Any]] = {}

    def of() -> dict[str, tuple[Kind, bool, Any]]:
        if not known:
            known.update(fields())
        return known

    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        if not isinstance(value, dict):
            return faults.add(loc, "must be an object")
        before, found = len(faults), {}
        for key, (kind, required, _) in of().items():
            if key in value:
                found[key] = kind.read(value[key], (*loc, key), faults, text)
            elif required:
                faults.add((*loc, key), "is required")
        for key in value:
            if key not in known:
                faults.add((*loc, key), f"is not a field of {name}")
        if len(faults) > before:
            return MISSING
        try:
            return make(found)
        except (ValueError, TypeError) as error:  # what the type itself checks as it is made
            return faults.add(loc, str(error))

    def schema(definitions: dict[str, Any]) -> dict[str, Any]:
        reference = {"$ref": f"#/components/schemas/{name}"}
        if name in definitions:
            return reference
        described: dict[str, Any] = definitions.setdefault(name, {"type": "object"})
        described["properties"] = {}
        for key, (kind, _, default) in of().items():
            described["properties"][key] = kind.schema(definitions)
            if isinstance(default, (str, int, float, bool)):
                described["properties"][key]["default"] = default
        needed = [key for key, (_, required, _) in of().items() if required]
        if needed:
            described["required"] = needed
        if doc and not doc.startswith(f"{name}("):
            described["description"] = doc.strip()
        return reference

    return Kind(read, schema)


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise Unsupported(f"{kind.__name__}: {error}") from error


_RECORDS: dict[Any, Kind] = {}


def _dataclass(kind: Any) -> Kind:
    if kind in _RECORDS:
        return _RECORDS[kind]

    def fields() -> dict[str, tuple[Kind, bool, Any]]:
        hints = _hints(kind)
        return {
            each.name: (
                kind_of(hints[each.name]),
                each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
                each.default,
            )
            for each in dataclasses.fields(kind)
            if each.init
        }

    found = _RECORDS[kind] = _record(kind.__name__, lambda values: kind(**values), fields, kind.__doc__ or "")
    return found


def _typed_dict(kind: Any) -> Kind:
    if kind in _RECORDS:
        return _RECORDS[kind]

    def fields() -> dict[str, tuple[Kind, bool, Any]]:
        # Where annotations are text, `__required_keys__` doesn't know of NotRequired.
        said = {name: typing.get_origin(hint) for name, hint in _hints(kind).items()}
        needed = {
            name
            for name, origin in said.items()
            if origin is typing.Required or (origin is not typing.NotRequired and name in kind.__required_keys__)
        }
        return {name: (kind_of(hint), name in needed, None) for name, hint in _hints(kind).items()}

    found = _RECORDS[kind] = _record(kind.__name__, dict, fields, kind.__doc__ or "")
    return found


def _named_tuple(kind: Any) -> Kind:
    def fields() -> dict[str, tuple[Kind, bool, Any]]:
        hints, defaults = _hints(kind), kind._field_defaults
        return {name: (kind_of(hints.get(name, Any)), name not in defaults, defaults.get(name)) for name in kind._fields}  # fmt: skip

    return _record(kind.__name__, lambda values: kind(**values), fields, "")


def _pydantic(annotation: Any, scalar: bool) -> Kind:
    pydantic: Any = sys.modules["pydantic"]
    adapter = pydantic.TypeAdapter(annotation)

    def read(value: Any, loc: Loc, faults: Faults, text: bool) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                faults.add((*loc, *each["loc"]), each["msg"])
            return MISSING

    def schema(definitions: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = adapter.json_schema(ref_template="#/components/schemas/{model}")
        definitions.update(found.pop("$defs", {}))
        name = found.get("title")
        if found.get("type") != "object" or not name:
            return found
        definitions[name] = found
        return {"$ref": f"#/components/schemas/{name}"}

    return Kind(read, schema, scalar)
