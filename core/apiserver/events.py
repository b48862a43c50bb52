"""Watch events on the wire: a line of JSON each, encoded once per form and shared by all watchers."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver.forms import Form, render_object
from core.apiserver.registry.generic import Registry
from core.apiserver.watch import Change
from core.errors import ApiError

__all__ = ["bookmark", "error_line", "line"]

_encode = msgspec.json.encode
_LINE = b'{"type":"%s","object":%s}\n'


def bookmark(kind: Kind, change: Change, form: Form) -> bytes:
    """The object of a BOOKMARK: nothing but a revision, and the end of the initial events where it says that."""
    metadata: dict[str, Any] = {"resourceVersion": str(change.entry.revision), "creationTimestamp": None}
    if change.initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    if form.name == "Table":
        return _encode(
            {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": None,
                "rows": [],
            }
        )
    if form.name:
        return _encode({"kind": form.name, "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    return _encode({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata})


def line(registry: Registry, change: Change, form: Form, headers: bool) -> bytes:
    """`headers`: a Table's column definitions, for the first event of a watch."""
    entry = change.entry
    if change.type == "BOOKMARK":
        return _LINE % (b"BOOKMARK", bookmark(registry.kind, change, form))

    def make() -> bytes:
        return _LINE % (change.type.encode(), render_object(registry.codec, entry, form, registry.columns, headers))

    # A revision is one write of one object; the kind's version and the form say how it is shown.
    kind = registry.kind
    at = (entry.revision, change.type, kind.group, kind.version, registry.codec.since, form.name and (form, headers))
    return registry.cache.event(at, make)


def error_line(error: ApiError) -> bytes:
    return _LINE % (b"ERROR", _encode(error.status()))
