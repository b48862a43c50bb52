"""Failures and successes in Kubernetes' words: the messages, details and causes of `metav1.Status`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    Timeout,
    cause,
)
from core.store.base import Compacted, FutureRevision, StoreError

__all__ = [
    "MODIFIED", "GoValue", "already_exists", "conflict", "duplicate", "forbidden", "from_store", "immutable", "invalid", "invalid_value",
    "method_not_allowed", "no_resource", "not_found", "not_supported", "required", "success", "too_large_version", "unknown_value",
]  # fmt: skip

Cause = dict[str, str]

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_encode = msgspec.json.encode


def _details(kind: Kind, name: str) -> dict[str, Any]:
    found = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in found.items() if value}


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    return AlreadyExists(f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = MODIFIED, subresource: str = "") -> Conflict:
    resource = (
        f"{kind.plural}/{subresource}" + (f".{kind.group}" if kind.group else "") if subresource else kind.resource
    )
    return Conflict(f'Operation cannot be fulfilled on {resource} "{name}": {why}', _details(kind, name))


def no_resource() -> NotFound:
    return NotFound(
        "the server could not find the requested resource",
        {"causes": [cause("UnexpectedServerResponse", "404 page not found")]},
    )


def method_not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource")


def too_large_version(asked: int, current: int) -> Timeout:
    return Timeout(
        f"Too large resource version: {asked}, current: {current}",
        {"causes": [cause("ResourceVersionTooLarge", "Too large resource version")], "retryAfterSeconds": 1},
    )


def from_store(error: StoreError) -> ApiError:
    """What a store's failure means to a client."""
    if isinstance(error, Compacted):
        return Expired(f"The resourceVersion for the provided list or watch is too old: {error}")
    if isinstance(error, FutureRevision):
        return too_large_version(0, error.current)
    if type(error).__name__ in ("StoreUnavailable", "StoreClosed"):
        return ServiceUnavailable(f"the store can't take the request now: {error}", {"retryAfterSeconds": 1})
    return InternalError(f"Internal error occurred: {error}")


# Causes of a 422. Their wording is that of k8s.io/apimachinery/pkg/util/validation/field.


class GoValue(str):
    """A value that is written as it stands: the form that Go gives to a struct."""

    __slots__ = ()


def _shown(value: Any) -> str:
    """As Go's `%v`, `%q` or `%#v` would, which is what Kubernetes' messages hold."""
    if isinstance(value, GoValue):
        return str(value)
    if isinstance(value, dict) and all(type(each) is str for each in value.values()):
        return (
            "map[string]string{"
            + ", ".join(f"{_shown(key)}:{_shown(each)}" for key, each in sorted(value.items()))
            + "}"
        )
    if isinstance(value, list) and all(type(each) is str for each in value):
        return "[]string{" + ", ".join(_shown(each) for each in value) + "}"
    return _encode(value).decode()


def required(field: str, detail: str = "") -> Cause:
    return cause("FieldValueRequired", f"Required value: {detail}" if detail else "Required value", field)


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    return cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}", field)


def immutable(field: str, value: Any) -> Cause:
    return invalid_value(field, value, "field is immutable")


def forbidden(field: str, detail: str) -> Cause:
    return cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def duplicate(field: str, value: Any) -> Cause:
    return cause("FieldValueDuplicate", f"Duplicate value: {_shown(value)}", field)


def unknown_value(field: str, value: Any) -> Cause:
    """A name that refers to nothing."""
    return cause("FieldValueNotFound", f"Not found: {_shown(value)}", field)


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    known = ", ".join(f'"{each}"' for each in supported)
    return cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {known}", field)


def invalid(kind: Kind, name: str, causes: list[Cause]) -> Invalid:
    """`Pod "x" is invalid: spec.containers: Required value`."""
    texts = [f"{each['field']}: {each['message']}" if each.get("field") else each["message"] for each in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
    return Invalid(f'{qualified} "{name}" is invalid: {text}', {key: value for key, value in details.items() if value})


def success(kind: Kind, name: str, uid: str = "") -> bytes:
    """The reply to a deletion that removed the object."""
    details = _details(kind, name)
    if uid:
        details["uid"] = uid
    return _encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
