"""The types that an OpenAPI document refers to: components, made from the schema table, its descriptions and custom schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.api.kinds import Kind
from core.apiserver import schema
from core.apiserver.descriptions import Described
from core.apiserver.schema import Field, Shape, Struct

__all__ = ["META", "Components", "gvk", "ref"]

Schema = Mapping[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."

_PACKAGES = {
    "meta": "io.k8s.apimachinery.pkg.apis.",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.",
    "metrics": "io.k8s.metrics.pkg.apis.",
}
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

_SCALARS: dict[str, dict[str, Any]] = {
    "s": {"type": "string"},
    "b": {"type": "boolean"},
    "i": {"type": "integer", "format": "int32"},
    "l": {"type": "integer", "format": "int64"},
    "n": {"type": "number", "format": "double"},
    "y": {"type": "string", "format": "byte"},
}
_NAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t": ("meta.v1.Time", f"{META}Time", {"type": "string", "format": "date-time"}),
    "T": ("meta.v1.MicroTime", f"{META}MicroTime", {"type": "string", "format": "date-time"}),
    "q": ("api.resource.Quantity", _QUANTITY, {"oneOf": [{"type": "string"}, {"type": "number"}]}),
    "x": (
        "util.intstr.IntOrString",
        _INT_OR_STRING,
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
}
"""Shape -> its name in the table, its component and what that is."""
_ANY: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


def _full_name(name: str) -> str:
    """`io.k8s.api.core.v1.Pod` of the table's `core.v1.Pod`."""
    return _PACKAGES.get(name.partition(".")[0], "io.k8s.api.") + name


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def gvk(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "kind": kind, "version": version}


class Components:
    """The schemas that a document refers to, gathered as they are referred to. `described` says what they are for, by type name."""

    def __init__(self, schemas: schema.Schemas, described: Mapping[str, Described]) -> None:
        self.found: dict[str, Any] = {}
        self._schemas = schemas
        self._described = described

    def add_kind(self, kind: Kind, custom: Schema | None) -> str:
        """The component name of a kind."""
        struct = self._schemas.struct(kind)
        if struct is not None and custom is None:
            return self.add(struct, gvk(kind.group, kind.version, kind.kind))
        name = _custom_name(kind)
        if name not in self.found:
            self.found[name] = {}
            self.found[name] = self._custom(kind, custom)
        return name

    def add_list(self, kind: Kind, component: str) -> str:
        """The component name of a kind's lists."""
        struct = self._schemas.of(kind.group, kind.version, kind.list_kind)
        about = gvk(kind.group, kind.version, kind.list_kind)
        if struct is not None:
            return self.add(struct, about)
        name = f"{component}List"
        self.found[name] = {
            "description": f"{kind.list_kind} is a list of {kind.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {
                **self._heads(),
                "metadata": {"allOf": [ref(self.add_named("meta.v1.ListMeta"))], "default": {}},
                "items": {"type": "array", "items": {"allOf": [ref(component)]}},
            },
            "x-kubernetes-group-version-kind": [about],
        }
        return name

    def add_named(self, name: str, about: dict[str, str] | None = None) -> str:
        return self.add(self._schemas.named(name), about)

    def add_response(self, group: str, version: str, kind: str) -> str | None:
        """The component of a kind that only subresources speak, None where the table lacks it."""
        struct = self._schemas.of(group, version, kind)
        return None if struct is None else self.add(struct, gvk(group, version, kind))

    def add(self, struct: Struct, about: dict[str, str] | None = None) -> str:
        name = _full_name(struct.name)
        if name not in self.found:
            described = self._described.get(struct.name, Described())
            made: dict[str, Any] = {"description": described.text} if described.text else {}
            made["type"] = "object"
            self.found[name] = made  # before its fields: types refer to themselves
            if struct.fields:
                made["properties"] = {each.name: self._field(each, described) for each in struct.fields.values()}
            required = [field.name for field in struct.fields.values() if field.required]
            if required:
                made["required"] = required
            if struct.atomic:
                made["x-kubernetes-map-type"] = "atomic"
        if about is None and struct.kind is not None:
            about = gvk(*struct.kind)
        if about is not None:
            known = self.found[name].setdefault("x-kubernetes-group-version-kind", [])
            if about not in known:
                known.append(about)
        return name

    def _field(self, field: Field, described: Described) -> dict[str, Any]:
        text = described.fields.get(field.name)
        made: dict[str, Any] = {"description": text} if text else {}
        shape = self._shape(field.shape)
        if "$ref" in shape:
            made["allOf"] = [shape]
            if field.shape.code == "@" and not field.pointer and _may_be_empty(field.shape):
                made["default"] = {}
        else:
            made |= shape
        values = described.values.get(field.name)
        if values and made.get("type") == "string":
            made["enum"] = values
        elif values and made.get("type") == "array":
            made["items"] = {**made["items"], "enum": values}
        if field.merge_key:
            made["x-kubernetes-patch-merge-key"] = field.merge_key
        if field.strategies:
            made["x-kubernetes-patch-strategy"] = ",".join(field.strategies)
        if field.list_type:
            made["x-kubernetes-list-type"] = field.list_type
        if field.map_keys:
            made["x-kubernetes-list-map-keys"] = list(field.map_keys)
        if field.atomic:
            made["x-kubernetes-map-type"] = "atomic"
        return made

    def _shape(self, shape: Shape) -> dict[str, Any]:
        if shape.code == "[" and shape.item is not None:
            return {"type": "array", "items": self._item(shape.item)}
        if shape.code == "{" and shape.item is not None:
            return {"type": "object", "additionalProperties": self._item(shape.item)}
        if shape.code == "@" and shape.struct is not None:
            return ref(self.add(shape.struct))
        if shape.code in _NAMED:
            table, name, made = _NAMED[shape.code]
            text = self._described.get(table, Described()).text
            self.found.setdefault(name, {"description": text, **made} if text else dict(made))
            return ref(name)
        return dict(_SCALARS.get(shape.code, _ANY))

    def _item(self, shape: Shape) -> dict[str, Any]:
        made = self._shape(shape)
        if shape.code != "@":
            return made
        return {"allOf": [made], "default": {}} if _may_be_empty(shape) else {"allOf": [made]}

    def _heads(self) -> dict[str, Any]:
        """`apiVersion` and `kind`, as every object has them."""
        said = self._described.get("core.v1.Pod", Described()).fields
        return {
            name: {"description": said[name], "type": "string"} if name in said else {"type": "string"}
            for name in ("apiVersion", "kind")
        }

    def _custom(self, kind: Kind, custom: Schema | None) -> dict[str, Any]:
        made: dict[str, Any] = dict(custom) if custom is not None else {**_ANY}
        made["type"] = "object"
        metadata: dict[str, Any] = {"allOf": [ref(self.add_named("meta.v1.ObjectMeta"))]}
        if text := self._described.get("core.v1.Pod", Described()).fields.get("metadata"):
            metadata["description"] = text
        properties = dict(made.get("properties") or {})
        made["properties"] = {**self._heads(), **properties, "metadata": metadata}
        made["x-kubernetes-group-version-kind"] = [gvk(kind.group, kind.version, kind.kind)]
        return made


def _may_be_empty(shape: Shape) -> bool:
    """Whether an empty object is a value: Kubernetes' documents name it as the default everywhere, which checkers refuse elsewhere."""
    return shape.struct is not None and not any(each.required for each in shape.struct.fields.values())


def _custom_name(kind: Kind) -> str:
    return f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
