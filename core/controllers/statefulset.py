"""The StatefulSet controller. What to do is decided in `core.controllers.stateful`, one step per sync."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from core.api.kinds import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET
from core.api.views import ControllerRevision, PersistentVolumeClaim, Pod, StatefulSet
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import wall
from core.controllers import stateful
from core.controllers.adoption import Adoption, by_controller, parse_selector
from core.controllers.revisions import Revisions, hash_of
from core.errors import AlreadyExists, ApiError, NotFound

__all__ = ["StatefulSetController"]

log = logging.getLogger(__name__)


class StatefulSetController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._claims: Informer[PersistentVolumeClaim] = informers.watch(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self._sets: Informer[StatefulSet] = informers.watch(STATEFUL_SET, StatefulSet)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._pods.add_index("owner", by_controller)
        self._revisions = Revisions(client, informers, STATEFUL_SET)
        self._adoption: Adoption[Pod] = Adoption(client, STATEFUL_SET, POD)
        self._recorder = Recorder(client, component="statefulset-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("statefulset", self.sync, queue=self.queue, workers=2)
        self._sets.add_handler(self.on_set)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._sets.wait_synced()
        await self._pods.wait_synced()
        await self._claims.wait_synced()
        await self._revisions.informer.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_set(self, old: StatefulSet | None, new: StatefulSet | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        for each in (old, new):
            controller = each.metadata.controller if each is not None else None
            if each is not None and controller is not None and controller.kind == STATEFUL_SET.kind:
                self.queue.add(f"{each.namespace}/{controller.name}")

    async def sync(self, key: str) -> float | None:
        """One step of `namespace/name`; seconds until a Pod has been ready for long enough. Names are fixed, so that a stale cache makes no Pod twice."""
        found = self._sets.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            return None
        now = self._clock()
        uid = found.metadata.uid
        candidates = [*self._pods.by_index("owner", uid), *self._pods.by_index("owner", f"{found.namespace}/")]
        ours = [pod for pod in candidates if pod.metadata.controller is not None or stateful.ordinal(found, pod) >= 0]
        pods = await self._adoption.claim(found, parse_selector(found.spec.selector), ours)
        update = await self._revisions.current(found, found.spec.template)
        step = stateful.decide(found, pods, hash_of(update, found), now)
        if found.spec.volume_claim_templates:
            await self._own_claims(found, pods)
        for number, new in step.create:
            await self._create(found, number, update if new else self._old(found, update))
        for pod in step.delete:
            await self._delete(found, pod)
        status = stateful.new_status(found, pods, update.name, now)
        if status is not None:
            patch = {"metadata": {"uid": uid}, "status": status}
            try:
                await self._client.patch(STATEFUL_SET, found.name, found.namespace, patch, subresource="status")
            except NotFound:
                log.debug("%s is gone, its status needn't be written", key)
                return None
        await self._revisions.trim(
            found, {update.name, found.status.current_revision}, found.spec.revision_history_limit
        )
        return stateful.next_check(found, pods, now)

    async def _own_claims(self, found: StatefulSet, pods: Sequence[Pod]) -> None:
        """Before a Pod is deleted: its claims go with whom the set says."""
        for name, owner in stateful.claim_owners(found, pods).items():
            claim = self._claims.get(f"{found.namespace}/{name}")
            references = stateful.claim_references(claim, owner) if claim is not None else None
            if claim is None or references is None:
                continue
            meta = claim.metadata
            patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references or None}}  # fmt: skip
            try:
                await self._client.patch(PERSISTENT_VOLUME_CLAIM, meta.name, meta.namespace, patch)
            except NotFound:
                continue

    def _old(self, found: StatefulSet, update: ControllerRevision) -> ControllerRevision:
        known = self._revisions.of(found)
        return next((each for each in known if each.name == found.status.current_revision), update)

    async def _create(self, found: StatefulSet, number: int, revision: ControllerRevision) -> None:
        for claim in stateful.claims(found, number):
            try:
                await self._client.create(PERSISTENT_VOLUME_CLAIM, claim, found.namespace)
            except AlreadyExists:
                continue
            text = f"create Claim {claim['metadata']['name']} Pod {found.name}-{number} in StatefulSet {found.name} success"
            self._recorder.event(reference(STATEFUL_SET, found), "Normal", "SuccessfulCreate", text)
        template = {key: value for key, value in revision.data["spec"]["template"].items() if key != "$patch"}
        document = stateful.pod_document(found, template, number, hash_of(revision, found))
        name = document["metadata"]["name"]
        try:
            await self._client.create(POD, document, found.namespace)
        except AlreadyExists:
            return
        except ApiError as error:
            text = f"create Pod {name} in StatefulSet {found.name} failed error: {error.message}"
            self._recorder.event(reference(STATEFUL_SET, found), "Warning", "FailedCreate", text)
            raise
        text = f"create Pod {name} in StatefulSet {found.name} successful"
        self._recorder.event(reference(STATEFUL_SET, found), "Normal", "SuccessfulCreate", text)

    async def _delete(self, found: StatefulSet, pod: Pod) -> None:
        try:
            await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except NotFound:
            return
        text = f"delete Pod {pod.name} in StatefulSet {found.name} successful"
        self._recorder.event(reference(STATEFUL_SET, found), "Normal", "SuccessfulDelete", text)
