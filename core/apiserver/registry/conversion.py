"""One stored object under several kinds: how it is read as, and written from, a kind that isn't the stored one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from core.api.kinds import Kind
from core.apiserver.cache import Codec, Document
from core.store.base import Entry

__all__ = ["Conversion", "ConvertingCodec", "DefaultingCodec"]


class Conversion(NamedTuple):
    """`stored` is the kind that objects lie in the store as; `read` and `write` change the documents that they are given."""

    stored: Kind
    read: Callable[[Document], Document]
    write: Callable[[Document], Document]


class ConvertingCodec(Codec):
    """Renders stored objects of another kind. Slower than splicing: each is parsed."""

    __slots__ = ("_read",)
    splices = False

    def __init__(self, kind: Kind, conversion: Conversion) -> None:
        super().__init__(kind)
        self._read = conversion.read

    def render(self, entry: Entry) -> bytes:
        return msgspec.json.encode(self.document(entry))

    def document(self, entry: Entry) -> Document:
        found: dict[str, Any] = self._read(super().document(entry))
        return {"apiVersion": self.kind.api_version, "kind": self.kind.kind, **_rest(found)}


class DefaultingCodec(Codec):
    """Renders custom resources with the defaults that their schema has by now. What was written after revision `since` has them already."""

    __slots__ = ("_shape",)
    splices = False

    def __init__(self, kind: Kind, shape: Callable[[Document], Document], since: int) -> None:
        super().__init__(kind)
        self._shape = shape
        self.since = since

    def render(self, entry: Entry) -> bytes:
        if entry.revision > self.since or not entry.revision:
            return super().render(entry)
        return msgspec.json.encode(self.document(entry))

    def document(self, entry: Entry) -> Document:
        found = super().document(entry)
        if entry.revision > self.since or not entry.revision:
            return found
        return {**self._shape(found), "metadata": found["metadata"]}


def _rest(document: Document) -> Document:
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
