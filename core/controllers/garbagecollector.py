"""The garbage collector: objects whose owners are gone go too. Graph and decisions are in `core.controllers.graph`.

The graph is kept by one metadata-only informer per kind that the API serves; CustomResourceDefinitions that come later add
theirs. Before anything is deleted for want of an owner, the API is asked whether that owner is really gone: by its uid, in the
object's own namespace, so that a reference across namespaces never holds.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION, Kind
from core.api.meta import Document
from core.api.views import ObjectView, OwnerReference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.controllers.discovery import served_kinds
from core.controllers.graph import FOREGROUND, ORPHAN, Action, Graph, Item, Owner, decide
from core.errors import Conflict, NotFound

__all__ = ["GarbageCollector"]

log = logging.getLogger(__name__)

WORKERS = 16
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
"""Kinds that own nothing, aren't owned, and come in masses."""
REMEMBERED = 2048
DISCOVERY = "discovery"
UNKNOWN_KIND_RETRY = 30.0


class GarbageCollector:
    """Keys of its queue are uids, and `discovery`."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._definitions = informers.watch(CUSTOM_RESOURCE_DEFINITION, ObjectView)
        self._watched: dict[Kind, Informer[ObjectView]] = {}
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._graph = Graph()
        # uids that the API has confirmed to be gone; they never come back.
        self._absent: OrderedDict[str, None] = OrderedDict()
        # Objects with an owner of a kind that isn't served (yet): looked at again after each discovery.
        self._unresolved: set[str] = set()
        self.queue = WorkQueue()
        self._reconciler = Reconciler("garbagecollector", self.sync, queue=self.queue, workers=WORKERS)

    async def start(self) -> None:
        """Returns once the graph is complete."""
        await self._definitions.wait_synced()
        await self.discover()
        for informer in list(self._watched.values()):
            await informer.wait_synced()
        self._definitions.add_handler(lambda old, new: self.queue.add(DISCOVERY))
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    async def discover(self) -> None:
        """Watch every kind that the API serves now, and no other."""
        kinds = [each for each in await served_kinds(self._client) if (each.group, each.plural) not in IGNORED]
        self._kinds = {(each.group, each.kind): each for each in kinds}
        for kind in kinds:
            if kind not in self._watched:
                informer = self._informers.watch(kind, ObjectView)
                self._watched[kind] = informer
                informer.add_handler(self._handler(kind))
        for kind in self._watched.keys() - set(kinds):
            informer = self._watched.pop(kind)
            if informer is not self._definitions:
                await self._informers.forget(informer)
            for view in informer.values():
                self._removed(view.metadata.uid)
        unresolved, self._unresolved = self._unresolved, set()
        for uid in unresolved:
            self.queue.add(uid)

    def _handler(self, kind: Kind) -> Callable[[ObjectView | None, ObjectView | None], None]:
        def on_event(old: ObjectView | None, new: ObjectView | None) -> None:
            if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
                self._removed(old.metadata.uid)
            if new is not None:
                self._changed(Item.of(kind, new))

        return on_event

    def _changed(self, item: Item) -> None:
        old = self._graph.set(item)
        if old is not None and old.owners != item.owners:
            self._add_waiting(old)
        if item.foreground or item.orphaning:
            self.queue.add(item.uid)
            if old is None or not old.foreground:
                self._add_all(item.uid)
        elif any(self._suspicious(reference, item) for reference in item.owners):
            self.queue.add(item.uid)

    def _suspicious(self, reference: OwnerReference, item: Item) -> bool:
        owner = self._graph.get(reference.uid)
        return owner is None or owner.foreground or not _may_own(owner, item)

    def _removed(self, uid: str) -> None:
        item = self._graph.remove(uid)
        self._unresolved.discard(uid)
        self._add_all(uid)
        if item is not None:
            self._add_waiting(item)

    def _add_waiting(self, dependent: Item) -> None:
        """Its owners that wait for their dependents."""
        for reference in dependent.owners:
            owner = self._graph.get(reference.uid)
            if owner is not None and (owner.foreground or owner.orphaning):
                self.queue.add(owner.uid)

    def _add_all(self, owner_uid: str) -> None:
        for each in self._graph.dependents(owner_uid):
            self.queue.add(each.uid)

    async def sync(self, key: str) -> float | None:
        """One reconcile of the object with that uid."""
        if key == DISCOVERY:
            await self.discover()
            return None
        item = self._graph.get(key)
        if item is None:
            return None
        if item.orphaning:
            await self._orphan(item)
            return None
        if item.foreground:
            await self._foreground(item)
            return None
        if item.deleting:
            return None
        try:
            states = [(each, await self._state(item, each)) for each in item.owners]
        except LookupError as error:
            log.info("%s %s: %s", item.kind.resource, item.name, error)
            self._unresolved.add(key)
            return UNKNOWN_KIND_RETRY
        dependents = self._graph.dependents(item.uid)
        await self._act(item, decide(item, states, bool(dependents), any(each.foreground for each in dependents)))
        return None

    async def _state(self, item: Item, reference: OwnerReference) -> Owner:
        owner = self._graph.get(reference.uid)
        if owner is not None and _may_own(owner, item):
            return Owner.WAITING if owner.foreground and reference.block_owner_deletion else Owner.PRESENT
        if reference.uid in self._absent:
            return Owner.ABSENT
        if not await self._gone(item, reference):
            return Owner.PRESENT
        if owner is None:
            self._absent[reference.uid] = None
            if len(self._absent) > REMEMBERED:
                self._absent.popitem(last=False)
        return Owner.ABSENT

    async def _gone(self, item: Item, reference: OwnerReference) -> bool:
        """Ask the API. LookupError where the owner's kind isn't served: what it says then proves nothing."""
        group = reference.api_version.rpartition("/")[0]
        kind = self._kinds.get((group, reference.kind))
        if kind is None:
            raise LookupError(
                f"the kind of owner {reference.api_version} {reference.kind} {reference.name} isn't served"
            )
        if kind.namespaced and not item.namespace:
            raise LookupError(f"an object of the cluster can't be owned by {reference.kind} {reference.name}")
        try:
            live = await self._client.get(
                kind, reference.name, item.namespace if kind.namespaced else "", as_=ObjectView
            )
        except NotFound:
            return True
        return live.metadata.uid != reference.uid

    async def _act(self, item: Item, action: Action) -> None:
        if action.delete:
            log.debug("deleting %s %s/%s: its owners are gone", item.kind.resource, item.namespace, item.name)
            if action.unblock:
                owners = [{**_reference(each), "blockOwnerDeletion": False} for each in item.owners]
                await self._patch(item, {"ownerReferences": owners})
            try:
                await self._client.delete(
                    item.kind,
                    item.name,
                    item.namespace,
                    propagation=action.delete,
                    uid=item.uid,
                    resource_version="" if action.unblock else item.version,
                )
            except NotFound:
                return
        elif action.drop_owners:
            await self._drop_owners(item, action.drop_owners)

    async def _drop_owners(self, item: Item, uids: frozenset[str]) -> None:
        left = [_reference(each) for each in item.owners if each.uid not in uids]
        await self._patch(item, {"ownerReferences": left or None})

    async def _orphan(self, item: Item) -> None:
        for each in self._graph.dependents(item.uid):
            await self._drop_owners(each, frozenset({item.uid}))
        await self._remove_finalizer(item, ORPHAN)

    async def _foreground(self, item: Item) -> None:
        """Its dependents go first; those that block it are waited for."""
        blocking = [
            each
            for each in self._graph.dependents(item.uid)
            if any(owner.uid == item.uid and owner.block_owner_deletion for owner in each.owners)
        ]
        if not blocking:
            await self._remove_finalizer(item, FOREGROUND)
            return
        for each in blocking:
            if not each.deleting:
                self.queue.add(each.uid)

    async def _remove_finalizer(self, item: Item, name: str) -> None:
        left = [each for each in item.finalizers if each != name]
        await self._patch(item, {"finalizers": left or None})

    async def _patch(self, item: Item, metadata: Document) -> None:
        """A merge patch of metadata, of this very state of the object; `Conflict` makes the queue try again."""
        patch = {"metadata": {"uid": item.uid, "resourceVersion": item.version, **metadata}}
        try:
            await self._client.patch(item.kind, item.name, item.namespace, patch)
        except NotFound:
            log.debug("%s %s is gone already", item.kind.resource, item.name)
        except Conflict:
            if self._graph.get(item.uid) is not None:
                raise


def _may_own(owner: Item, item: Item) -> bool:
    return not owner.kind.namespaced or owner.namespace == item.namespace


def _reference(owner: OwnerReference) -> Document:
    found: Document = {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
    }
    if owner.controller is not None:
        found["controller"] = owner.controller
    if owner.block_owner_deletion is not None:
        found["blockOwnerDeletion"] = owner.block_owner_deletion
    return found
