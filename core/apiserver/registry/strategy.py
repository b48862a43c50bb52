"""What a kind's rules are made of: the base of all strategies, which has none of its own.

A kind with rules has a file beside this one. A strategy decides; it does no I/O. Documents that it is given to prepare or to
complete are its to change; `old` ones are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from core.api.kinds import Kind
from core.apiserver.registry.names import subdomain
from core.apiserver.selection import FieldReader

__all__ = ["Cause", "Document", "Strategy"]

Document = dict[str, Any]
Cause = dict[str, str]
_UNVERSIONED = ("apiVersion", "kind", "metadata", "status")


class Strategy:
    """Rules of one kind.

    `soft` writes are acknowledged before they are durable (`soft_status`: those of the status alone), and watches are told of them as
    early, unless they aren't `told_early`: where one gives somebody leave to act alone. `generation`: the kind
    counts changes of its spec. `returns_object`: a deletion answers the object instead of a Status.
    `tracks_stored`: `stored` is called for every object when the server starts. `parts` are subresources that show the object and
    change a part of it (`prepare_part`). Through `narrow` ones goes a value that is checked where it goes in (a count of replicas, a node): the rest is what
    was stored, so that it isn't completed and validated again. What the server decides of a new object is `allotted` to it. Objects of a
    kind `made_by_update` may be created by an update of what there isn't.
    """

    soft: ClassVar[bool] = False
    soft_status: ClassVar[bool] = False
    told_early: ClassVar[bool] = True
    generation: bool = False
    returns_object: ClassVar[bool] = False
    unconditional_update: ClassVar[bool] = True
    made_by_update: ClassVar[bool] = False
    status_keeps_metadata: ClassVar[bool] = False
    graceful: ClassVar[bool] = False
    tracks_stored: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ()
    narrow: ClassVar[tuple[str, ...]] = ()
    allotted: ClassVar[tuple[tuple[str, ...], ...]] = ()
    fields: Mapping[str, FieldReader] = MappingProxyType({})

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.has_status = "status" in kind.subresources

    def check_name(self, name: str) -> str:
        """Why the name is no name for this kind; "" where it is one."""
        return subdomain(name)

    def unsaid(self, document: Document) -> list[tuple[str, ...]]:
        """Of a document as its creator sent it: the fields, as ways to elements of a field set, that the server will set because the creator left them
        out, and that are therefore nobody's. (Defaults are the creator's.)"""
        return [tuple(f"f:{key}" for key in path) for path in self.allotted if _absent(document, path)]

    def prepare_create(self, document: Document, now: float) -> None:
        """Set what the server decides of a new object."""
        if self.has_status:
            document.pop("status", None)

    def prepare_update(self, new: Document, old: Document) -> None:
        """Keep what an update of the main resource may not touch."""
        if self.has_status:
            if "status" in old:
                new["status"] = dict(old["status"])  # `complete` may change it
            else:
                new.pop("status", None)

    def prepare_status(self, new: Document, old: Document) -> Document:
        """The object that an update of its status leads to: `new` with the rest of `old`."""
        found = {key: value for key, value in old.items() if key not in ("metadata", "status")}
        found["metadata"] = old["metadata"] if self.status_keeps_metadata else new["metadata"]
        if "status" in new:
            found["status"] = new["status"]
        return found

    def prepare_part(self, part: str, new: Document, old: Document) -> Document:
        """The object that an update of one of `parts` leads to: `old` with that part of `new`."""
        raise NotImplementedError(part)

    def validate_part(self, part: str, new: Document, old: Document) -> list[Cause]:
        return []

    def complete(self, document: Document) -> None:
        """Set defaults: on creation and on every update."""

    def validate(self, document: Document) -> list[Cause]:
        return []

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return []

    def validate_status(self, new: Document, old: Document) -> list[Cause]:
        return []

    def spec_changed(self, new: Document, old: Document) -> bool:
        """Whether an update counts as a new generation."""
        keys = {*new, *old}.difference(_UNVERSIONED)
        return any(new.get(key) != old.get(key) for key in keys)

    def mark_deleted(self, document: Document) -> None:
        """Called on an object that starts to go but can't go yet."""

    def held(self, document: Document) -> bool:
        """Whether an object that is being deleted must stay for a reason besides its finalizers."""
        return False

    def repeatable(self, document: Document, what: str) -> bool:
        """Whether watches may be told of this write (`create`, or the subresource of an update) before it is durable, because whoever made
        it makes one like it where it is lost, and nobody acts on it in a way that can't be taken back. It is acknowledged when it is durable."""
        return False

    def stored(self, document: Document) -> None:
        """The object was created or updated."""

    def removed(self, document: Document) -> None:
        """The object is gone, or was prepared and never stored."""


def _absent(document: Document, path: tuple[str, ...]) -> bool:
    found: Any = document
    for key in path:
        found = found.get(key) if type(found) is dict else None
        if found is None:
            return True
    return False
