"""The CustomResourceDefinition of Function, as the document that launch (or `kubectl apply`) sends.

The schema is loose on purpose: it holds what an API server must know to store a Function without losing a field,
`faaslite.api.function` says the rest with better messages.
"""

from __future__ import annotations

from typing import Any

from faaslite.api.names import FUNCTION

__all__ = ["function_definition"]

_ANY: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}
_DURATION: dict[str, Any] = {"description": "30s, 1m30s, or a number of seconds", **_ANY}


def _object(properties: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", **extra}
    if properties is not None:
        found["properties"] = properties
    return found


def _list(items: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **extra}


_SPEC = _object(
    {
        "runtime": {"type": "string", "description": "python, node or image; a version may follow: python3.12, node20"},
        "handler": _TEXT,
        "image": _TEXT,
        "package": _object({"digest": _TEXT, "layer": _TEXT, "requirements": _TEXT}),
        "env": _list(_object(**_ANY)),
        "envFrom": _list(_object(**_ANY)),
        "secrets": _list(_TEXT),
        "resources": _object(**_ANY),
        "concurrency": _NUMBER,
        "timeout": _DURATION,
        "scale": _object(**_ANY),
        "http": _object(**_ANY),
        "cron": _list(_object(**_ANY)),
        "async": _object({"weight": {"type": "number", "minimum": 0.01, "maximum": 100}}, **_ANY),
        "traffic": _list(_object(**_ANY)),
    },
    **_ANY,
)

_CONDITION = _object(
    {
        "type": _TEXT,
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": _TEXT,
        "message": _TEXT,
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": _NUMBER,
    },
    required=["type", "status"],
)

_STATUS = _object(
    {
        "url": _TEXT,
        "observedGeneration": _NUMBER,
        "latestCreatedRevision": _TEXT,
        "latestReadyRevision": _TEXT,
        "replicas": _NUMBER,
        "conditions": _list(_CONDITION),
        "traffic": _list(
            _object(
                {
                    "revision": _TEXT,
                    "percent": _NUMBER,
                    "concurrency": _NUMBER,
                    "timeout": {"type": "number"},
                    "tags": _list(_TEXT),
                },
                **_ANY,
            )
        ),
        "revisions": _list(_object({"revision": _TEXT, "concurrency": _NUMBER, "timeout": {"type": "number"}}, **_ANY)),
        "build": _object({"key": _TEXT, "asked": _TEXT, "pod": _TEXT}, **_ANY),
        "layers": _list(_object({"key": _TEXT, "digest": _TEXT}, **_ANY)),
        "keys": _list(_object({"name": _TEXT, "hash": _TEXT, "expires": {"type": "number"}}, **_ANY)),
    },
    **_ANY,
)


def _column(name: str, kind: str, path: str, priority: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        found["priority"] = priority
    return found


def function_definition() -> dict[str, Any]:
    """A fresh document; the caller may change it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{FUNCTION.plural}.{FUNCTION.group}"},
        "spec": {
            "group": FUNCTION.group,
            "scope": "Namespaced",
            "names": {
                "kind": FUNCTION.kind,
                "listKind": FUNCTION.list_kind,
                "plural": FUNCTION.plural,
                "singular": FUNCTION.singular,
                "shortNames": list(FUNCTION.short_names),
                "categories": list(FUNCTION.categories),
            },
            "versions": [
                {
                    "name": FUNCTION.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _object({"spec": _SPEC, "status": _STATUS})},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
                        _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1),
                        _column("Healthy", "string", '.status.conditions[?(@.type=="Healthy")].reason', 1),
                        _column("URL", "string", ".status.url"),
                        _column("Replicas", "integer", ".status.replicas"),
                        _column("Revision", "string", ".status.latestReadyRevision"),
                        _column("Age", "date", ".metadata.creationTimestamp"),
                    ],
                }
            ],
        },
    }
