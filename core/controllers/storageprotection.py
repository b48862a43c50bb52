"""The protection of claims and volumes: one that is in use goes only when it isn't any more.

Admission gives each a finalizer; here it is taken off what is to go, once no Pod has the claim, no claim the volume
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection).
"""

from __future__ import annotations

from collections.abc import Iterable

from core.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, Kind
from core.api.views import ObjectView, PersistentVolume, PersistentVolumeClaim, Pod
from core.api.volumes import CLAIM_PROTECTION, VOLUME_PROTECTION, claim_name
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.errors import NotFound

__all__ = ["StorageProtection", "claims_of", "in_use"]


def claims_of(pod: Pod) -> list[str]:
    """`namespace/name` of the claims that a Pod has."""
    names = (claim_name(pod.name, each.name, each.persistent_volume_claim, each.ephemeral) for each in pod.spec.volumes)
    return [f"{pod.namespace}/{name}" for name in names if name]


def in_use(pods: Iterable[Pod]) -> bool:
    """Whether a claim is, of which these are all the Pods; one that has no node yet will find that it goes."""
    return any(each.spec.node_name for each in pods)


class StorageProtection:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._claims: Informer[PersistentVolumeClaim] = informers.watch(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self._volumes: Informer[PersistentVolume] = informers.watch(PERSISTENT_VOLUME, PersistentVolume)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._pods.add_index("claim", claims_of)
        self.queue = WorkQueue()
        self._reconciler = Reconciler("storage-protection", self.sync, queue=self.queue, workers=2)
        self._claims.add_handler(self.on_claim)
        self._volumes.add_handler(self.on_volume)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        for each in (self._claims, self._volumes, self._pods):
            await each.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None and _going(new, CLAIM_PROTECTION):
            self.queue.add(f"claim/{new.key}")

    def on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None and _going(new, VOLUME_PROTECTION):
            self.queue.add(f"volume/{new.name}")

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None and old is not None and old.spec.volumes:
            for key in claims_of(old):
                self.queue.add(f"claim/{key}")

    async def sync(self, key: str) -> None:
        sort, _, name = key.partition("/")
        if sort == "claim":
            claim = self._claims.get(name)
            if claim is None or not _going(claim, CLAIM_PROTECTION) or in_use(self._pods.by_index("claim", name)):
                return
            await self._let_go(PERSISTENT_VOLUME_CLAIM, claim, CLAIM_PROTECTION)
        else:
            volume = self._volumes.get(name)
            if volume is not None and _going(volume, VOLUME_PROTECTION) and volume.status.phase != "Bound":
                await self._let_go(PERSISTENT_VOLUME, volume, VOLUME_PROTECTION)

    async def _let_go(self, kind: Kind, found: ObjectView, finalizer: str) -> None:
        meta = found.metadata
        kept = [each for each in meta.finalizers if each != finalizer]
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": kept or None}}
        try:
            await self._client.patch(kind, meta.name, meta.namespace, patch)
        except NotFound:
            return


def _going(found: ObjectView, finalizer: str) -> bool:
    return found.metadata.deletion_timestamp is not None and finalizer in found.metadata.finalizers
