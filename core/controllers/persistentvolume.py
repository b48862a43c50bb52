"""The volume controller: binds claims to volumes, makes volumes that are folders of nodes, and reclaims them.

What to do is decided in `core.controllers.binding`. Volumes of other provisioners are made and deleted by those; a claim of a
class that waits for its first consumer is bound when the scheduler has chosen that one's node and said so on the claim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from core.api import quantity
from core.api.kinds import NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from core.api.meta import Document
from core.api.views import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from core.api.volumes import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    HOSTNAME,
    LOCAL_DRIVER,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
)
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import timestamp, wall
from core.controllers import binding
from core.controllers.binding import Bind, Event, Lost, Nothing, Phase, Provision, Unbind, Wait
from core.errors import AlreadyExists, ApiError, Conflict, NotFound

__all__ = ["VolumeController"]

log = logging.getLogger(__name__)

_CLAIM, _VOLUME = "claim/", "volume/"


class VolumeController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._claims: Informer[PersistentVolumeClaim] = informers.watch(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self._volumes: Informer[PersistentVolume] = informers.watch(PERSISTENT_VOLUME, PersistentVolume)
        self._classes: Informer[StorageClass] = informers.watch(STORAGE_CLASS, StorageClass)
        self._nodes: Informer[Node] = informers.watch(NODE, Node)
        self._recorder = Recorder(client, component="persistentvolume-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("persistentvolume", self.sync, queue=self.queue, workers=4)
        self._claims.add_handler(self.on_claim)
        self._volumes.add_handler(self.on_volume)
        self._classes.add_handler(self.on_class)

    async def start(self) -> None:
        for each in (self._claims, self._volumes, self._classes, self._nodes):
            await each.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    # Events only add keys: `claim/NAMESPACE/NAME`, `volume/NAME`

    def on_claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        found = new or old
        if found is None:
            return
        self.queue.add(_CLAIM + found.key)
        if found.spec.volume_name:
            self.queue.add(_VOLUME + found.spec.volume_name)

    def on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        found = new or old
        if found is None:
            return
        self.queue.add(_VOLUME + found.name)
        wanted = found.spec.claim_ref
        if wanted is not None:
            self.queue.add(f"{_CLAIM}{wanted.get('namespace')}/{wanted.get('name')}")
        else:
            self._offer(found.spec.storage_class_name)

    def on_class(self, old: StorageClass | None, new: StorageClass | None) -> None:
        if new is not None:
            self._offer(new.name)

    def _offer(self, storage_class: str) -> None:
        """There is something new for the claims of the class that wait."""
        for each in self._claims.values():
            if (
                BIND_COMPLETED not in each.metadata.annotations
                and (each.spec.storage_class_name or "") == storage_class
            ):
                self.queue.add(_CLAIM + each.key)

    async def sync(self, key: str) -> None:
        sort, _, name = key.partition("/")
        if sort == "claim":
            claim = self._claims.get(name)
            if claim is not None:
                await self._sync_claim(claim)
        else:
            volume = self._volumes.get(name)
            if volume is not None:
                await self._sync_volume(volume)

    # Claims

    async def _sync_claim(self, claim: PersistentVolumeClaim) -> None:
        if claim.metadata.deletion_timestamp is not None and BIND_COMPLETED not in claim.metadata.annotations:
            return
        volumes = {each.name: each for each in self._volumes.values()}
        storage_class = self._classes.get(claim.spec.storage_class_name or "")
        node = self._nodes.get(claim.metadata.annotations.get(SELECTED_NODE, ""))
        match binding.claim_step(claim, volumes, storage_class, node):
            case Bind(volume):
                await self._bind(claim, volume, storage_class)
            case Provision(found):
                await self._provision(claim, found, node)
            case Wait(event):
                self._tell(claim, event)
                if SELECTED_NODE in claim.metadata.annotations and node is None:
                    await self._choose_again(claim)
                elif claim.status.phase != "Pending":
                    await self._write_claim(claim, {"phase": "Pending"})
            case Lost(event):
                if claim.status.phase != "Lost":
                    self._tell(claim, event)
                    await self._write_claim(claim, {"phase": "Lost"})
            case Nothing():
                pass

    def _tell(self, claim: PersistentVolumeClaim, event: Event | None) -> None:
        if event is not None:
            self._recorder.event(reference(PERSISTENT_VOLUME_CLAIM, claim), *event)

    async def _bind(
        self, claim: PersistentVolumeClaim, volume: PersistentVolume, storage_class: StorageClass | None
    ) -> None:
        """The volume first: its `claimRef` is what keeps two claims from one volume."""
        claimed = volume.spec.claim_ref
        if claimed is None or claimed.get("uid") != claim.metadata.uid:
            metadata: Document = {"resourceVersion": volume.metadata.resource_version}
            if claimed is None:
                metadata["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
            patch = {"metadata": metadata, "spec": {"claimRef": binding.claim_reference(claim)}}
            await self._client.patch(PERSISTENT_VOLUME, volume.name, "", patch)
        if volume.status.phase != "Bound":
            await self._write_volume(volume, "Bound")
        notes = {}
        if not claim.spec.volume_name:
            notes[BOUND_BY_CONTROLLER] = "yes"
        if BIND_COMPLETED not in claim.metadata.annotations:
            notes[BIND_COMPLETED] = "yes"
        if notes:
            patch = {
                "metadata": {"uid": claim.metadata.uid, "annotations": notes},
                "spec": {"volumeName": volume.name},
            }
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, claim.name, claim.namespace, patch)
        capacity = await self._grown(claim, volume, storage_class)
        wanted = {"phase": "Bound", "accessModes": list(volume.spec.access_modes), "capacity": capacity}
        was = claim.status
        if (was.phase, was.access_modes, was.capacity) != ("Bound", wanted["accessModes"], capacity):
            await self._write_claim(claim, wanted)

    async def _grown(
        self, claim: PersistentVolumeClaim, volume: PersistentVolume, storage_class: StorageClass | None
    ) -> dict[str, str | int | float]:
        """The capacity of the volume: a folder of a node takes on whatever the claim asks for later."""
        capacity = dict(volume.spec.capacity)
        asked = claim.spec.resources.requests.get("storage", 0)
        ours = (volume.spec.csi or {}).get("driver") == LOCAL_DRIVER
        may_grow = ours and storage_class is not None and storage_class.allow_volume_expansion
        if may_grow and quantity.whole(asked) > quantity.whole(capacity.get("storage", 0)):
            capacity["storage"] = asked
            await self._client.patch(PERSISTENT_VOLUME, volume.name, "", {"spec": {"capacity": capacity}})
            text = f"Resized volume {volume.name} to {asked}"
            self._tell(claim, Event("Normal", "VolumeResizeSuccessful", text))
        return capacity

    async def _provision(self, claim: PersistentVolumeClaim, storage_class: StorageClass, node: Node | None) -> None:
        name = storage_class.provisioner
        if claim.metadata.annotations.get(PROVISIONER) != name:
            patch = {"metadata": {"uid": claim.metadata.uid, "annotations": {PROVISIONER: name}}}
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, claim.name, claim.namespace, patch)
        if name != LOCAL_DRIVER:
            text = (
                f"Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system administrator. "
                "If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            )
            self._tell(claim, Event("Normal", "ExternalProvisioning", text))
            return
        target = node or self._emptiest()
        if target is None:
            self._tell(claim, Event("Warning", "ProvisioningFailed", "there is no node that is ready"))
            return
        document = binding.volume_document(claim, storage_class, target)
        volume = document["metadata"]["name"]
        try:
            await self._client.create(PERSISTENT_VOLUME, document)
        except AlreadyExists:
            return
        except ApiError as error:
            text = f'failed to provision volume with StorageClass "{storage_class.name}": {error.message}'
            self._tell(claim, Event("Warning", "ProvisioningFailed", text))
            raise
        self._tell(claim, Event("Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {volume}"))

    def _emptiest(self) -> Node | None:
        """Where nobody has chosen yet: the node with the fewest volumes among those that take Pods."""
        taken = Counter(name for each in self._volumes.values() for name in binding.node_names(each))
        ready = [
            each
            for each in self._nodes.values()
            if not each.spec.unschedulable
            and any(one.type == "Ready" and one.status == "True" for one in each.status.conditions)
        ]
        return min(ready, key=lambda each: (taken[each.metadata.labels.get(HOSTNAME, each.name)], each.name), default=None)  # fmt: skip

    async def _choose_again(self, claim: PersistentVolumeClaim) -> None:
        """The node that was chosen is no more: the scheduler is to choose another."""
        patch = {"metadata": {"uid": claim.metadata.uid, "annotations": {SELECTED_NODE: None}}}
        await self._client.patch(PERSISTENT_VOLUME_CLAIM, claim.name, claim.namespace, patch)

    # Volumes

    async def _sync_volume(self, volume: PersistentVolume) -> None:
        claim = await self._claim_of(volume)
        match binding.volume_step(volume, claim):
            case Phase(phase):
                if volume.status.phase != phase:
                    await self._write_volume(volume, phase)
                if claim is not None and not claim.spec.volume_name:
                    self.queue.add(_CLAIM + claim.key)
            case Unbind():
                await self._unbind(volume)
            case _:
                await self._reclaim(volume)

    async def _claim_of(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        """What the volume is for. That it is gone is believed only of the API, since data may be lost by it."""
        wanted = volume.spec.claim_ref
        if wanted is None or not wanted.get("uid"):
            return None
        found = self._claims.get(f"{wanted.get('namespace')}/{wanted.get('name')}")
        if found is not None and found.metadata.uid == wanted["uid"]:
            return found
        try:
            found = await self._client.get(
                PERSISTENT_VOLUME_CLAIM, wanted["name"], wanted["namespace"], as_=PersistentVolumeClaim
            )
        except NotFound:
            return None
        return found if found.metadata.uid == wanted["uid"] else None

    async def _unbind(self, volume: PersistentVolume) -> None:
        metadata: Document = {"resourceVersion": volume.metadata.resource_version}
        reference_: Document | None = {"uid": None, "resourceVersion": None}
        if BOUND_BY_CONTROLLER in volume.metadata.annotations:
            metadata["annotations"], reference_ = {BOUND_BY_CONTROLLER: None}, None
        await self._client.patch(
            PERSISTENT_VOLUME, volume.name, "", {"metadata": metadata, "spec": {"claimRef": reference_}}
        )

    async def _reclaim(self, volume: PersistentVolume) -> None:
        if volume.status.phase not in ("Released", "Failed"):
            await self._write_volume(volume, "Released")
            return  # its event brings it back, with a Released that everybody has seen
        policy = volume.spec.persistent_volume_reclaim_policy
        maker = volume.metadata.annotations.get(PROVISIONED_BY, "")
        if policy == "Retain" or (maker and maker != LOCAL_DRIVER) or volume.status.phase == "Failed":
            return
        if policy != "Delete" or not maker:
            what = "deletable" if policy == "Delete" else "recyclable"
            text = f'error getting deleter volume plugin for volume "{volume.name}": no {what} volume plugin matched'
            await self._write_volume(volume, "Failed", text)
            self._recorder.event(reference(PERSISTENT_VOLUME, volume), "Warning", "VolumeFailedDelete", text)
            return
        await self._remove(volume)
        try:
            await self._client.delete(PERSISTENT_VOLUME, volume.name, uid=volume.metadata.uid)
        except (NotFound, Conflict):
            log.debug("volume %s is gone already", volume.name)

    async def _remove(self, volume: PersistentVolume) -> None:
        """Have the folder removed by its node; one that isn't there any more has taken it along."""
        hosts = binding.node_names(volume)
        for node in self._nodes.values():
            if node.metadata.labels.get(HOSTNAME, node.name) not in hosts:
                continue
            handle = (volume.spec.csi or {}).get("volumeHandle", "")
            try:
                await self._client.request("DELETE", NODE.path("", node.name, f"proxy/volumes/{handle}"))
            except NotFound:
                continue
            except ApiError as error:
                about = reference(PERSISTENT_VOLUME, volume)
                self._recorder.event(about, "Warning", "VolumeFailedDelete", error.message)
                raise

    # Writes

    async def _write_volume(self, volume: PersistentVolume, phase: str, message: str = "") -> None:
        status: Document = {"phase": phase, "message": message or None}
        if phase != volume.status.phase:
            status["lastPhaseTransitionTime"] = timestamp(self._clock())
        patch = {"metadata": {"uid": volume.metadata.uid}, "status": status}
        try:
            await self._client.patch(PERSISTENT_VOLUME, volume.name, "", patch, subresource="status")
        except NotFound:
            log.debug("volume %s is gone, its phase needn't be written", volume.name)

    async def _write_claim(self, claim: PersistentVolumeClaim, status: Document) -> None:
        patch = {"metadata": {"uid": claim.metadata.uid}, "status": status}
        try:
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, claim.name, claim.namespace, patch, subresource="status")
        except NotFound:
            log.debug("claim %s is gone, its status needn't be written", claim.key)
