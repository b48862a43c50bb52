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

import functools
import gzip
from importlib import resources
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver.shapes import SCALARS, SCHEMA_OR, ListOf, MapOf, Mismatch, Ref, SchemaOr, Shape, join
from core.errors import BadRequest

__all__ = ["Field", "Schemas", "Shape", "Struct", "load"]


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
                    unknown[before:] = [join(key, path) for path in unknown[before:]]
        return found


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
            return ListOf("[", f"[]{item.go}", item) if first == "[" else MapOf("{", f"map[string]{item.go}", item)
        if first == "@":
            package, _, name = code[1:].rpartition(".")
            return Ref("@", f"{package.rpartition('.')[2]}.{name}", struct=self.named(code[1:]))
        if first in SCHEMA_OR:
            return SchemaOr(first, f"v1.{SCHEMA_OR[first]}", struct=self.named("apiextensions.v1.JSONSchemaProps"))
        made, go = SCALARS[first]
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
