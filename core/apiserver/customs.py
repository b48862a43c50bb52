"""Custom kinds as they come and go: a registry for each served version of a CustomResourceDefinition, and the draining of one that goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION
from core.apiserver.cache import Cache, Document
from core.apiserver.crd import CustomSchema
from core.apiserver.registry.conversion import DefaultingCodec
from core.apiserver.registry.crds import CLEANUP
from core.apiserver.registry.custom import CustomStrategy, custom_kinds, storage_version
from core.apiserver.registry.deletion import DeleteOptions
from core.apiserver.registry.generic import Registry, Shape
from core.apiserver.served import Served
from core.apiserver.watch import Watcher, WatchOptions
from core.clock import wall
from core.errors import Expired, FaasliteError, NotFound
from core.store.base import Store

__all__ = ["CustomKinds"]

log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_ALWAYS = 2**63


class CustomKinds:
    """`define` and `undefine` are told of stored definitions; the drains that they start are tasks which `stop` ends."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        served: Served,
        shape: Callable[[CustomSchema], Shape],
        clock: Callable[[], float] = wall,
    ) -> None:
        self._store = store
        self._cache = cache
        self._served = served
        self._shape = shape
        self._clock = clock
        self._drains: dict[str, asyncio.Task[None]] = {}

    async def load(self) -> None:
        """Serve what is stored, and go on with drains that a stop has interrupted."""
        registry = self._served.of(CUSTOM_RESOURCE_DEFINITION)
        for entry in (await self._store.list(registry.prefix())).entries:
            self.define(registry.codec.document(entry), entry.revision)

    async def stop(self) -> None:
        drains = list(self._drains.values())
        for each in drains:
            each.cancel()
        await asyncio.gather(*drains, return_exceptions=True)

    def define(self, definition: Document, since: int = 0) -> None:
        """`since`: the revision from which on objects are written by this definition; 0 for now."""
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        self._served.remove(group, plural)
        stored_as = storage_version(definition)
        for kind, version in custom_kinds(definition):
            schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            custom, codec = CustomSchema(schema), None
            if custom.has_defaults:
                # What another version wrote has that version's defaults, whenever it was.
                always = len(definition["spec"]["versions"]) > 1
                codec = DefaultingCodec(kind, custom.shape, _ALWAYS if always else since or self._store.revision)
            registry = Registry(
                kind,
                CustomStrategy(kind, version),
                self._store,
                self._cache,
                self._shape(custom),
                storage_version=stored_as,
                columns=version.get("additionalPrinterColumns"),
                open_schema=schema,
                codec=codec,
                scale=(version.get("subresources") or {}).get("scale"),
                clock=self._clock,
            )
            self._served.add(registry)
        metadata = definition["metadata"]
        if metadata.get("deletionTimestamp"):
            self._served.terminating.add((group, plural))
            name = metadata["name"]
            if CLEANUP in (metadata.get("finalizers") or ()) and name not in self._drains:
                task = asyncio.create_task(self._drain(name, group, plural), name=f"drain {name}")
                self._drains[name] = task
                task.add_done_callback(lambda _: self._drains.pop(name, None))

    def undefine(self, definition: Document) -> None:
        spec = definition.get("spec") or {}
        names = spec.get("names") or {}
        # A definition that was refused, or only tried, has never been served; one that is gone was first marked, for its finalizer.
        if definition["metadata"].get("deletionTimestamp"):
            self._served.remove(spec.get("group", ""), names.get("plural", ""))

    async def _drain(self, name: str, group: str, plural: str) -> None:
        while True:
            try:
                await self.drain_objects(group, plural)
                await self._release(name)
                return
            except FaasliteError:
                log.exception("draining the objects of %s failed, trying again", name)
                await asyncio.sleep(_RETRY_SECONDS)

    async def drain_objects(self, group: str, plural: str) -> None:
        """Delete every object and return when the last has gone, however long its finalizers hold it."""
        registry = next(
            (self._served.of(each) for each in self._served.kinds() if (each.group, each.plural) == (group, plural)),
            None,
        )
        if registry is None:
            return
        while True:
            page = await self._store.list(registry.prefix())
            left = 0
            for entry in page.entries:
                _, _, *where = entry.key.split("/")
                namespace = where[0] if len(where) > 1 else ""
                try:
                    left += not (await registry.delete(namespace, where[-1], DeleteOptions())).removed
                except NotFound:
                    continue
            if not left:
                return
            await self._one_gone(registry, page.revision)

    async def _one_gone(self, registry: Registry, since: int) -> None:
        watcher = Watcher(
            self._store, registry.prefix(), registry.selection(), WatchOptions(since=since, applied=True, timeout=3600)
        )
        try:
            async with aclosing(watcher.changes()) as changes:
                async for batch in changes:
                    if any(each.type == "DELETED" for each in batch):
                        return
        except Expired:
            return

    async def _release(self, name: str) -> None:
        def without_finalizer(document: Document) -> Document:
            metadata = document["metadata"]
            metadata["finalizers"] = [each for each in metadata.get("finalizers") or () if each != CLEANUP]
            return document

        try:
            await self._served.of(CUSTOM_RESOURCE_DEFINITION).update("", name, without_finalizer, pinned=False)
        except NotFound:
            log.info("the definition %s went before its drain ended", name)
