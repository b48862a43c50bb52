"""The rules that a CustomResourceDefinition keeps: names, versions, structural schemas. Pure; says what is wrong as causes.

What this server doesn't do is refused rather than passed over: CEL rules (`x-kubernetes-validations`) and conversion webhooks.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from core.apiserver.crd_values import compile_pattern
from core.apiserver.jsonpath import JsonPath
from core.errors import cause

__all__ = ["check_definition"]

Causes = list[dict[str, str]]

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TYPES = frozenset(("array", "boolean", "integer", "number", "object", "string"))
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
_FORBIDDEN = ("$ref", "definitions", "dependencies", "patternProperties", "id", "additionalItems")
_SKELETON = (
    "type", "default", "additionalProperties", "nullable", "description", "title", "example", "externalDocs",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
)  # fmt: skip
"""What only the structure may have, not the schemas under allOf, anyOf, oneOf and not."""


def _required(field: str, text: str = "") -> dict[str, str]:
    return cause("FieldValueRequired", f"Required value: {text}" if text else "Required value", field)


def _invalid(field: str, value: Any, text: str) -> dict[str, str]:
    return cause("FieldValueInvalid", f"Invalid value: {msgspec.json.encode(value).decode()}: {text}", field)


def _forbidden(field: str, text: str) -> dict[str, str]:
    return cause("FieldValueForbidden", f"Forbidden: {text}", field)


def _unsupported(field: str, value: Any, allowed: tuple[str, ...]) -> dict[str, str]:
    listed = ", ".join(f'"{each}"' for each in allowed)
    shown = msgspec.json.encode(value).decode()
    return cause("FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {listed}", field)


def check_definition(document: dict[str, Any]) -> list[dict[str, str]]:
    """The causes for which a CustomResourceDefinition (of the right types already) is invalid; empty where it is good."""
    found: Causes = []
    spec = document.get("spec") or {}
    _check_names(document, spec, found)
    _check_versions(spec, found)
    conversion = spec.get("conversion") or {}
    strategy = conversion.get("strategy", "None")
    if strategy == "Webhook" or conversion.get("webhook"):
        found.append(_forbidden("spec.conversion.strategy", "conversion webhooks are not supported by this server"))
    elif strategy != "None":
        found.append(_unsupported("spec.conversion.strategy", strategy, ("None",)))
    if spec.get("preserveUnknownFields"):
        text = "must be false in order to use defaults in the schema; say x-kubernetes-preserve-unknown-fields in the schema instead"
        found.append(_invalid("spec.preserveUnknownFields", True, text))
    return found


def _check_names(document: dict[str, Any], spec: dict[str, Any], found: Causes) -> None:
    group, names = spec.get("group") or "", spec.get("names") or {}
    plural, name = names.get("plural") or "", (document.get("metadata") or {}).get("name") or ""
    if not group:
        found.append(_required("spec.group"))
    elif not _SUBDOMAIN.fullmatch(group) or "." not in group:
        found.append(_invalid("spec.group", group, "should be a domain with at least one dot"))
    if plural and group and name != f"{plural}.{group}":
        found.append(_invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    for field in ("plural", "kind"):
        if not names.get(field):
            found.append(_required(f"spec.names.{field}"))
    single = {field: names[field] for field in ("plural", "singular") if names.get(field)}
    for field in ("kind", "listKind"):
        if names.get(field):
            single[field] = names[field].lower()
    for list_field in ("shortNames", "categories"):
        single.update({f"{list_field}[{index}]": each for index, each in enumerate(names.get(list_field) or ())})
    for field, text in single.items():
        if not _LABEL.fullmatch(text):
            found.append(
                _invalid(
                    f"spec.names.{field}",
                    text,
                    "a DNS-1035 label must consist of lower case alphanumeric characters or '-'",
                )
            )
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        found.append(_invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    if not spec.get("scope"):
        found.append(_required("spec.scope"))
    elif spec["scope"] not in ("Cluster", "Namespaced"):
        found.append(_unsupported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))


def _check_versions(spec: dict[str, Any], found: Causes) -> None:
    versions = spec.get("versions") or []
    if not versions:
        found.append(_required("spec.versions"))
        return
    names: set[str] = set()
    for index, each in enumerate(versions):
        path, name = f"spec.versions[{index}]", each.get("name") or ""
        if not _LABEL.fullmatch(name):
            found.append(
                _invalid(
                    f"{path}.name", name, "a DNS-1035 label must consist of lower case alphanumeric characters or '-'"
                )
            )
        if name in names:
            found.append(cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
        names.add(name)
        schema = (each.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(_required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            _check_root(schema, f"{path}.schema.openAPIV3Schema", found)
        _check_columns(each.get("additionalPrinterColumns") or (), f"{path}.additionalPrinterColumns", found)
        _check_scale((each.get("subresources") or {}).get("scale"), f"{path}.subresources.scale", found)
    if sum(bool(each.get("storage")) for each in versions) != 1:
        listed = [each.get("name") for each in versions]
        found.append(_invalid("spec.versions", listed, "must have exactly one version marked as storage version"))


def _check_columns(columns: Any, path: str, found: Causes) -> None:
    for index, each in enumerate(columns):
        here = f"{path}[{index}]"
        if not each.get("name"):
            found.append(_required(f"{here}.name"))
        if each.get("type") not in _COLUMN_TYPES:
            found.append(_unsupported(f"{here}.type", each.get("type", ""), _COLUMN_TYPES))
        if not each.get("jsonPath"):
            found.append(_required(f"{here}.jsonPath"))
            continue
        try:
            JsonPath(each["jsonPath"])
        except ValueError as error:
            found.append(_invalid(f"{here}.jsonPath", each["jsonPath"], str(error)))


def _check_scale(scale: Any, path: str, found: Causes) -> None:
    if scale is None:
        return
    for field, below in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(field) or ""
        if not value:
            found.append(_required(f"{path}.{field}"))
        elif not value.startswith(below):
            found.append(_invalid(f"{path}.{field}", value, f"should be a json path under {below.rstrip('.')}"))


# Structural schemas


def _check_root(schema: Any, path: str, found: Causes) -> None:
    if type(schema) is not dict:
        found.append(_invalid(path, schema, "must be a schema"))
        return
    if schema.get("type") != "object":
        found.append(_invalid(f"{path}.type", schema.get("type", ""), "must be object at the root"))
    for flag in ("nullable", "x-kubernetes-embedded-resource"):
        if schema.get(flag):
            found.append(_forbidden(f"{path}.{flag}", "must not be set at the root"))
    metadata = (schema.get("properties") or {}).get("metadata")
    if type(metadata) is dict and not set(metadata) <= {"type", "properties", "description"}:
        found.append(
            _forbidden(
                f"{path}.properties[metadata]",
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            )
        )
    _check_schema(schema, path, found, structural=True)


def _check_schema(schema: Any, path: str, found: Causes, *, structural: bool) -> None:
    """The rules of one schema and of those below it; `structural` where it is part of the skeleton."""
    if type(schema) is not dict:
        found.append(_invalid(path, schema, "must be a schema"))
        return
    _check_keywords(schema, path, found)
    if structural:
        _check_skeleton(schema, path, found)
    else:
        for key in _SKELETON:
            allowed = key == "type" and schema.get("type") in ("integer", "string")
            if schema.get(key) is not None and not allowed:
                found.append(_forbidden(f"{path}.{key}", "must be empty to be structural"))
    for key, each in (schema.get("properties") or {}).items():
        _check_schema(each, f"{path}.properties[{key}]", found, structural=structural)
    for key in ("items", "additionalProperties"):
        if type(schema.get(key)) is dict:
            _check_schema(schema[key], f"{path}.{key}", found, structural=structural)
    for key in ("allOf", "anyOf", "oneOf"):
        for index, each in enumerate(schema.get(key) or ()):
            _check_schema(each, f"{path}.{key}[{index}]", found, structural=False)
    if schema.get("not") is not None:
        _check_schema(schema["not"], f"{path}.not", found, structural=False)


def _check_keywords(schema: dict[str, Any], path: str, found: Causes) -> None:
    for key in _FORBIDDEN:
        if schema.get(key):
            found.append(_forbidden(f"{path}.{key}", f"{key} is not supported"))
    if schema.get("uniqueItems"):
        found.append(
            _forbidden(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    if schema.get("multipleOf") is not None and schema["multipleOf"] <= 0:
        found.append(_invalid(f"{path}.multipleOf", schema["multipleOf"], "must be greater than 0"))
    if schema.get("x-kubernetes-validations"):
        found.append(
            _forbidden(f"{path}.x-kubernetes-validations", "CEL validation rules are not supported by this server")
        )
    if schema.get("pattern"):
        try:
            compile_pattern(schema["pattern"])
        except ValueError as error:
            found.append(
                _invalid(
                    f"{path}.pattern", schema["pattern"], f"must be a valid regular expression, but isn't: {error}"
                )
            )


def _check_skeleton(schema: dict[str, Any], path: str, found: Causes) -> None:
    kind = schema.get("type")
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind is None or kind == "":
        if not free:
            found.append(_required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind not in _TYPES:
        found.append(_unsupported(f"{path}.type", kind, tuple(sorted(_TYPES))))
    elif schema.get("x-kubernetes-int-or-string"):
        found.append(_invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true"))
    if schema.get("properties") and schema.get("additionalProperties"):
        found.append(
            _forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if kind == "array":
        if type(schema.get("items")) is list:
            found.append(_forbidden(f"{path}.items", "items must be a schema object and not an array"))
        elif schema.get("items") is None:
            found.append(_required(f"{path}.items", "must be specified"))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        text = "must be true or undefined"
        found.append(_invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, text))
    if schema.get("x-kubernetes-embedded-resource") and kind != "object":
        found.append(_invalid(f"{path}.type", kind, "must be object if x-kubernetes-embedded-resource is true"))
    _check_list_type(schema, path, found)


def _check_list_type(schema: dict[str, Any], path: str, found: Causes) -> None:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if list_type is None:
        if keys:
            found.append(_forbidden(f"{path}.x-kubernetes-list-map-keys", "needs x-kubernetes-list-type map"))
        return
    if list_type not in ("atomic", "set", "map"):
        found.append(_unsupported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map")))
    if schema.get("type") != "array":
        found.append(
            _invalid(f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified")
        )
    if list_type != "map":
        return
    if not keys:
        found.append(
            _required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        )
    items: dict[str, Any] = schema["items"] if type(schema.get("items")) is dict else {}
    for index, key in enumerate(keys):
        prop = (items.get("properties") or {}).get(key)
        if type(prop) is not dict:
            text = "entries must all be names of item properties"
            found.append(_invalid(f"{path}.x-kubernetes-list-map-keys[{index}]", key, text))
        elif "default" not in prop and key not in (items.get("required") or ()):
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            found.append(_required(f"{path}.items.properties[{key}].default", text))
