"""The registry of one kind: objects in, objects stored. Every kind goes this way; what differs is in its strategy.

A write is applied when a method returns; whoever answers a client outside waits for the entry's revision to be durable. Writes
compare and swap: a write that lost a race reads again and decides again, unless the client named the version it had seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from core.api.kinds import Kind
from core.apiserver.apply import Applier
from core.apiserver.cache import Cache, Codec, Document, encode
from core.apiserver.fieldtypes import Node, built_in, custom
from core.apiserver.registry import deletion
from core.apiserver.registry.conversion import Conversion, ConvertingCodec
from core.apiserver.registry.deletion import DeleteOptions
from core.apiserver.registry.names import check_metadata, check_metadata_update, generate, new_uid
from core.apiserver.registry.strategy import Strategy
from core.apiserver.registry.tracking import Tracking
from core.apiserver.schema import load
from core.apiserver.selection import Selection
from core.apiserver.status import MODIFIED, already_exists, conflict, invalid, invalid_value, not_found
from core.clock import timestamp, wall
from core.errors import AlreadyExists, BadRequest
from core.store.base import Entry, KeyExists, RevisionMismatch, Store

__all__ = ["Asking", "Registry", "Review", "Shape", "Written"]

Shape = Callable[[Document, bool], tuple[Document, list[str]]]
"""Checks a document against its schema: (document, strict) -> (without what the schema doesn't know, what that was)."""
Change = Callable[[Document], Document]
Review = Callable[[Document, Document | None], None]
"""Called with an object as it would be stored and as it is stored (None for a new one); raises `Forbidden` where it refuses."""

_GENERATE_TRIES = 8
_UPDATE_TRIES = 64
_SELECTIONS = 256


class Asking(Protocol):
    """Who else is asked about a write, outside of the server: admission webhooks. Documents that they get aren't changed."""

    async def mutate(self, new: Document | None, old: Document | None) -> Document | None:
        """`new` as it is to be stored. Raises `ApiError`."""

    async def validate(self, new: Document | None, old: Document | None) -> None:
        """Raises `ApiError`."""


class Written(NamedTuple):
    """`removed`: the write was the object's last; `entry` is then what it was, with the revision of its end."""

    entry: Entry
    removed: bool = False
    soft: bool = False


_GIVEN_BY_SERVER = frozenset(
    ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation", "resourceVersion")
)
"""What a new object's metadata can't bring with it."""


class Registry:
    """The objects of one kind (of a custom kind: as one version of it shows them)."""

    def __init__(
        self,
        kind: Kind,
        strategy: Strategy,
        store: Store,
        cache: Cache,
        shape: Shape,
        *,
        storage_version: str = "",
        columns: list[Document] | None = None,
        open_schema: Document | None = None,
        scale: Document | None = None,
        conversion: Conversion | None = None,
        codec: Codec | None = None,
        clock: Callable[[], float] = wall,
    ) -> None:
        self.kind = kind
        self.strategy = strategy
        self.store = store
        self.cache = cache
        self.shape = shape
        self.codec = codec or (Codec(kind) if conversion is None else ConvertingCodec(kind, conversion))
        self.columns = columns
        self.open_schema = open_schema
        self.scale = scale
        self._conversion = conversion
        stored = kind if conversion is None else conversion.stored
        self._stored = stored.resource
        self.storage_version = storage_version or stored.api_version
        self._clock = clock
        self._selections: dict[tuple[str, str], Selection] = {}

    @functools.cached_property
    def node(self) -> Node:
        """How the kind's fields merge when they are applied."""
        schemas = load()
        struct = schemas.struct(self.kind) if self.open_schema is None else None
        if struct is not None:
            return built_in(struct)
        return custom(self.open_schema or {"x-kubernetes-preserve-unknown-fields": True}, schemas)

    @functools.cached_property
    def tracking(self) -> Tracking:
        return Tracking(self.kind, self.strategy, self.node)

    def prefix(self, namespace: str = "") -> str:
        """Where the objects lie in the store."""
        return f"/{self._stored}/{namespace}/" if namespace else f"/{self._stored}/"

    def key(self, namespace: str, name: str) -> str:
        return f"/{self._stored}/{namespace}/{name}" if namespace else f"/{self._stored}/{name}"

    def selection(self, labels: str = "", fields: str = "") -> Selection:
        """Raises `BadRequest`. Requests that ask for the same get the same."""
        found = self._selections.get((labels, fields))
        if found is None:
            found = Selection(self.kind, self.strategy.fields, self.cache, labels, fields)
            if len(self._selections) >= _SELECTIONS:
                del self._selections[next(iter(self._selections))]
            self._selections[labels, fields] = found
        return found

    async def get(self, namespace: str, name: str) -> Entry:
        """Raises `NotFound`."""
        entry = await self.store.get(self.key(namespace, name))
        if entry is None:
            raise not_found(self.kind, name)
        return entry

    # Creation

    async def create(
        self,
        namespace: str,
        document: Document,
        *,
        dry_run: bool = False,
        manager: str = "",
        unsaid: Sequence[tuple[str, ...]] = (),
        applier: Applier | None = None,
        review: Review | None = None,
        asking: Asking | None = None,
    ) -> Written:
        """Store a new object. The document is the registry's from here on. Raises `AlreadyExists`, `Invalid`, `BadRequest`.

        Its fields are managed by `manager`, but for those that it left `unsaid` (`Strategy.unsaid`), or by the `applier` whose configuration
        it is; without either by nobody.
        `review` sees what would be stored and may refuse it, and so may those of `asking` who only validate.
        """
        metadata = self._fresh_metadata(namespace, document)
        base = "" if metadata.get("name") else metadata.get("generateName") or ""
        self.strategy.prepare_create(document, self._clock())
        try:
            for tries_left in range(_GENERATE_TRIES - 1 if base else 0, -1, -1):
                if base:
                    metadata["name"] = generate(base)
                self.strategy.complete(document)
                self._check(document, self.strategy.validate(document))
                if review is not None:
                    review(document, None)
                if asking is not None:
                    await asking.validate(document, None)
                self._manage_new(document, manager, unsaid, applier)
                try:
                    return await self._insert(namespace, document, dry_run)
                except AlreadyExists:
                    if not tries_left:
                        raise
        except BaseException:
            self.strategy.removed(document)
            raise
        raise AssertionError("the last try returns or raises")

    def _manage_new(
        self, document: Document, manager: str, unsaid: Sequence[tuple[str, ...]], applier: Applier | None
    ) -> None:
        now = timestamp(self._clock())
        if applier is not None:
            managed = self.tracking.applied(applier, now)
        else:
            managed = self.tracking.created(document, manager, unsaid, now) if manager else []
        if managed:
            document["metadata"]["managedFields"] = managed

    async def _insert(self, namespace: str, document: Document, dry_run: bool) -> Written:
        name = document["metadata"]["name"]
        key, value = self.key(namespace, name), self._encode(document)
        if dry_run:
            if await self.store.get(key) is not None:
                raise already_exists(self.kind, name)
            self.strategy.removed(document)
            return Written(Entry(key, value, 0, 0))
        try:
            soft = (self.strategy.soft and self.strategy.told_early) or self.strategy.repeatable(document, "create")
            entry = await self.store.create(key, value, durable=False, soft=soft)
        except KeyExists:
            raise already_exists(self.kind, name) from None
        self.strategy.stored(document)
        return Written(entry, soft=self.strategy.soft)

    def _fresh_metadata(self, namespace: str, document: Document) -> Document:
        metadata: Document = document.setdefault("metadata", {})
        # What can't be a version of ours is let pass, as Kubernetes does: it is dropped below.
        if str(metadata.get("resourceVersion") or "").strip("0").isdigit():
            raise BadRequest("resourceVersion should not be set on objects to be created")
        for key in metadata.keys() & _GIVEN_BY_SERVER:
            del metadata[key]
        self._check_place(namespace, metadata)
        metadata["uid"] = new_uid()
        metadata["creationTimestamp"] = timestamp(self._clock())
        if self.strategy.generation:
            metadata["generation"] = 1
        return metadata

    def _check_place(self, namespace: str, metadata: Document) -> None:
        if not self.kind.namespaced:
            metadata.pop("namespace", None)
            return
        if metadata.get("namespace", namespace) != namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = namespace

    def _check(self, document: Document, causes: list[dict[str, str]]) -> None:
        metadata = document["metadata"]
        name = metadata.get("name") or ""
        found = check_metadata(metadata, self.strategy.check_name(name) if name else "") + causes
        if found:
            raise invalid(self.kind, name, found)

    def _encode(self, document: Document) -> bytes:
        document["apiVersion"], document["kind"] = self.storage_version, self.kind.kind
        return encode(document if self._conversion is None else self._conversion.write(document))

    # Updates

    async def update(
        self,
        namespace: str,
        name: str,
        change: Change,
        *,
        subresource: str = "",
        dry_run: bool = False,
        pinned: bool | None = None,
        manager: str = "faaslite",
        applier: Applier | None = None,
        review: Review | None = None,
        asking: Asking | None = None,
    ) -> Written:
        """Store what `change` makes of the object as it stands.

        `change` gets a document of its own and returns the whole new object; it is called again after a lost race, unless the
        client `pinned` the version (None: it did where the result carries one). The changed fields become those of `manager`, where
        the object's fields are managed at all; an `applier` makes the change itself and manages what it applies. `review` sees
        what would be stored and what is stored, and may refuse it; those of `asking` may change it, too. Another version than the current one is a `Conflict`. Raises `NotFound`, `Invalid`, `BadRequest`.
        """
        key = self.key(namespace, name)
        for _ in range(_UPDATE_TRIES):
            entry = await self.get(namespace, name)
            now, managed = timestamp(self._clock()), None
            if applier is not None:
                new, managed = self.tracking.apply(applier, self.codec.document(entry), now)
            else:
                new = change(self.codec.document(entry))
            said = self._check_version(new, entry, name)
            old = self.codec.document(entry)
            if asking is not None:
                new = await asking.mutate(new, old) or new
            wanted = (new.get("metadata") or {}).get("managedFields")
            new = self._prepare_update(namespace, name, new, old, subresource)
            if review is not None:
                review(new, old)
            if asking is not None:
                await asking.validate(new, old)
            if applier is None:
                managed = self.tracking.updated(new, old, wanted, manager, subresource, now)
            if managed:
                new["metadata"]["managedFields"] = managed
            else:
                new["metadata"].pop("managedFields", None)
            try:
                return await self._replace(key, entry, new, old, subresource, dry_run)
            except RevisionMismatch as lost:
                if lost.current is None:
                    raise not_found(self.kind, name) from None
                if said if pinned is None else pinned:
                    raise conflict(self.kind, name) from None
        raise conflict(self.kind, name)

    def _check_version(self, new: Document, entry: Entry, name: str) -> bool:
        """Whether the client named the version; raises `Conflict` where it isn't this one."""
        said = (new.get("metadata") or {}).get("resourceVersion") or ""
        if said in ("", "0"):
            if not self.strategy.unconditional_update:
                raise invalid(
                    self.kind, name, [invalid_value("metadata.resourceVersion", 0, "must be specified for an update")]
                )
            return False
        if not str(said).isdigit():
            raise invalid(
                self.kind, name, [invalid_value("metadata.resourceVersion", said, "must be an unsigned integer")]
            )
        if int(said) != entry.revision:
            raise conflict(self.kind, name, MODIFIED)
        return True

    def _prepare_update(self, namespace: str, name: str, new: Document, old: Document, subresource: str) -> Document:
        metadata, was = new.setdefault("metadata", {}), old["metadata"]
        if metadata.get("name", name) != name:
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        metadata["name"] = name
        self._check_place(namespace, metadata)
        causes = check_metadata_update(metadata, was)
        for key in ("managedFields", "selfLink", "resourceVersion"):
            metadata.pop(key, None)
        for key in (
            "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName",
        ):  # fmt: skip
            if key in was:
                metadata[key] = was[key]
            else:
                metadata.pop(key, None)
        strategy = self.strategy
        if subresource == "status":
            new = strategy.prepare_status(new, old)
            new["metadata"] = {key: value for key, value in new["metadata"].items() if key != "resourceVersion"}
            causes += strategy.validate_status(new, old)
        else:
            if subresource in strategy.parts:
                new = strategy.prepare_part(subresource, new, old)
                causes += strategy.validate_part(subresource, new, old)
            elif not subresource:
                strategy.prepare_update(new, old)
            if not subresource or subresource not in strategy.narrow:
                strategy.complete(new)
                causes += strategy.validate(new)
            if not subresource:
                causes += strategy.validate_update(new, old)
            if strategy.generation and strategy.spec_changed(new, old):
                new["metadata"]["generation"] = was.get("generation", 0) + 1
        self._check(new, causes)
        return new

    async def _replace(
        self, key: str, entry: Entry, new: Document, old: Document, subresource: str, dry_run: bool
    ) -> Written:
        if deletion.done(new, held=self.strategy.held(new)):
            if dry_run:
                return Written(Entry(key, self._encode(new), entry.revision, entry.created), True)
            return await self._remove(entry, new)
        value = self._encode(new)
        soft = self.strategy.soft or (subresource == "status" and self.strategy.soft_status)
        if dry_run:
            return Written(Entry(key, value, entry.revision, entry.created), soft=soft)
        if value == entry.value or self._same(new, old):
            return Written(entry, soft=soft)
        early = (soft and self.strategy.told_early) or self.strategy.repeatable(new, subresource)
        written = await self.store.update(key, value, entry.revision, durable=False, soft=early)
        self.strategy.stored(new)
        return Written(written, soft=soft)

    def _same(self, new: Document, old: Document) -> bool:
        """Equal but for the order of keys."""
        was = {key: value for key, value in old["metadata"].items() if key != "resourceVersion"}
        return new == {**old, "metadata": was, "apiVersion": self.storage_version}

    # Deletion

    async def delete(self, namespace: str, name: str, options: DeleteOptions) -> Written:
        """Remove the object, or mark it where it can't go yet. Raises `NotFound`, `Conflict`."""
        for _ in range(_UPDATE_TRIES):
            entry = await self.get(namespace, name)
            document = self.codec.document(entry)
            deletion.check_preconditions(self.kind, document, options)
            staying = deletion.decide(
                document, options, self._clock(), graceful=self.strategy.graceful, held=self.strategy.held(document)
            )
            if options.dry_run:
                return Written(entry, staying is None)
            try:
                if staying is None:
                    return await self._remove(entry, document)
                self.strategy.mark_deleted(staying)
                value = self._encode(staying)
                if value == entry.value:
                    return Written(entry)
                written = await self.store.update(entry.key, value, entry.revision, durable=False)
            except RevisionMismatch as lost:
                if lost.current is None:
                    raise not_found(self.kind, name) from None
                continue
            self.strategy.stored(staying)
            return Written(written)
        raise conflict(self.kind, name)

    async def _remove(self, entry: Entry, document: Document) -> Written:
        gone = await self.store.delete(entry.key, entry.revision, durable=False)
        self.strategy.removed(document)
        return Written(Entry(gone.key, self._encode(document), gone.revision, gone.created), True)
