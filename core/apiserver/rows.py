"""The rows of long Tables as bytes: cells from as little of an object as its columns read, its metadata cut out of what is stored.

What doesn't change with time is kept by revision, so that the next list only writes ages anew. Bounded, oldest out first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from core.apiserver import podcolumns
from core.apiserver.cache import Codec, Document
from core.apiserver.cells import AGE, Column, age
from core.apiserver.table import shown_columns
from core.store.base import Entry

__all__ = ["KeptRows", "metadata_only", "rows"]

_ROWS = 16384
_encode = msgspec.json.encode
_METADATA = b'"metadata":{'


class _Metadata(msgspec.Struct):
    metadata: msgspec.Raw


_metadata = msgspec.json.Decoder(_Metadata)
_READERS: dict[tuple[str, str], msgspec.json.Decoder[Any]] = {("", "Pod"): msgspec.json.Decoder(podcolumns.Read)}
"""What of a kind's objects its columns read; others are parsed whole."""


class _Row(NamedTuple):
    """A row's cells on both sides of the age, and where the object's metadata lies in what is stored. `created` is "" for a row without an age."""

    before: bytes
    created: str
    after: bytes
    start: int
    end: int


class KeptRows:
    """What is known of rows, for all kinds together."""

    def __init__(self, bound: int = _ROWS) -> None:
        self._rows: dict[tuple[int, str, str], _Row] = {}
        self._bound = bound

    def get(self, at: tuple[int, str, str]) -> _Row | None:
        return self._rows.get(at)

    def put(self, at: tuple[int, str, str], row: _Row) -> None:
        if len(self._rows) >= self._bound:
            del self._rows[next(iter(self._rows))]
        self._rows[at] = row


def rows(
    codec: Codec,
    entries: Iterable[Entry],
    *,
    now: float,
    include: str,
    columns: list[Document] | None = None,
    kept: KeptRows | None = None,
) -> list[bytes]:
    """The rows of `entries`, as `table.to_table` has them. `kept` is where to look for them first, and to leave them."""
    kind, shown = codec.kind, shown_columns(codec.kind, columns)
    if columns:
        kept = None  # they may be others tomorrow, and the object still the same
    ages: dict[str, bytes] = {}
    found = []
    for entry in entries:
        at = (entry.revision, kind.api_version, kind.kind)
        row = kept.get(at) if kept is not None and entry.revision else None
        if row is None:
            document = _document(codec, entry)
            row = _cells(shown, document, now, *_place(codec, entry))
            if kept is not None and entry.revision and _fixed(shown, document):
                kept.put(at, row)
        created, text = row.created, b""
        if created and not (text := ages.get(created, b"")):
            # Those that were made in one second are of one age.
            text = ages[created] = _encode(age(created, now))
        cells = b'{"cells":[%b%b%b]' % (row.before, text, row.after)
        if include == "Metadata":
            found.append(b'%b,"object":%b}' % (cells, _object(codec, entry, row.start, row.end)))
        elif include == "Object":
            found.append(b'%b,"object":%b}' % (cells, codec.render(entry)))
        else:
            found.append(cells + b"}")
    return found


def metadata_only(codec: Codec, entry: Entry) -> bytes:
    """An object's `PartialObjectMetadata`."""
    return _object(codec, entry, *_place(codec, entry))


def _document(codec: Codec, entry: Entry) -> Document:
    """What the columns read of an object, or all of it; not to be changed."""
    reader = _READERS.get((codec.kind.group, codec.kind.kind))
    if reader is None or not codec.splices:
        return codec.document(entry)
    try:
        found: Document = reader.decode(entry.value)
    except msgspec.ValidationError:
        return codec.document(entry)
    return found


def _place(codec: Codec, entry: Entry) -> tuple[int, int]:
    """Where the metadata lies in what is stored; nowhere where it has to be made."""
    if not codec.splices:
        return 0, 0
    start = entry.value.index(_METADATA) + len(_METADATA)
    return start, start - 1 + len(_metadata.decode(entry.value).metadata)


def _object(codec: Codec, entry: Entry, start: int, end: int) -> bytes:
    if not end:
        metadata = _encode(codec.document(entry).get("metadata", {}))
        return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b}' % metadata
    version = b'"resourceVersion":"%d",' % entry.revision if entry.revision else b""
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{%b%b}' % (
        version,
        entry.value[start:end],
    )


def _cells(shown: Sequence[Column], document: Document, now: float, start: int, end: int) -> _Row:
    created = (document.get("metadata") or {}).get("creationTimestamp")
    at = shown.index(AGE) if AGE in shown and created else len(shown)
    before = _encode([each.cell(document, now) for each in shown[:at]])[1:-1]
    if at == len(shown):
        return _Row(before, "", b"", start, end)
    after = _encode([each.cell(document, now) for each in shown[at + 1 :]])[1:-1]
    return _Row(before + b"," if before else b"", str(created), b"," + after if after else b"", start, end)


def _fixed(shown: Sequence[Column], document: Document) -> bool:
    """Whether all cells but the age stay as they are."""
    asked = _moving(tuple(shown))
    return asked is not None and all(fixed(document) for fixed in asked)


@lru_cache(maxsize=256)
def _moving(shown: tuple[Column, ...]) -> tuple[Callable[[Document], bool], ...] | None:
    """Whom to ask of a document whether its cells stay as they are; None where it isn't known of some column."""
    others = [each.fixed for each in shown if each is not AGE]
    return None if False in others else tuple(each for each in others if callable(each))
