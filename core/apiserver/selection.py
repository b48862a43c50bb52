"""Which objects of a collection a list or watch is about: its label and field selectors, read with as little parsing as they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from core.api.kinds import Kind
from core.api.selectors import FieldSelector, Selector, parse_fields, parse_labels
from core.apiserver.cache import Cache, Document
from core.errors import BadRequest
from core.store.base import Entry

__all__ = ["FieldReader", "Selection"]

FieldReader = Callable[[Document], str]


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct):
    metadata: _Metadata


_REMEMBERED = 64

_labelled = msgspec.json.Decoder(_Labelled)


class Selection:
    """Label and field selectors of one request.

    `fields` are the kind's selectable fields besides `metadata.name` and `metadata.namespace`, which every kind has and which
    the key already tells. Raises `BadRequest` for selectors that can't be understood.
    """

    __slots__ = ("_cache", "_known", "_labels", "_others", "_places", "_readers", "everything", "name")

    def __init__(
        self, kind: Kind, fields: Mapping[str, FieldReader], cache: Cache, label_text: str = "", field_text: str = ""
    ) -> None:
        try:
            self._labels: Selector = parse_labels(label_text)
        except ValueError as error:
            raise BadRequest(f"unable to parse labelSelector: {error}") from None
        try:
            found = parse_fields(field_text)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        self._readers = fields
        self._cache = cache
        for term in found.terms:
            if term.field not in fields and term.field not in ("metadata.name", "metadata.namespace"):
                # Clients put before it what they have asked for.
                raise BadRequest(f"field label not supported: {term.field}")
        self._places = FieldSelector(tuple(each for each in found.terms if each.field not in fields))
        self._others = FieldSelector(tuple(each for each in found.terms if each.field in fields))
        self.everything = not (self._labels or found.terms)
        named = [each.value for each in self._places.terms if each.field == "metadata.name" and each.equal]
        self.name = named[0] if named else ""
        """The only name that can match, "" where any can."""
        self._known: dict[int, bool] = {}

    def matches(self, entry: Entry) -> bool:
        # Watches that ask for the same share a selection, and are told of each event one after the other.
        found = self._known.get(entry.revision)
        if found is None:
            found = self._matches(entry)
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[entry.revision] = found
        return found

    def _matches(self, entry: Entry) -> bool:
        if self._places.terms:
            _, _, *where = entry.key.split("/")
            name, namespace = where[-1], where[0] if len(where) > 1 else ""
            if not self._places(lambda field: name if field == "metadata.name" else namespace):
                return False
        if self._labels and not self._labels.matches(_labelled.decode(entry.value).metadata.labels):
            return False
        if self._others.terms:
            document = self._cache.document(entry)
            return self._others(lambda field: self._readers[field](document))
        return True
