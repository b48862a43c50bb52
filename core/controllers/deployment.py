"""The Deployment controller: ReplicaSets in the sizes that `core.controllers.rollout` decides on, one step per sync."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from core.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from core.api.views import Deployment, Pod, ReplicaSet
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import wall
from core.controllers import rollout
from core.controllers.adoption import Adoption, by_controller, parse_selector
from core.controllers.rollout import REVISION, REVISION_HISTORY, Scaling
from core.errors import AlreadyExists, ApiError, NotFound

__all__ = ["DeploymentController"]

log = logging.getLogger(__name__)

WORKERS = 5


class DeploymentController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._deployments: Informer[Deployment] = informers.watch(DEPLOYMENT, Deployment)
        self._sets: Informer[ReplicaSet] = informers.watch(REPLICA_SET, ReplicaSet)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._sets.add_index("owner", by_controller)
        self._pods.add_index("owner", by_controller)
        self._deployments.add_index("namespace", lambda found: [found.namespace])
        self._adoption: Adoption[ReplicaSet] = Adoption(client, DEPLOYMENT, REPLICA_SET)
        self._recorder = Recorder(client, component="deployment-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("deployment", self.sync, queue=self.queue, workers=WORKERS)
        self._deployments.add_handler(self.on_deployment)
        self._sets.add_handler(self.on_set)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._deployments.wait_synced()
        await self._sets.wait_synced()
        await self._pods.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    # Events only add keys.

    def on_deployment(self, old: Deployment | None, new: Deployment | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add(found.key)

    def on_set(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for each in (old, new):
            controller = each.metadata.controller if each is not None else None
            if each is not None and controller is not None and controller.kind == DEPLOYMENT.kind:
                self.queue.add(f"{each.namespace}/{controller.name}")
        if new is not None and new.metadata.controller is None:
            for found in self._deployments.by_index("namespace", new.namespace):
                selector = parse_selector(found.spec.selector)
                if selector is not None and selector.matches(new.metadata.labels):
                    self.queue.add(found.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """A Recreate waits for the last old Pod to be gone."""
        controller = old.metadata.controller if old is not None else None
        if new is not None or old is None or controller is None or controller.kind != REPLICA_SET.kind:
            return
        owner = self._sets.get(f"{old.namespace}/{controller.name}")
        above = owner.metadata.controller if owner is not None else None
        if above is not None and above.kind == DEPLOYMENT.kind:
            self.queue.add(f"{old.namespace}/{above.name}")

    # The work

    async def sync(self, key: str) -> float | None:
        """One step of `namespace/name`; seconds until the rollout must be looked at though nothing happens."""
        found = self._deployments.get(key)
        if found is None:
            return None
        selector = parse_selector(found.spec.selector)
        if selector is None:
            return None
        uid = found.metadata.uid
        candidates = [*self._sets.by_index("owner", uid), *self._sets.by_index("owner", f"{found.namespace}/")]
        sets = await self._adoption.claim(found, selector, candidates)
        new = rollout.find_new(found, sets)
        old = [each for each in sets if each is not new]
        if found.metadata.deletion_timestamp is not None:
            await self._write_status(found, new, old)
            return None
        if new is not None and not found.spec.paused:
            await self._mark(found, new, old)
        if found.spec.paused or rollout.scaling_event(found, sets):
            await self._scale_all(found, rollout.proportional(found, new, old), sets)
        elif new is None:
            return await self._begin(found, old)
        elif found.spec.strategy.get("type") == "Recreate":
            await self._recreate(found, new, old)
        else:
            await self._scale_all(found, rollout.rolling(found, new, old), sets)
        await self._write_status(found, new, old)
        return rollout.next_check(found, self._clock())

    async def _begin(self, found: Deployment, old: Sequence[ReplicaSet]) -> float | None:
        """The template is new: so is the ReplicaSet, for Recreate once no old Pod is left."""
        if found.spec.strategy.get("type") == "Recreate" and self._old_remain(old):
            await self._scale_all(found, rollout.recreate(old), old)
            await self._write_status(found, None, old)
            return None
        document = rollout.new_set(found, old)
        name = document["metadata"]["name"]
        try:
            made = await self._client.create(REPLICA_SET, document, found.namespace, as_=ReplicaSet)
        except AlreadyExists:
            await self._collided(found, name)
            return None
        except ApiError as error:
            why = f'Failed to create new replica set "{name}": {error.message}'
            self._recorder.event(reference(DEPLOYMENT, found), "Warning", "ReplicaSetCreateError", why)
            await self._write_status(found, None, old, refused=error.message)
            raise
        if made.spec.replicas:
            message = f"Scaled up replica set {name} from 0 to {made.spec.replicas}"
            self._recorder.event(reference(DEPLOYMENT, found), "Normal", "ScalingReplicaSet", message)
        await self._mark_deployment(found, made.metadata.annotations[REVISION])
        await self._write_status(found, made, old, created=name)
        return rollout.next_check(found, self._clock())

    def _old_remain(self, old: Sequence[ReplicaSet]) -> bool:
        return any(
            each.spec.replicas
            or each.status.replicas
            or any(not pod.terminal for pod in self._pods.by_index("owner", each.metadata.uid))
            for each in old
        )

    async def _collided(self, found: Deployment, name: str) -> None:
        """The name is taken: by our own, which the cache is about to show, or by another template, which makes us count on."""
        try:
            taken = await self._client.get(REPLICA_SET, name, found.namespace, as_=ReplicaSet)
        except NotFound:
            self.queue.add(found.key)
            return
        owner = taken.metadata.controller
        mine = owner is not None and owner.uid == found.metadata.uid
        if mine and rollout.same_template(taken.spec.template, found.spec.template):
            return
        patch = {"status": {"collisionCount": (found.status.collision_count or 0) + 1}}
        await self._client.patch(DEPLOYMENT, found.name, found.namespace, patch, subresource="status")

    async def _recreate(self, found: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> None:
        if self._old_remain(old):
            await self._scale_all(found, rollout.recreate(old), [*old, new])
        elif new.spec.replicas != found.spec.replicas:
            await self._scale_all(found, [Scaling(new, found.spec.replicas)], [*old, new])

    async def _mark(self, found: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> None:
        """The new ReplicaSet has the highest revision, and the Deployment's annotations."""
        mine = new.metadata.annotations
        highest = max((rollout.revision(each) for each in old), default=0)
        annotations = {key: value for key, value in rollout.copied_annotations(found).items() if mine.get(key) != value}
        if rollout.revision(new) <= highest:
            annotations[REVISION] = str(highest + 1)
            if before := mine.get(REVISION):
                history = mine.get(REVISION_HISTORY)
                annotations[REVISION_HISTORY] = f"{history},{before}" if history else before
        spec = {}
        if new.spec.min_ready_seconds != found.spec.min_ready_seconds:
            spec["minReadySeconds"] = found.spec.min_ready_seconds
        if annotations or spec:
            patch = {"metadata": {"annotations": annotations}, "spec": spec}
            await self._client.patch(REPLICA_SET, new.name, new.namespace, patch)
        await self._mark_deployment(found, annotations.get(REVISION) or mine.get(REVISION, "1"))

    async def _mark_deployment(self, found: Deployment, revision: str) -> None:
        if found.metadata.annotations.get(REVISION) != revision:
            patch = {"metadata": {"annotations": {REVISION: revision}}}
            await self._client.patch(DEPLOYMENT, found.name, found.namespace, patch)

    async def _scale_all(self, found: Deployment, plan: Sequence[Scaling], sets: Sequence[ReplicaSet]) -> None:
        wanted = rollout.annotations_of(found)
        sizes = {each.set.name: each.replicas for each in plan}
        for each in sets:
            size = sizes.get(each.name, each.spec.replicas)
            stale = bool(size) and any(each.metadata.annotations.get(key) != value for key, value in wanted.items())
            if size != each.spec.replicas or stale:
                await self._scale(found, each, size, wanted)

    async def _scale(self, found: Deployment, target: ReplicaSet, size: int, annotations: dict[str, str]) -> None:
        # Decided on what the cache shows: where that is out of date the write must fail.
        metadata = {"resourceVersion": target.metadata.resource_version, "annotations": annotations}
        patch = {"metadata": metadata, "spec": {"replicas": size}}
        try:
            await self._client.patch(REPLICA_SET, target.name, target.namespace, patch)
        except NotFound:
            return
        before = target.spec.replicas
        if size != before:
            word = "up" if size > before else "down"
            message = f"Scaled {word} replica set {target.name} from {before} to {size}"
            self._recorder.event(reference(DEPLOYMENT, found), "Normal", "ScalingReplicaSet", message)

    async def _write_status(
        self,
        found: Deployment,
        new: ReplicaSet | None,
        old: Sequence[ReplicaSet],
        *,
        created: str = "",
        refused: str = "",
    ) -> None:
        status = rollout.new_status(found, new, old, self._clock(), created=created, refused=refused)
        if status is not None:
            patch = {"metadata": {"uid": found.metadata.uid}, "status": status}
            try:
                await self._client.patch(DEPLOYMENT, found.name, found.namespace, patch, subresource="status")
            except NotFound:
                log.debug("%s is gone, its status needn't be written", found.key)
                return
        if new is not None and rollout.complete(found, status or _as_document(found)):
            for each in rollout.obsolete(found, old):
                await self._forget(each)

    async def _forget(self, old: ReplicaSet) -> None:
        try:
            await self._client.delete(REPLICA_SET, old.name, old.namespace, propagation="Background")
        except NotFound:
            log.debug("%s is gone already", old.key)


def _as_document(found: Deployment) -> dict[str, int]:
    status = found.status
    return {
        "updatedReplicas": status.updated_replicas,
        "replicas": status.replicas,
        "availableReplicas": status.available_replicas,
        "observedGeneration": status.observed_generation,
    }
