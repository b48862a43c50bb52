"""The namespace controller: empties a terminating namespace, then lets it go.

Kinds come from discovery, so objects of CustomResourceDefinitions go too. The namespace stays until nothing is left, whatever
finalizers its objects wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from core.api.kinds import NAMESPACE, POD, Kind
from core.api.views import Namespace, ObjectView, Pod
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.controllers.discovery import served_kinds
from core.errors import ApiError, Conflict, MethodNotAllowed, NotFound

__all__ = ["FINALIZER", "NamespaceController", "to_delete"]

log = logging.getLogger(__name__)

FINALIZER = "kubernetes"
WORKERS = 4
RECHECK = 1.0
"""Seconds until a namespace is looked at again in which objects wait for finalizers of others."""


def to_delete(items: Iterable[ObjectView]) -> list[ObjectView]:
    """Those that nobody has deleted yet; the rest is on its way."""
    return [each for each in items if each.metadata.deletion_timestamp is None]


class NamespaceController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._namespaces: Informer[Namespace] = informers.watch(NAMESPACE, Namespace)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self.queue = WorkQueue()
        self._reconciler = Reconciler("namespace", self.sync, queue=self.queue, workers=WORKERS)
        self._namespaces.add_handler(self.on_namespace)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._namespaces.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self.queue.add(new.name)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """The last Pod to go lets its namespace go."""
        if new is None and old is not None:
            found = self._namespaces.get(old.namespace)
            if found is not None and found.metadata.deletion_timestamp is not None:
                self.queue.add(found.name)

    async def sync(self, name: str) -> float | None:
        """One pass over the namespace; seconds until the next where something is left."""
        found = self._namespaces.get(name)
        if found is None or found.metadata.deletion_timestamp is None or FINALIZER not in found.spec.finalizers:
            return None
        left = 0
        for kind in await served_kinds(self._client):
            if kind.namespaced:
                left += await self._empty(kind, name)
        if left:
            log.debug("namespace %s: %d objects are left", name, left)
            return RECHECK
        await self._finalize(name)
        return None

    async def _empty(self, kind: Kind, namespace: str) -> int:
        """Delete what there is of a kind; how many objects are left after that."""
        try:
            items, _ = await self._client.list(kind, namespace, as_=ObjectView)
        except (NotFound, MethodNotAllowed):
            return 0
        if not items:
            return 0
        for each in to_delete(items):
            try:
                await self._client.delete(kind, each.name, namespace, propagation="Background", uid=each.metadata.uid)
            except (NotFound, Conflict):
                continue
            except ApiError as error:
                log.warning("namespace %s: %s %s stays: %s", namespace, kind.resource, each.name, error.message)
        items, _ = await self._client.list(kind, namespace, as_=ObjectView)
        return len(items)

    async def _finalize(self, name: str) -> None:
        try:
            document = await self._client.get(NAMESPACE, name)
            spec = document.setdefault("spec", {})
            spec["finalizers"] = [each for each in spec.get("finalizers") or () if each != FINALIZER]
            await self._client.update(NAMESPACE, document, subresource="finalize")
        except NotFound:
            log.debug("namespace %s is gone already", name)
