"""The OpenAPI 3.1 document of a function, from its handler's types."""

from __future__ import annotations

import inspect
from typing import Any

from .kinds import MISSING, Unsupported, kind_of
from .settings import Settings
from .typed import Typed

__all__ = ["describe"]

_ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "message": {"type": "string"},
        "callId": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object", "properties": {"loc": {"type": "array"}, "message": {"type": "string"}}}},
    },
    "required": ["error", "message", "callId"],
}  # fmt: skip


def describe(settings: Settings, handler: Any, typed: Typed | None) -> dict[str, Any]:
    """The document. An application that makes its own (`app.openapi()`, as FastAPI's do) is asked for it."""
    own = getattr(handler, "openapi", None)
    name = settings.function or "function"
    server = f"/function/{name}" + (f".{settings.namespace}" if settings.namespace else "")
    if typed is None and callable(own):
        found = own()
        if isinstance(found, dict):
            return {**found, "servers": [{"url": server}]}
    definitions: dict[str, Any] = {"Error": _ERROR}
    declared = getattr(handler, "declaration", {})
    methods = [str(each).lower() for each in _texts(declared.get("methods"))]
    operation = _operation(typed, definitions, name)
    doc = inspect.getdoc(handler) if inspect.isroutine(handler) else None
    if doc:
        summary, _, rest = doc.partition("\n")
        operation["summary"] = summary
        if rest.strip():
            operation["description"] = rest.strip()
    for method in methods or ["post" if typed is None or "requestBody" in operation or typed.values else "get"]:
        if method != "post":
            operation.setdefault("operationId", name)
    operations = {
        method: {**operation, "operationId": f"{method}_{name}" if len(methods) > 1 else name}
        for method in methods
        or (["get", "post"] if typed is None else ["post" if "requestBody" in operation else "get"])
    }
    if len(operations) > 1:
        for method, each in operations.items():
            each["operationId"] = f"{method}_{name}"
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": settings.revision or "0"},
        "servers": [{"url": server}],
        "paths": {"/": operations},
        "components": {"schemas": definitions},
    }


def _texts(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def _operation(typed: Typed | None, definitions: dict[str, Any], name: str) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    responses: dict[str, Any] = {"default": {"description": "It failed.", **error}}
    if typed is None:
        responses["200"] = {"description": "What the function returns.", "content": {"*/*": {}}}
        return {"operationId": name, "responses": responses}
    responses["422"] = {"description": "The arguments are not valid.", **error}
    responses["200"] = _success(typed, definitions)
    operation: dict[str, Any] = {"operationId": name, "responses": responses}
    parameters = []
    for each in typed.values:
        assert each.kind is not None
        schema = each.kind.schema(definitions)
        if isinstance(each.default, (str, int, float, bool)):
            schema["default"] = each.default
        parameters.append({"name": each.name, "in": "query", "required": each.required, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    body = _body(typed, definitions)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _body(typed: Typed, definitions: dict[str, Any]) -> dict[str, Any] | None:
    roles = {each.role for each in typed.parameters}
    if "cloudevent" in roles:
        return {
            "required": True,
            "content": {"application/cloudevents+json": {"schema": {"type": "object"}}, "*/*": {}},
        }
    if "raw" in roles:
        return {"required": True, "content": {"*/*": {}}}
    if not typed.bodies:
        return None
    if len(typed.bodies) == 1:
        kind = typed.bodies[0].kind
        assert kind is not None
        schema, required = kind.schema(definitions), typed.bodies[0].required
    else:
        properties = {each.name: each.kind.schema(definitions) for each in typed.bodies if each.kind is not None}
        needed = [each.name for each in typed.bodies if each.required]
        schema, required = {"type": "object", "properties": properties, "required": needed}, bool(needed)
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _success(typed: Typed, definitions: dict[str, Any]) -> dict[str, Any]:
    if typed.returns is MISSING or typed.returns is Any:
        return {"description": "What the function returns.", "content": {"*/*": {}}}
    if typed.returns in (str, bytes):
        return {
            "description": "What the function returns.",
            "content": {"text/plain" if typed.returns is str else "application/octet-stream": {}},
        }
    try:
        schema = kind_of(typed.returns).schema(definitions)
    except Unsupported:
        return {"description": "What the function returns.", "content": {"*/*": {}}}
    return {"description": "What the function returns.", "content": {"application/json": {"schema": schema}}}
