"""OpenAPI v3 documents, one per group and version, made from the kinds and the schema table. Pure.

They are what `kubectl explain`, client-side validation, strategic merge in `kubectl apply` and the check for `fieldValidation` and
`dryRun` read. Descriptions aren't in the table and so not in the documents, but for those of custom resources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver import discovery, schema
from core.apiserver.schema import Field, Shape, Struct

__all__ = ["document", "index"]

Schema = Mapping[str, Any]

_PACKAGES = {
    "meta": "io.k8s.apimachinery.pkg.apis.",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.",
    "metrics": "io.k8s.metrics.pkg.apis.",
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
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
_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "t": (f"{_META}Time", {"type": "string", "format": "date-time"}),
    "T": (f"{_META}MicroTime", {"type": "string", "format": "date-time"}),
    "q": (_QUANTITY, {"oneOf": [{"type": "string"}, {"type": "number"}]}),
    "x": (_INT_OR_STRING, {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
}
_ANY: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


def index(kinds: Sequence[Kind], crd_schemas: Mapping[Kind, Schema] | None = None) -> dict[str, Any]:
    """The answer to `GET /openapi/v3`: the documents there are, each with a hash that changes when it does."""
    found: dict[str, Any] = {}
    for prefix, members in sorted(_by_prefix(kinds).items()):
        # What a document is made of stands for it: hashing the documents themselves would mean to make them all.
        source = [
            schema.load().version,
            [repr(each) for each in members],
            [(crd_schemas or {}).get(each) for each in members],
        ]
        digest = hashlib.sha256(msgspec.json.encode(source)).hexdigest()[:32].upper()
        found[prefix] = {"serverRelativeURL": f"/openapi/v3/{prefix}?hash={digest}"}
    return {"paths": found}


def _by_prefix(kinds: Sequence[Kind]) -> dict[str, list[Kind]]:
    found: dict[str, list[Kind]] = {}
    for each in kinds:
        found.setdefault(each.prefix.lstrip("/"), []).append(each)
    return found


def document(
    kinds: Sequence[Kind], group: str, version: str, crd_schemas: Mapping[Kind, Schema] | None = None
) -> dict[str, Any] | None:
    """The answer to `GET /openapi/v3/apis/GROUP/VERSION` (`/openapi/v3/api/v1`), None where no kind is in it.

    `crd_schemas` has the `openAPIV3Schema` of custom kinds; one without a schema may hold anything.
    """
    members = [each for each in kinds if (each.group, each.version) == (group, version)]
    if not members:
        return None
    components = _Components(schema.load())
    paths: dict[str, Any] = {}
    for each in members:
        own = components.add_kind(each, (crd_schemas or {}).get(each))
        paths.update(_paths(each, own, components))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{schema.load().version}.0"},
        "paths": paths,
        "components": {"schemas": dict(sorted(components.found.items()))},
    }


# Schemas


def _full_name(name: str) -> str:
    """`io.k8s.api.core.v1.Pod` of the table's `core.v1.Pod`."""
    return _PACKAGES.get(name.partition(".")[0], "io.k8s.api.") + name


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _gvk(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "kind": kind, "version": version}


class _Components:
    """The schemas that a document refers to, gathered as they are referred to."""

    def __init__(self, schemas: schema.Schemas) -> None:
        self.found: dict[str, Any] = {}
        self._schemas = schemas

    def add_kind(self, kind: Kind, custom: Schema | None) -> str:
        """The component name of a kind."""
        struct = self._schemas.struct(kind)
        if struct is not None and custom is None:
            return self.add(struct, _gvk(kind.group, kind.version, kind.kind))
        name = f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
        self.found[name] = self._custom(kind, custom)
        return name

    def add_named(self, name: str, group: str, version: str, kind: str) -> str:
        return self.add(self._schemas.named(name), _gvk(group, version, kind))

    def add_response(self, group: str, version: str, kind: str) -> str | None:
        """The component of a kind that only subresources speak, None where the table lacks it."""
        struct = self._schemas.of(group, version, kind)
        return None if struct is None else self.add(struct, _gvk(group, version, kind))

    def add(self, struct: Struct, gvk: dict[str, str] | None = None) -> str:
        name = _full_name(struct.name)
        if name not in self.found:
            made: dict[str, Any] = {"type": "object"}
            self.found[name] = made  # before its fields: types refer to themselves
            if struct.fields:
                made["properties"] = {field.name: self._field(field) for field in struct.fields.values()}
            required = [field.name for field in struct.fields.values() if field.required]
            if required:
                made["required"] = required
            if struct.atomic:
                made["x-kubernetes-map-type"] = "atomic"
        if gvk is None and struct.kind is not None:
            gvk = _gvk(*struct.kind)
        if gvk is not None:
            known = self.found[name].setdefault("x-kubernetes-group-version-kind", [])
            if gvk not in known:
                known.append(gvk)
        return name

    def _field(self, field: Field) -> dict[str, Any]:
        made = self._shape(field.shape)
        if "$ref" in made:
            made = {"allOf": [made]}
            if field.shape.code == "@" and not field.pointer:
                made["default"] = {}
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
            return _ref(self.add(shape.struct))
        if shape.code in _NAMED:
            name, made = _NAMED[shape.code]
            self.found.setdefault(name, dict(made))
            return _ref(name)
        return dict(_SCALARS.get(shape.code, _ANY))

    def _item(self, shape: Shape) -> dict[str, Any]:
        made = self._shape(shape)
        return {"allOf": [made], "default": {}} if "$ref" in made and shape.code == "@" else made

    def _custom(self, kind: Kind, custom: Schema | None) -> dict[str, Any]:
        made: dict[str, Any] = dict(custom) if custom is not None else {**_ANY}
        made["type"] = "object"
        metadata = {"allOf": [_ref(self.add(self._schemas.named("meta.v1.ObjectMeta")))]}
        properties = dict(made.get("properties") or {})
        made["properties"] = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            **properties,
            "metadata": metadata,
        }
        made["x-kubernetes-group-version-kind"] = [_gvk(kind.group, kind.version, kind.kind)]
        return made


# Paths


def _query(name: str, type_: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}


_LIST = [
    _query("allowWatchBookmarks", "boolean"), _query("continue"), _query("fieldSelector"), _query("labelSelector"),
    _query("limit", "integer"), _query("resourceVersion"), _query("resourceVersionMatch"), _query("sendInitialEvents", "boolean"),
    _query("timeoutSeconds", "integer"), _query("watch", "boolean"),
]  # fmt: skip
_WRITE = [_query("dryRun"), _query("fieldManager"), _query("fieldValidation")]
_DELETE = [
    _query("dryRun"), _query("gracePeriodSeconds", "integer"), _query("orphanDependents", "boolean"), _query("propagationPolicy"),
]  # fmt: skip
_PATCH_TYPES = (
    "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)  # fmt: skip
_METHODS = {
    "list": ("get", _LIST), "create": ("post", _WRITE), "deletecollection": ("delete", [*_DELETE, *_LIST]), "get": ("get", []),
    "update": ("put", _WRITE), "patch": ("patch", [*_WRITE, _query("force", "boolean")]), "delete": ("delete", _DELETE),
}  # fmt: skip
_ACTIONS = {"create": "post", "update": "put"}


def _operation(
    verb: str, gvk: dict[str, str], component: str | None, name: str, components: _Components
) -> dict[str, Any]:
    answer = {"application/json": {"schema": _ref(component)}} if component else {"*/*": {"schema": {"type": "string"}}}
    found: dict[str, Any] = {
        "operationId": name,
        "parameters": _METHODS[verb][1],
        "responses": {"200": {"description": "OK", "content": answer}},
        "x-kubernetes-action": _ACTIONS.get(verb, verb),
        "x-kubernetes-group-version-kind": gvk,
    }
    if verb in ("create", "update") and component:
        found["requestBody"] = {"content": {"*/*": {"schema": _ref(component)}}, "required": True}
    elif verb == "patch":
        body = {"schema": {"type": "object"}}
        # `kubectl apply` sends a strategic merge where it is offered; only built-in types have its merge keys.
        built_in = schema.load().of(gvk["group"], gvk["version"], gvk["kind"]) is not None
        types = [each for each in _PATCH_TYPES if built_in or "strategic" not in each]
        found["requestBody"] = {"content": dict.fromkeys(types, body), "required": True}
    elif verb in ("delete", "deletecollection"):
        options = components.add_named("meta.v1.DeleteOptions", gvk["group"], gvk["version"], "DeleteOptions")
        found["requestBody"] = {"content": {"*/*": {"schema": _ref(options)}}}
    return found


def _paths(kind: Kind, component: str, components: _Components) -> Iterator[tuple[str, dict[str, Any]]]:
    gvk = _gvk(kind.group, kind.version, kind.kind)
    space = [_in_path("namespace")] if kind.namespaced else []
    root = kind.path("{namespace}" if kind.namespaced else "")

    def path(
        verbs: Sequence[str], allowed: Sequence[str], label: str, about: dict[str, str], answers: str | None
    ) -> dict[str, Any]:
        return {
            _METHODS[verb][0]: _operation(verb, about, answers, f"{verb}{label}{kind.kind}", components)
            for verb in verbs
            if verb in allowed
        }

    collection = path(("list", "create", "deletecollection"), kind.verbs, "Collection", gvk, component)
    if collection:
        yield root, {**collection, "parameters": space}
    if kind.namespaced and "list" in kind.verbs:
        yield kind.path(), path(("list",), kind.verbs, "AllNamespaces", gvk, component)
    items = path(("get", "update", "patch", "delete"), kind.verbs, "", gvk, component)
    if items:
        yield f"{root}/{{name}}", {**items, "parameters": [*space, _in_path("name")]}
    for name in kind.subresources:
        about = discovery.subresource_kind(kind, name)
        answers = component if about == (kind.group, kind.version, kind.kind) else components.add_response(*about)
        verbs = discovery.subresource_verbs(kind, name)
        found = path(("get", "create", "update", "patch"), verbs, name.capitalize(), _gvk(*about), answers)
        if found:
            yield f"{root}/{{name}}/{name}", {**found, "parameters": [*space, _in_path("name")]}
