"""The claims of Pods' own volumes (`ephemeral.volumeClaimTemplate`): made with the Pod, and gone with it, as it owns them.

https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
"""

from __future__ import annotations

from core.api.kinds import PERSISTENT_VOLUME_CLAIM, POD
from core.api.meta import Document, controller_reference
from core.api.views import PersistentVolumeClaim, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.errors import AlreadyExists

__all__ = ["EphemeralVolumes", "claim_documents"]


def claim_documents(pod: Pod) -> list[Document]:
    made = []
    for each in pod.spec.volumes:
        if each.ephemeral is None:
            continue
        template = each.ephemeral.get("volumeClaimTemplate") or {}
        metadata = template.get("metadata") or {}
        made.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": f"{pod.name}-{each.name}",
                    "namespace": pod.namespace,
                    "labels": dict(metadata.get("labels") or {}),
                    "annotations": dict(metadata.get("annotations") or {}),
                    "ownerReferences": [controller_reference(POD, pod.name, pod.metadata.uid)],
                },
                "spec": template.get("spec") or {},
            }
        )
    return made


class EphemeralVolumes:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._claims: Informer[PersistentVolumeClaim] = informers.watch(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self._recorder = Recorder(client, component="ephemeral-volume-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("ephemeral-volumes", self.sync, queue=self.queue)
        self._pods.add_handler(self.on_pod)
        self._claims.add_handler(self.on_claim)

    async def start(self) -> None:
        await self._pods.wait_synced()
        await self._claims.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and old is None and any(each.ephemeral is not None for each in new.spec.volumes):
            self.queue.add(new.key)

    def on_claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """One that somebody took away is made again."""
        owner = old.metadata.controller if old is not None and new is None else None
        if old is not None and owner is not None and owner.kind == POD.kind:
            self.queue.add(f"{old.namespace}/{owner.name}")

    async def sync(self, key: str) -> None:
        pod = self._pods.get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None or pod.terminal:
            return
        for document in claim_documents(pod):
            name = document["metadata"]["name"]
            there = self._claims.get(f"{pod.namespace}/{name}")
            if there is None:
                try:
                    await self._client.create(PERSISTENT_VOLUME_CLAIM, document, pod.namespace)
                except AlreadyExists:
                    continue
            elif there.metadata.controller is None or there.metadata.controller.uid != pod.metadata.uid:
                text = f'PVC "{pod.namespace}/{name}" was not created for pod "{key}" (pod is not owner)'
                about = reference(POD, pod)
                self._recorder.event(about, "Warning", "EphemeralVolumeCreationFailed", text)
