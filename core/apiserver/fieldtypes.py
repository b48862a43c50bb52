"""How the parts of an object merge when it is applied: what is one value, what is a map of fields, what a list of keyed items.

A tree of nodes, made from the table of built-in types or from a custom kind's schema. Nodes are made when they are first asked
for and kept, as types may hold themselves. Sources: the API's `x-kubernetes-list-type`, `-list-map-keys` and `-map-type`
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.apiserver.schema import Field, Schemas, Struct
from core.apiserver.shapes import Shape

__all__ = ["ANYTHING", "KEYED", "LEAF", "MAP", "SET", "Node", "built_in", "custom"]

LEAF, MAP, SET, KEYED = range(4)
"""One value that is owned whole; fields by name; a list of distinct values; a list of items told apart by some of their fields."""

_PORT_DEFAULTS = {"protocol": "TCP"}


class Node:
    """`keys` are a keyed list's, `defaults` what an item that leaves them out has; `embedded` structs are there in every object
    that holds them, though JSON may not show them (Go has them by value)."""

    __slots__ = ("_find", "_known", "defaults", "embedded", "item", "keys", "shape")

    def __init__(
        self,
        shape: int,
        find: Callable[[str], Node | None] | None = None,
        item: Node | None = None,
        keys: tuple[str, ...] = (),
        defaults: Mapping[str, Any] | None = None,
        embedded: tuple[str, ...] = (),
    ) -> None:
        self.shape = shape
        self.item = item
        self.keys = keys
        self.defaults = defaults or {}
        self.embedded = embedded
        self._find = find
        self._known: dict[str, Node | None] = {}

    def declared(self, name: str) -> Node | None:
        """The node of a field that the type names; None for the keys of maps and for what nobody knows."""
        known = self._known
        if name not in known:
            known[name] = self._find(name) if self._find is not None else None
        return known[name]

    def child(self, name: str) -> Node | None:
        """The node below a name, None where there may be none."""
        return self.declared(name) or self.item

    def always(self, name: str) -> bool:
        """Whether every value of this type has that field, empty or not."""
        return name in self.embedded


_LEAF = Node(LEAF)
ANYTHING = Node(MAP)
"""Of a value that no schema describes: objects merge by field, everything else is one value."""
ANYTHING.item = ANYTHING


class _BuiltIn:
    """Nodes for the types of the schema table."""

    def __init__(self) -> None:
        self._structs: dict[str, Node] = {}

    def struct(self, struct: Struct) -> Node:
        found = self._structs.get(struct.name)
        if found is None:
            fields = struct.fields
            embedded = tuple(
                name for name, each in fields.items()
                if not each.pointer and (each.shape.code.startswith("@") or (each.shape.code[0] in "[{" and each.required))
            )  # fmt: skip

            def find(name: str) -> Node | None:
                field = fields.get(name)
                return self._field(field) if field is not None else None

            found = Node(MAP, find, embedded=embedded)
            self._structs[struct.name] = found
        return found

    def _field(self, field: Field) -> Node:
        if field.atomic:
            return _LEAF
        shape = field.shape
        if shape.code[0] == "[" and shape.item is not None:
            if field.list_type == "set":
                return Node(SET, item=_LEAF)
            if field.list_type == "map":
                return Node(KEYED, item=self._value(shape.item), keys=field.map_keys, defaults=_PORT_DEFAULTS)
            return _LEAF
        return self._value(shape)

    def _value(self, shape: Shape) -> Node:
        if shape.code[0] == "@" and shape.struct is not None:
            return _LEAF if shape.struct.atomic else self.struct(shape.struct)
        if shape.code[0] == "{" and shape.item is not None:
            return Node(MAP, item=self._value(shape.item))
        return _LEAF


_built_in = _BuiltIn()


def built_in(struct: Struct) -> Node:
    """The node of a built-in type."""
    return _built_in.struct(struct)


def custom(schema: Mapping[str, Any], schemas: Schemas) -> Node:
    """The node of a custom kind with this `openAPIV3Schema`."""
    return _custom(schema, schemas, True)


def _custom(raw: Mapping[str, Any], schemas: Schemas, embedded: bool = False) -> Node:
    kind = raw.get("type")
    embedded = embedded or raw.get("x-kubernetes-embedded-resource") is True
    if kind == "array":
        items = raw.get("items") or {}
        list_type = raw.get("x-kubernetes-list-type", "atomic")
        if list_type == "set":
            return Node(SET, item=_LEAF)
        if list_type == "map":
            properties = items.get("properties") or {}
            keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
            defaults = {key: properties[key]["default"] for key in keys if "default" in (properties.get(key) or {})}
            return Node(KEYED, item=_custom(items, schemas), keys=keys, defaults=defaults)
        return _LEAF
    preserve = raw.get("x-kubernetes-preserve-unknown-fields") is True
    if kind == "object" or embedded or (preserve and kind is None):
        if raw.get("x-kubernetes-map-type") == "atomic":
            return _LEAF
        return _custom_object(raw, schemas, embedded, preserve)
    return _LEAF


def _custom_object(raw: Mapping[str, Any], schemas: Schemas, embedded: bool, preserve: bool) -> Node:
    properties = raw.get("properties") or {}
    more = raw.get("additionalProperties")
    item = None
    if isinstance(more, dict):
        item = _custom(more, schemas)
    elif preserve or more is True:
        item = ANYTHING

    def find(name: str) -> Node | None:
        if embedded and name == "metadata":
            return built_in(schemas.named("meta.v1.ObjectMeta"))
        if embedded and name in ("apiVersion", "kind"):
            return _LEAF
        found = properties.get(name)
        return _custom(found, schemas) if found is not None else None

    return Node(MAP, find, item=item, embedded=("metadata",) if embedded else ())
