"""Objects between their stored bytes and what is sent: rendering by splicing, parsed documents, encoded events.

The stored value of an object is its JSON document without `resourceVersion`, in the order `apiVersion kind metadata ...`. So an
object is rendered for a reply without parsing it: a head with the version that was asked for, the revision, and the tail as it is.
Both caches are bounded, oldest out first; what falls out is parsed or encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.store.base import Entry

__all__ = ["Cache", "Codec", "Document", "encode"]

Document = dict[str, Any]

_encoder = msgspec.json.Encoder()
_decode = msgspec.json.decode
_METADATA = b'"metadata":{'


def encode(document: Document) -> bytes:
    """The value to store. `metadata` has at least a name."""
    metadata = document["metadata"]
    if "resourceVersion" in metadata:
        metadata = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    ordered = {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata}
    for key, value in document.items():
        if key not in ordered:
            ordered[key] = value
    return _encoder.encode(ordered)


class Codec:
    """Renders stored values as objects of one kind and version."""

    __slots__ = ("_bare", "_head", "kind", "since")
    splices = True
    """Whether objects lie in the store as they are shown, but for their head."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.since = 0
        """What tells this codec from another of the same kind: what was rendered by one isn't the other's."""
        self._bare = b'{"apiVersion":"%s","kind":"%s","metadata":{' % (kind.api_version.encode(), kind.kind.encode())
        self._head = self._bare + b'"resourceVersion":"%d",'

    def render(self, entry: Entry) -> bytes:
        """The object's JSON. Revision 0 stands for an object that was never stored (a dry run)."""
        # apiVersion and kind can't hold a bare quote, so the first match is the object's own metadata.
        tail = entry.value[entry.value.index(_METADATA) + len(_METADATA) :]
        return (self._head % entry.revision if entry.revision else self._bare) + tail

    def document(self, entry: Entry) -> Document:
        """A new document, free to be changed."""
        found: Document = _decode(entry.value)
        found["apiVersion"] = self.kind.api_version
        if entry.revision:
            found["metadata"]["resourceVersion"] = str(entry.revision)
        return found


class Cache:
    """Parsed documents by (key, revision), and encoded events by (key, revision, type, form)."""

    def __init__(self, documents: int = 4096, events: int = 4096) -> None:
        self._documents: dict[tuple[str, int], Document] = {}
        self._events: dict[tuple[object, ...], bytes] = {}
        self._document_bound = documents
        self._event_bound = events

    def document(self, entry: Entry) -> Document:
        """The parsed value, shared by its readers: never to be changed."""
        at = (entry.key, entry.revision)
        found = self._documents.get(at)
        if found is None:
            found = _decode(entry.value)
            if len(self._documents) >= self._document_bound:
                del self._documents[next(iter(self._documents))]
            self._documents[at] = found
        return found

    def event(self, at: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The event's bytes, made once for all its watchers."""
        found = self._events.get(at)
        if found is None:
            found = make()
            if len(self._events) >= self._event_bound:
                del self._events[next(iter(self._events))]
            self._events[at] = found
        return found
