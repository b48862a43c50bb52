"""The shapes that values of the built-in API have: what each accepts, and the form in which it keeps it.

Checks run on every write, so that they are one call deep for scalars, and copy only what they change.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from typing import TYPE_CHECKING, Any, ClassVar

from core.api import quantity
from core.clock import micro_time, parse_time, timestamp

if TYPE_CHECKING:
    from core.apiserver.schema import Struct

__all__ = ["SCALARS", "SCHEMA_OR", "ListOf", "MapOf", "Mismatch", "Ref", "SchemaOr", "Shape", "join"]


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

    def conversion(self) -> str:
        """In the words in which Kubernetes refuses a strategic merge patch: those of its converter of decoded objects, which don't tell the field."""
        if self.text:
            return self.text
        found = _GO_KINDS.get(type(self.value), "interface")
        if self.go.startswith("map["):
            return f"cannot restore map from {found}"
        if self.go.startswith("[]"):
            return f"cannot restore slice from {found}"
        if self.go in _CONVERTIBLE.get(found, ()):
            return f"cannot convert {found} to {self.go}"
        return f"unrecognized type: {self.go}" if self.go in _GO_SCALARS else f"cannot restore struct from: {found}"


_GO_KINDS: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64", dict: "map", list: "slice"}
_GO_SCALARS = ("string", "bool", "int32", "int64", "float64")
_CONVERTIBLE = {"int64": ("string",), "float64": ("int32", "int64")}
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


class String(Shape):
    __slots__ = ()
    accept = str


class Boolean(Shape):
    __slots__ = ()
    accept = bool


class Integer(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        bound = 2**31 if self.code == "i" else 2**63
        if type(value) is int and -bound <= value < bound:
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


class Number(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is float or type(value) is int:
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


class IntOrString(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is str or (type(value) is int and -(2**31) <= value < 2**31):
            return value
        raise Mismatch(value, self.go)

    def zero(self) -> Any:
        return 0


_BREAKS = str.maketrans("", "", "\r\n")


class Bytes(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is not str:
            raise Mismatch(value, self.go)
        try:
            # Line breaks may be in it, as `base64` writes them; what is kept has none.
            return base64.b64encode(base64.b64decode(value.translate(_BREAKS), validate=True)).decode()
        except (binascii.Error, ValueError) as error:
            raise Mismatch(value, self.go, "illegal base64 data") from error

    def zero(self) -> Any:
        return ""


class Quantity(Shape):
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


class Time(Shape):
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


class Anything(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        return value


class SchemaOr(Shape):
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


class ListOf(Shape):
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


class MapOf(Shape):
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
                unknown[before:] = [join(key, path) for path in unknown[before:]]
        return found

    def zero(self) -> Any:
        return {}


class Ref(Shape):
    __slots__ = ()

    def check(self, value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict or self.struct is None:
            raise Mismatch(value, self.go)
        return self.struct.walk(value, unknown)

    def zero(self) -> Any:
        return {}


def join(key: str, path: str) -> str:
    return key + path if path.startswith("[") else f"{key}.{path}"


SCALARS: dict[str, tuple[type[Shape], str]] = {
    "s": (String, "string"), "b": (Boolean, "bool"), "i": (Integer, "int32"), "l": (Integer, "int64"), "n": (Number, "float64"),
    "y": (Bytes, "[]uint8"), "t": (Time, "v1.Time"), "T": (Time, "v1.MicroTime"), "q": (Quantity, "resource.Quantity"),
    "x": (IntOrString, "intstr.IntOrString"), "*": (Anything, "interface {}"),
}  # fmt: skip
SCHEMA_OR = {"A": "JSONSchemaPropsOrArray", "B": "JSONSchemaPropsOrBool", "S": "JSONSchemaPropsOrStringArray"}
