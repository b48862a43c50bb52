"""Custom resources by the schema of their CustomResourceDefinition: pruned, defaulted, validated, in that order.

Structural schemas (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema):
what is kept and defaulted follows from the skeleton of properties, items and additionalProperties alone; the rest only validates.
`crd_values.py` has the validations of a value, `crd_check.py` the rules that a definition itself keeps.
"""

from __future__ import annotations

from typing import Any

from core.apiserver import schema
from core.apiserver.crd_check import check_definition
from core.apiserver.crd_values import Values, quoted_key
from core.apiserver.patch_merge import clone
from core.apiserver.shapes import Mismatch
from core.errors import BadRequest, Invalid, cause

__all__ = ["CustomSchema", "validate_crd"]

_OBJECT_KEYS = frozenset(("apiVersion", "kind", "metadata"))


def validate_crd(document: dict[str, Any]) -> list[dict[str, str]]:
    """The causes for which a CustomResourceDefinition is invalid; empty where it is good.

    `document` has been through `Schemas.validate`, so that its values are of the right types.
    """
    causes = check_definition(document)
    if not causes:
        for index, version in enumerate(document["spec"]["versions"]):
            raw = version["schema"]["openAPIV3Schema"]
            _Node(raw).check_defaults(f"spec.versions[{index}].schema.openAPIV3Schema", causes)
    return causes


class CustomSchema:
    """The compiled `openAPIV3Schema` of one version of a custom kind. None stands for a schema that allows anything."""

    def __init__(self, openAPIV3Schema: dict[str, Any] | None) -> None:
        raw = openAPIV3Schema if openAPIV3Schema is not None else {"x-kubernetes-preserve-unknown-fields": True}
        self._root = _Node(raw)
        self._root.embedded = True

    @property
    def has_defaults(self) -> bool:
        return self._root.has_defaults

    def shape(self, document: dict[str, Any]) -> dict[str, Any]:
        """A copy of a document that was stored, pruned and defaulted."""
        found: dict[str, Any] = self._root.shape(document, "", [])
        return found

    def prune_default_validate(self, document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A copy of `document` as it is stored, and a message for each field that was dropped (`unknown field "spec.foo"`).

        Raises Invalid with all that is wrong with its values, and BadRequest for malformed metadata.
        """
        if type(document) is not dict:
            raise BadRequest("the object provided is unrecognized: a custom resource is an object")
        unknown: list[str] = []
        found: dict[str, Any] = self._root.shape(document, "", unknown)
        causes: list[dict[str, str]] = []
        self._root.validate(found, "", causes)
        if causes:
            raise _invalid(found, causes)
        return found, [f'unknown field "{path}"' for path in unknown]


def _invalid(document: dict[str, Any], causes: list[dict[str, str]]) -> Invalid:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    kind = str(document.get("kind", ""))
    metadata = document.get("metadata")
    name = metadata.get("name", "") if type(metadata) is dict else ""
    shown = [f"{each['field']}: {each['message']}" if each.get("field") else each["message"] for each in causes]
    text = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    return Invalid(
        f'{kind}.{group} "{name}" is invalid: {text}', {"name": name, "group": group, "kind": kind, "causes": causes}
    )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Node:
    """One schema of the skeleton: where it leads, what it keeps, what it defaults, and the validations at its place."""

    __slots__ = (
        "any_value",
        "default",
        "embedded",
        "has_default",
        "items",
        "more",
        "nullable",
        "preserve",
        "properties",
        "values",
    )

    def __init__(self, raw: dict[str, Any]) -> None:
        self.properties = {key: _Node(each) for key, each in (raw.get("properties") or {}).items()}
        more = raw.get("additionalProperties")
        self.more = _Node(more) if type(more) is dict else None
        self.items = _Node(raw["items"]) if type(raw.get("items")) is dict else None
        self.embedded = raw.get("x-kubernetes-embedded-resource") is True
        self.preserve = raw.get("x-kubernetes-preserve-unknown-fields") is True or more is True
        self.any_value = self.preserve and not self.properties and self.items is None and self.more is None
        self.nullable = raw.get("nullable") is True
        self.has_default = "default" in raw
        self.default = raw.get("default")
        self.values = Values(raw)

    @property
    def has_defaults(self) -> bool:
        """Here or below."""
        below = (*self.properties.values(), *(each for each in (self.items, self.more) if each is not None))
        return self.has_default or any(each.has_defaults for each in below)

    def shape(self, value: Any, path: str, unknown: list[str]) -> Any:
        """A copy of `value` pruned and defaulted."""
        if type(value) is dict:
            return self._shape_object(value, path, unknown)
        if type(value) is list:
            item = self.items
            if item is None:
                return clone(value)
            return [item.shape(each, f"{path}[{index}]", unknown) for index, each in enumerate(value)]
        return value

    def _shape_object(self, value: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
        if self.any_value and not self.embedded:
            copied: dict[str, Any] = clone(value)
            return copied
        found: dict[str, Any] = {}
        for key, each in value.items():
            node = self.properties.get(key, self.more)
            if self.embedded and key in _OBJECT_KEYS:
                found[key] = _metadata(each, _join(path, key), unknown) if key == "metadata" else each
            elif node is None:
                if self.preserve:
                    found[key] = clone(each)
                else:
                    unknown.append(_join(path, key))
            elif each is not None or node.nullable:
                found[key] = node.shape(
                    each, _join(path, key) if key in self.properties else f"{path}{quoted_key(key)}", unknown
                )
        for key, node in self.properties.items():
            if node.has_default and key not in found:
                found[key] = node.shape(node.default, _join(path, key), [])
        return found

    def check_defaults(self, path: str, causes: list[dict[str, str]]) -> None:
        """Add what is wrong with the defaults here and below: each must be good by the schema that it stands in."""
        if self.has_default:
            unknown: list[str] = []
            found = self.shape(self.default, "", unknown)
            here = f"{path}.default"
            causes += [cause("FieldValueInvalid", f'Invalid value: unknown field "{each}"', here) for each in unknown]
            self.validate(found, here, causes)
        for key, node in self.properties.items():
            node.check_defaults(f"{path}.properties[{key}]", causes)
        if self.items is not None:
            self.items.check_defaults(f"{path}.items", causes)
        if self.more is not None:
            self.more.check_defaults(f"{path}.additionalProperties", causes)

    def validate(self, value: Any, path: str, causes: list[dict[str, str]]) -> None:
        """Add what is wrong with `value` and with what is in it."""
        if value is None and self.nullable:
            return
        if not self.values.check(value, path, causes):
            return
        if type(value) is dict:
            for key, each in value.items():
                node = self.properties.get(key)
                if node is not None:
                    node.validate(each, _join(path, key), causes)
                elif self.more is not None:
                    self.more.validate(each, f"{path}{quoted_key(key)}" if path else key, causes)
        elif type(value) is list and self.items is not None:
            for index, each in enumerate(value):
                self.items.validate(each, f"{path}[{index}]", causes)


def _metadata(value: Any, path: str, unknown: list[str]) -> Any:
    """Metadata is of a known type whatever the schema says of it."""
    if value is None:
        return {}
    mine: list[str] = []
    try:
        if type(value) is not dict:
            raise Mismatch(value, "v1.ObjectMeta")
        found = schema.load().named("meta.v1.ObjectMeta").walk(value, mine)
    except Mismatch as error:
        error.path.append(path)
        raise BadRequest(f"the object provided is unrecognized: {error.message()}") from error
    unknown += [f"{path}.{each}" for each in mine]
    return found
