"""Tables (`meta.k8s.io/v1`) and metadata-only forms of objects: what `kubectl get` prints. Pure, with `now` as an argument."""

from __future__ import annotations

from typing import Any

from core.api.kinds import Kind
from core.apiserver.cells import AGE, NAME, Column, age
from core.apiserver.columns import COLUMNS
from core.apiserver.jsonpath import compiled

__all__ = ["partial_metadata", "shown_columns", "to_table"]

_DEFAULT = (NAME, AGE)


def to_table(
    kind: Kind,
    documents: list[dict[str, Any]],
    *,
    now: float,
    include: str = "Metadata",
    headers: bool = True,
    columns: list[dict[str, Any]] | None = None,
    list_meta: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The Table of `documents`, all of `kind`.

    `include` says what a row carries of its object: `Object`, `Metadata` or `None`. Column definitions come with `headers` only
    (they are left out of the later events of a watch). `columns` are the `additionalPrinterColumns` of a custom resource,
    `list_meta` the metadata of the list (resourceVersion, continue, remainingItemCount).
    """
    shown = shown_columns(kind, columns)
    found: dict[str, Any] = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta or {}}
    if headers:
        found["columnDefinitions"] = [each.definition for each in shown]
    found["rows"] = [_row(kind, document, shown, now, include) for document in documents]
    return found


def shown_columns(kind: Kind, columns: list[dict[str, Any]] | None = None) -> tuple[Column, ...]:
    """Of a kind; `columns` are those of a custom resource."""
    return _custom(columns) if columns else COLUMNS.get((kind.group, kind.kind), _DEFAULT)


def _row(kind: Kind, document: dict[str, Any], shown: tuple[Column, ...], now: float, include: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": [each.cell(document, now) for each in shown]}
    if include == "Metadata":
        row["object"] = partial_metadata(document)
    elif include == "Object":
        row["object"] = {"apiVersion": kind.api_version, "kind": kind.kind, **document}
    return row


def partial_metadata(document: dict[str, Any]) -> dict[str, Any]:
    """The `PartialObjectMetadata` of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": document.get("metadata", {}),
    }


def _custom(columns: list[dict[str, Any]]) -> tuple[Column, ...]:
    return (NAME, *(_custom_column(each) for each in columns))


def _custom_column(column: dict[str, Any]) -> Column:
    path = compiled(column.get("jsonPath", ""))
    kind = column.get("type", "string")

    def cell(document: dict[str, Any], now: float) -> Any:
        found = path(document)
        if not found or found[0] is None:
            return None
        value = found[0] if len(found) == 1 else ",".join(str(each) for each in found)
        return _typed(value, kind, now)

    return Column(
        column.get("name", ""),
        cell,
        kind,
        column.get("format", ""),
        column.get("priority", 0),
        column.get("description", ""),
    )


def _typed(value: Any, kind: str, now: float) -> Any:
    """A value as a cell of a column type; None where it isn't of that type."""
    if kind == "date":
        return age(value, now) if isinstance(value, str) else None
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(each)}" for key, each in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_text(each) for each in value) + "]"
    return str(value)
