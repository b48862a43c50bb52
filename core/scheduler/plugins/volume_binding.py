"""VolumeBinding: a Pod goes where its volumes are; those that wait for their first consumer are made where it goes.

After k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding. Which volume a claim gets is the volume controller's choice: here the
chosen node is written on the claim, and the Pod is bound once the claim is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from core.api.nodeselector import NodeTerm
from core.api.views import PersistentVolume, PersistentVolumeClaim, Pod, StorageClass
from core.api.volumes import BIND_COMPLETED, NO_PROVISIONER, SELECTED_NODE, claim_name
from core.client.informer import Informer, Informers
from core.client.rest import Client
from core.errors import Conflict, NotFound
from core.scheduler.framework import SKIP, ClusterEvent, CycleState, Skip, Status
from core.scheduler.snapshot import NodeInfo

__all__ = ["VolumeBinding"]

PATIENCE = 60.0
"""Seconds that a choice waits for the claims to be bound before it is given up."""


class _Needs:
    """What a Pod's claims ask of a node: for each bound one the terms of its volume, and those that aren't bound yet.

    Of the latter, `found` says for each that takes only volumes which are there (`kubernetes.io/no-provisioner`) which those are.
    """

    __slots__ = ("found", "terms", "unbound")

    def __init__(self) -> None:
        self.terms: list[list[NodeTerm]] = []
        self.unbound: list[PersistentVolumeClaim] = []
        self.found: list[list[list[NodeTerm] | None]] = []


class VolumeBinding:
    name = "VolumeBinding"
    helped_by = frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.VOLUME_CHANGED})
    _conflict = Status(name, ("node(s) didn't match PersistentVolume's node affinity",))
    _none = Status(name, ("node(s) didn't find available persistent volumes to bind",))

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._claims: Informer[PersistentVolumeClaim] = informers.watch(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self._volumes: Informer[PersistentVolume] = informers.watch(PERSISTENT_VOLUME, PersistentVolume)
        self._classes: Informer[StorageClass] = informers.watch(STORAGE_CLASS, StorageClass)
        self._changed = asyncio.Event()

    async def wait_synced(self) -> None:
        for each in (self._claims, self._volumes, self._classes):
            await each.wait_synced()

    def watch(self, tell: Callable[[ClusterEvent], None]) -> None:
        def on_change(old: object, new: object) -> None:
            self._changed.set()
            tell(ClusterEvent.VOLUME_CHANGED)

        self._claims.add_handler(on_change)
        self._volumes.add_handler(on_change)
        self._classes.add_handler(on_change)

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        if not pod.spec.volumes:
            return SKIP
        names = [
            name
            for each in pod.spec.volumes
            if (name := claim_name(pod.name, each.name, each.persistent_volume_claim, each.ephemeral))
        ]
        if not names:
            return SKIP
        needs = _Needs()
        for name in names:
            refused = self._look(pod.namespace, name, needs)
            if refused:
                return Status(self.name, (refused,))
        state[self.name] = needs
        return None

    def _look(self, namespace: str, name: str, needs: _Needs) -> str:
        """Take one claim in; why no node will do, or ""."""
        claim = self._claims.get(f"{namespace}/{name}")
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if claim.metadata.deletion_timestamp is not None:
            return f'persistentvolumeclaim "{name}" is being deleted'
        if claim.status.phase == "Lost":
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
        if BIND_COMPLETED in claim.metadata.annotations and claim.spec.volume_name:
            volume = self._volumes.get(claim.spec.volume_name)
            if volume is None:
                return (
                    f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
                )
            terms = _terms(volume)
            if terms is not None:
                needs.terms.append(terms)
            return ""
        storage_class = self._classes.get(claim.spec.storage_class_name or "")
        if storage_class is None or storage_class.volume_binding_mode != "WaitForFirstConsumer":
            return "pod has unbound immediate PersistentVolumeClaims"
        needs.unbound.append(claim)
        if storage_class.provisioner == NO_PROVISIONER and not claim.spec.volume_name:
            fits = [each for each in self._volumes.values() if _may_get(each, claim)]
            needs.found.append([_terms(each) for each in fits])
        return ""

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        needs: _Needs = state[self.name]
        name, labels = node.name, node.labels
        for terms in needs.terms:
            if not any(each.matches(name, labels) for each in terms):
                return self._conflict
        for found in needs.found:
            if not any(terms is None or any(each.matches(name, labels) for each in terms) for terms in found):
                return self._none
        return None

    async def pre_bind(self, state: CycleState, pod: Pod, node_name: str) -> None:
        needs: _Needs = state[self.name]
        if not needs.unbound:
            return
        for claim in needs.unbound:
            meta = claim.metadata
            patch = {"metadata": {"uid": meta.uid, "annotations": {SELECTED_NODE: node_name}}}
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, meta.name, meta.namespace, patch)
        asked = False
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    waiting = [each for each in needs.unbound if not self._bound(each, node_name, asked=asked)]
                    if not waiting:
                        return
                    asked = asked or all(self._says(each, node_name) for each in waiting)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Conflict(f"the claims of {pod.key} were not bound within {PATIENCE:.0f} s") from None

    def _says(self, claim: PersistentVolumeClaim, node_name: str) -> bool:
        now = self._claims.get(claim.key)
        return now is not None and now.metadata.annotations.get(SELECTED_NODE) == node_name

    def _bound(self, claim: PersistentVolumeClaim, node_name: str, *, asked: bool) -> bool:
        """Raises `ApiError` where it never will be: it is gone, or another node must be chosen."""
        now = self._claims.get(claim.key)
        if now is None or now.metadata.uid != claim.metadata.uid or now.metadata.deletion_timestamp is not None:
            raise NotFound(f'persistentvolumeclaim "{claim.name}" is gone')
        if now.status.phase == "Bound":
            return True
        if asked and now.metadata.annotations.get(SELECTED_NODE) != node_name:
            raise Conflict(f'persistentvolumeclaim "{claim.name}" can\'t have a volume on {node_name}')
        return False


def _terms(volume: PersistentVolume) -> list[NodeTerm] | None:
    """None where any node can have it; what can't be read matches none."""
    required = (volume.spec.node_affinity or {}).get("required")
    if required is None:
        return None
    try:
        return [NodeTerm(each) for each in required.get("nodeSelectorTerms") or ()]
    except (KeyError, TypeError):
        return []


def _may_get(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    wanted = volume.spec.claim_ref
    if wanted is not None:
        return (wanted.get("namespace"), wanted.get("name")) == (claim.namespace, claim.name)
    return volume.spec.storage_class_name == claim.spec.storage_class_name and volume.status.phase == "Available"
