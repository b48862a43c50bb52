"""The form that a client asks an answer in (`Accept`), and answers in that form: JSON, Table, metadata only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from core.apiserver.cache import Codec, Document
from core.apiserver.rows import KeptRows, metadata_only, rows
from core.apiserver.table import partial_metadata, to_table
from core.clock import wall
from core.errors import BadRequest, NotAcceptable
from core.store.base import Entry

__all__ = ["PLAIN", "Form", "ListMeta", "negotiate", "render_list", "render_object"]

_encode = msgspec.json.encode


class Form(NamedTuple):
    """`name` is "" (the object itself), `Table` or `PartialObjectMetadata`; `include` is a Table's includeObject."""

    name: str = ""
    include: str = "Metadata"


class ListMeta(NamedTuple):
    """`revision` is -1 for what is not stored."""

    revision: int
    token: str = ""
    remaining: int | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"resourceVersion": str(self.revision)} if self.revision >= 0 else {}
        if self.token:
            found["continue"] = self.token
        if self.remaining is not None:
            found["remainingItemCount"] = self.remaining
        return found


PLAIN = Form()


@lru_cache(maxsize=256)
def negotiate(accept: str, include: str = "", stored: bool = True, many: bool | None = None) -> Form:
    """The first form of an Accept header that this server has. Raises `NotAcceptable` where there is none.

    What isn't `stored` has neither columns nor metadata to show: it is there as itself only. Metadata alone has a form of its own for
    `many` objects (None: either will do). Raises `BadRequest` for a Table of objects that there are not.
    """
    if not accept:
        return PLAIN
    for media in accept.split(","):
        kind, *rest = (each.strip() for each in media.split(";"))
        if kind not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        parameters = dict(each.split("=", 1) for each in rest if "=" in each)
        name = parameters.get("as", "")
        if not name:
            return PLAIN
        if not stored or parameters.get("g") != "meta.k8s.io" or parameters.get("v") not in ("v1", "v1beta1"):
            continue
        if name == "Table":
            if include not in ("", "None", "Metadata", "Object"):
                raise BadRequest(f"unrecognized includeObject value: {_encode(include).decode()}")
            return Form("Table", include or "Metadata")
        if name in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            if many is not None and many != name.endswith("List"):
                what = "a list" if many else "not a list"
                raise NotAcceptable(f"you requested {name}, but the requested object is {what}")
            return Form("PartialObjectMetadata")
    raise NotAcceptable("only the following media types are accepted: application/json, application/yaml")


def _table(
    codec: Codec,
    documents: list[Document],
    form: Form,
    columns: list[Document] | None,
    headers: bool,
    meta: Document | None,
) -> bytes:
    return _encode(
        to_table(
            codec.kind, documents, now=wall(), include=form.include, headers=headers, columns=columns, list_meta=meta
        )
    )


def render_object(
    codec: Codec, entry: Entry, form: Form, columns: list[Document] | None = None, headers: bool = True
) -> bytes:
    """One object. `headers` are a Table's column definitions: watches send them once."""
    if not form.name:
        return codec.render(entry)
    document = codec.document(entry)
    if form.name == "Table":
        return _table(codec, [document], form, columns, headers, {"resourceVersion": str(entry.revision)})
    return _encode(partial_metadata(document))


def render_list(
    codec: Codec,
    entries: Sequence[Entry],
    meta: ListMeta,
    form: Form,
    columns: list[Document] | None = None,
    kept: KeptRows | None = None,
) -> bytes:
    """A whole list, joined from the stored bytes. `kept` are the rows of earlier Tables."""
    kind = codec.kind
    if not form.name:
        head = _encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta.document()})
        return head[:-1] + b',"items":[' + b",".join([codec.render(each) for each in entries]) + b"]}"
    if form.name == "Table":
        now, include = wall(), form.include
        head = _encode(to_table(kind, [], now=now, include=include, columns=columns, list_meta=meta.document()))
        parts = rows(codec, entries, now=now, include=include, columns=columns, kept=kept)
        return head.removesuffix(b"[]}") + b"[" + b",".join(parts) + b"]}"
    list_kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta.document()}
    parts = [metadata_only(codec, entry) for entry in entries]
    return _encode(list_kind)[:-1] + b',"items":[' + b",".join(parts) + b"]}"
