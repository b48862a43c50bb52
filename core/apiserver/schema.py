"""The types of the built-in API: what fields there are, of which shape, how lists of them merge, and their protobuf numbers.

The table (`data/schema.json.gz`, made by `tools/make_schema.py`) is `{"version", "types": {name: type}}`. A type has
`f`, its fields: `[name, shape, number, flags, merge key, strategies, list type, list map keys]` without the empty tail;
`i`, the structs that its protobuf message nests though JSON has their fields inline: `[number, type name]`; `g`, its
`[group, version, kind]`; `a`, where apply owns it whole. A shape is `[`, `{` (list of, map of) before one of `@NAME` (a type),
`s`tring, `i`nt32, `l` int64, `n`umber, `b`oolean, b`y`tes, `t`ime, micro`T`ime, `q`uantity, int or string `x`, `*` (any),
and `A B S` (a JSON schema, or else an array, a boolean, strings). Flags: `r`equired, `p`ointer in Go (so that zero says something),
`k`ept though zero, `a`tomic for apply. Types are compiled when they are first looked at.
"""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
import re
from importlib import resources
from typing import Any, ClassVar

import msgspec

from core.api import quantity
from core.api.kinds import Kind
from core.clock import micro_time, parse_time, timestamp
from core.errors import BadRequest

__all__ = ["Field", "Schemas", "Shape", "Struct", "load"]


class Mismatch(Exception):
    """A value of the wrong type. `path` grows from the inside out; `struct` is the innermost struct's name."""

    def __init__(self, value: Any, go: str, text: str = "") -> None:
        super().__init__(text)
        self.value, self.go, self.text = value, go, text
        self.path: list[str] = []
        self.struct = ""

    def message(self) -> str:
        """In the words of Go's decoder."""
        if self.text:
            return self.text
        field = f"Go struct field {self.struct}.{'.'.join(reversed(self.path))}" if self.path else "Go value"
        return f"json: cannot unmarshal {_json_name(self.value)} into {field} of type {self.go}"


_JSON_NAMES: dict[type, str] = {str: "string", dict: "object", list: "array"}


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}" if isinstance(value, float) or abs(value) > 2**31 - 1 else "number"
    return _JSON_NAMES.get(type(value), "null")


class Shape:
    """What a value may be. `check` gives the value as the API keeps it, or raises `Mismatch`."""

    __slots__ = ("code", "go", "item", "struct")
    accept: ClassVar[type | None] = None
    """The Python type of which every value is right as it is."""

    def __init__(self, code: str, go: str, item: Shape | None = None, struct: Struct | None = None) -> None:
        self.code = code
        self.go = go
        self.item = item
        self.struct = struct

    def check(self, value: Any, unknown: list[str]) -> Any:
        """`value`, checked; paths of unknown fields are added to `unknown`. `value` is not None."""
        if type(value) is self.accept:
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        """What null stands for inside of a list or map, as in Go."""
        return self.accept() if self.accept is not None else None


class _String(Shape):
    __slots__ = ()
    accept = str


class _Boolean(Shape):
    __slots__ = ()
    accept = bool


class _Integer(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        bound = 2**31 if self.code == "i" else 2**63
        if type(value) is int and -bound <= value < bound:
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


class _Number(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is float or type(value) is int:
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


class _IntOrString(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is str or (type(value) is int and -(2**31) <= value < 2**31):
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


class _Bytes(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is not str:
            raise Mismatch(value, self.go)
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Mismatch(value, self.go, "illegal base64 data") from error
        return value

    def zero(self) -> Any:
        return ""


class _Quantity(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) not in (str, int, float):
            raise Mismatch(value, self.go)
        try:
            return _canonical(str(value))
        except (ValueError, ArithmeticError) as error:
            text = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            raise Mismatch(value, self.go, text) from error

    def zero(self) -> Any:
        return "0"


@functools.lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    if len(text) > 64:
        raise ValueError("no quantity is that long")
    return quantity.canonical(text)


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


class _Time(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is not str:
            raise Mismatch(value, self.go)
        matched = _TIME.fullmatch(value)
        try:
            if matched is None:
                raise ValueError(value)
            fraction = matched[1]
            at = parse_time(value.replace(fraction, fraction[:7]) if fraction else value)
            if matched[2] == "Z" and (not fraction if self.code == "t" else fraction and len(fraction) == 7):
                return value
            return timestamp(at) if self.code == "t" else micro_time(at)
        except (ValueError, OverflowError) as error:
            layout = "2006-01-02T15:04:05Z07:00" if self.code == "t" else "2006-01-02T15:04:05.000000Z07:00"
            text = f'parsing time "{value[:64]}" as "{layout}": cannot parse "{value[:64]}"'
            raise Mismatch(value, self.go, text) from error


class _Any(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        return value


class _SchemaOr(Shape):
    """A JSON schema (`struct`), or an array of them (A), a boolean (B), an array of strings (S)."""

    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is dict and self.struct is not None:
            return self.struct.walk(value, unknown)
        if self.code == "B" and type(value) is bool:
            return value
        if self.code == "S" and type(value) is list and all(type(each) is str for each in value):
            return value
        if self.code == "A" and type(value) is list and self.struct is not None:
            return _walk_list(value, unknown, self.check, dict)
        raise Mismatch(value, self.go)


class _List(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        item = self.item
        if type(value) is not list or item is None:
            raise Mismatch(value, self.go)
        accept = item.accept
        if accept is not None and all(type(each) is accept for each in value):
            return value
        return _walk_list(value, unknown, item.check, item.zero)

    def zero(self) -> Any:
        return []


def _walk_list(value: list[Any], unknown: list[str], check: Any, zero: Any) -> list[Any]:
    found: list[Any] = []
    for each in value:
        before = len(unknown)
        found.append(zero() if each is None else check(each, unknown))
        if len(unknown) != before:
            unknown[before:] = [f"[{len(found) - 1}].{path}" for path in unknown[before:]]
    return found


class _Map(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        item = self.item
        if type(value) is not dict or item is None:
            raise Mismatch(value, self.go)
        accept = item.accept
        if accept is not None and all(type(each) is accept for each in value.values()):
            return value
        found: dict[str, Any] = {}
        for key, each in value.items():
            before = len(unknown)
            try:
                found[key] = item.zero() if each is None else item.check(each, unknown)
            except Mismatch as error:
                error.path.append(key)
                raise
            if len(unknown) != before:
                unknown[before:] = [_join(key, path) for path in unknown[before:]]
        return found

    def zero(self) -> Any:
        return {}


class _Ref(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict or self.struct is None:
            raise Mismatch(value, self.go)
        return self.struct.walk(value, unknown)

    def zero(self) -> Any:
        return {}


def _join(key: str, path: str) -> str:
    return key + path if path[0] == "[" else f"{key}.{path}"


class Field:
    """A field of a struct. `number` is 0 where protobuf has the field in an inlined struct, or not at all."""

    __slots__ = (
        "accept", "atomic", "check", "droppable", "keep", "list_type", "map_keys", "merge_key", "name", "number", "pointer", "required",
        "shape", "strategies",
    )  # fmt: skip

    def __init__(self, row: list[Any], shape: Shape) -> None:
        row = row + [0, "", "", "", "", ()][len(row) - 2 :]
        self.name: str = row[0]
        self.shape = shape
        self.number: int = row[2]
        flags: str = row[3]
        self.required = "r" in flags
        self.pointer = "p" in flags
        self.atomic = "a" in flags
        self.keep = bool(set(flags) & {"r", "p", "k"})
        """Whether a zero value ("", 0, false, an empty list or map) stays: Go leaves out the others."""
        self.droppable = not self.keep and shape.code not in ("@", "x", "t", "T", "q", "*", "A", "B", "S")
        self.merge_key: str = row[4]
        self.strategies: tuple[str, ...] = tuple(row[5].split(",")) if row[5] else ()
        self.list_type: str = row[6]
        self.map_keys: tuple[str, ...] = tuple(row[7])
        self.check = shape.check
        self.accept = shape.accept


class Struct:
    """A type with fields. `fields` and `by_number` are compiled at their first use."""

    def __init__(self, name: str, raw: dict[str, Any], schemas: Schemas) -> None:
        self.name = name
        self.go = name.rpartition(".")[2]
        self.atomic = bool(raw.get("a"))
        self.kind: tuple[str, str, str] | None = tuple(raw["g"]) if "g" in raw else None
        self._raw = raw
        self._schemas = schemas

    @functools.cached_property
    def fields(self) -> dict[str, Field]:
        return {row[0]: Field(row, self._schemas.shape(row[1])) for row in self._raw["f"]}

    @functools.cached_property
    def by_number(self) -> dict[int, Field | Struct]:
        """Protobuf field number -> field, or the struct whose fields JSON has inline."""
        found: dict[int, Field | Struct] = {each.number: each for each in self.fields.values() if each.number}
        for number, name in self._raw.get("i", ()):
            found[number] = self._schemas.named(name)
        return found

    def walk(self, value: dict[str, Any], unknown: list[str]) -> dict[str, Any]:
        """A copy of `value` with known fields only, without nulls and without zeros that Go leaves out."""
        fields = self.fields
        found: dict[str, Any] = {}
        for key, each in value.items():
            field = fields.get(key)
            if field is None:
                unknown.append(key)
            elif type(each) is field.accept:
                if each or not field.droppable:
                    found[key] = each
            elif each is not None:
                before = len(unknown)
                try:
                    each = field.check(each, unknown)
                except Mismatch as error:
                    error.path.append(key)
                    error.struct = error.struct or self.go
                    raise
                if each or not field.droppable:
                    found[key] = each
                if len(unknown) != before:
                    unknown[before:] = [_join(key, path) for path in unknown[before:]]
        return found


_SCALARS: dict[str, tuple[type[Shape], str]] = {
    "s": (_String, "string"), "b": (_Boolean, "bool"), "i": (_Integer, "int32"), "l": (_Integer, "int64"), "n": (_Number, "float64"),
    "y": (_Bytes, "[]uint8"), "t": (_Time, "v1.Time"), "T": (_Time, "v1.MicroTime"), "q": (_Quantity, "resource.Quantity"),
    "x": (_IntOrString, "intstr.IntOrString"), "*": (_Any, "interface {}"),
}  # fmt: skip
_SCHEMA_OR = {"A": "JSONSchemaPropsOrArray", "B": "JSONSchemaPropsOrBool", "S": "JSONSchemaPropsOrStringArray"}


class Schemas:
    """The table of built-in types. Cheap to make; types are compiled when they are first asked for."""

    def __init__(self, types: dict[str, Any], version: str = "") -> None:
        self.version = version
        self._raw = types
        self._structs: dict[str, Struct] = {}
        self._shapes: dict[str, Shape] = {}
        self._by_kind = {tuple(raw["g"]): name for name, raw in types.items() if "g" in raw}

    def named(self, name: str) -> Struct:
        """The type of that name (`core.v1.PodSpec`); KeyError where there is none."""
        found = self._structs.get(name)
        if found is None:
            found = self._structs[name] = Struct(name, self._raw[name], self)
        return found

    def of(self, group: str, version: str, kind: str) -> Struct | None:
        """The type of a kind, None where it isn't built in. Options (DeleteOptions ...) are known in every group."""
        name = self._by_kind.get((group, version, kind))
        if name is None and f"meta.v1.{kind}" in self._raw and kind.endswith("Options"):
            name = f"meta.v1.{kind}"
        return self.named(name) if name is not None else None

    def struct(self, kind: Kind) -> Struct | None:
        """The type of a kind, None for a custom resource."""
        return self.of(kind.group, kind.version, kind.kind)

    def shape(self, code: str) -> Shape:
        """The compiled form of a shape of the table."""
        found = self._shapes.get(code)
        if found is None:
            found = self._shapes[code] = self._compile(code)
        return found

    def _compile(self, code: str) -> Shape:
        first = code[0]
        if first in "[{":
            item = self.shape(code[1:])
            return _List("[", f"[]{item.go}", item) if first == "[" else _Map("{", f"map[string]{item.go}", item)
        if first == "@":
            package, _, name = code[1:].rpartition(".")
            return _Ref("@", f"{package.rpartition('.')[2]}.{name}", struct=self.named(code[1:]))
        if first in _SCHEMA_OR:
            return _SchemaOr(first, f"v1.{_SCHEMA_OR[first]}", struct=self.named("apiextensions.v1.JSONSchemaProps"))
        made, go = _SCALARS[first]
        return made(first, go)

    def validate(self, kind: Kind, document: Any, *, strict: bool) -> tuple[dict[str, Any], list[str]]:
        """A pruned copy of `document`, and with `strict` a message for each unknown field (`unknown field "spec.foo"`).

        Unknown fields, nulls and the zero values that Go leaves out are gone from it; quantities and times are canonical. Values
        that are right as they are may be shared with `document`. Raises BadRequest, in Kubernetes' words, for values of a wrong
        type, and LookupError for a kind that isn't built in.
        """
        struct = self.struct(kind)
        if struct is None:
            raise LookupError(f"{kind.api_version} {kind.kind} is not built in")
        unknown: list[str] = []
        try:
            if type(document) is not dict:
                raise Mismatch(document, f"{kind.version}.{kind.kind}")
            found = struct.walk(document, unknown)
        except Mismatch as error:
            raise BadRequest(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error.message()}'
            ) from error
        return found, [f'unknown field "{path}"' for path in unknown] if strict else []


@functools.cache
def load() -> Schemas:
    """The built-in table, read once in a process."""
    packed = resources.files("core.apiserver").joinpath("data/schema.json.gz").read_bytes()
    table = msgspec.json.decode(gzip.decompress(packed))
    return Schemas(table["types"], table["version"])
