"""The HorizontalPodAutoscaler controller: replicas by what Pods use. What to do is decided in `core.controllers.scaling`.

It looks at each autoscaler every `PERIOD` seconds, and at once where its spec changes; usage comes from `metrics.k8s.io`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from core.api.kinds import BUILT_IN, HORIZONTAL_POD_AUTOSCALER, POD, POD_METRICS, Kind
from core.api.meta import Document, set_condition
from core.api.selectors import Selector, parse_labels
from core.api.views import HorizontalPodAutoscaler, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import wall
from core.controllers.adoption import by_namespace
from core.controllers.scaling import Decision, History, World, decide, new_status
from core.errors import ApiError, NotFound

__all__ = ["PERIOD", "HorizontalController"]

log = logging.getLogger(__name__)

PERIOD = 15.0


class HorizontalController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._autoscalers: Informer[HorizontalPodAutoscaler] = informers.watch(
            HORIZONTAL_POD_AUTOSCALER, HorizontalPodAutoscaler
        )
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._pods.add_index("namespace", by_namespace)
        self._histories: dict[str, History] = {}
        self._selectors: dict[str, Selector] = {}
        """What the targets of the autoscalers select, by the autoscalers' keys."""
        self._recorder = Recorder(client, component="horizontal-pod-autoscaler")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("horizontal", self.sync, queue=self.queue, workers=4)
        self._autoscalers.add_handler(self.on_autoscaler)

    async def start(self) -> None:
        await self._autoscalers.wait_synced()
        await self._pods.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_autoscaler(self, old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._histories.pop(old.key, None)
            self._selectors.pop(old.key, None)
        if new is not None and (old is None or new.spec != old.spec or new.metadata.uid != old.metadata.uid):
            self.queue.add(new.key)

    async def sync(self, key: str) -> float | None:
        found = self._autoscalers.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            return None
        now = self._clock()
        try:
            kind = await self._target(found.spec.scale_target_ref)
            name = found.spec.scale_target_ref.get("name", "")
            scale = await self._client.get(kind, name, found.namespace, subresource="scale")
        except ApiError as error:
            await self._unable(found, error.message, now)
            return PERIOD
        world = await self._look(found, scale)
        decision = decide(found, world, self._histories.get(key, History()), now)
        self._histories[key] = decision.history
        for kind_, reason, message in decision.events:
            self._recorder.event(reference(HORIZONTAL_POD_AUTOSCALER, found), kind_, reason, message)
        conditions, scaled = decision.conditions, False
        if decision.replicas is not None:
            conditions, scaled = await self._scale(found, kind, decision, world.replicas, now)
        status = new_status(found, decision, conditions, world.replicas, now, scaled=scaled)
        await self._write(found, status)
        return PERIOD

    async def _target(self, target: dict[str, str]) -> Kind:
        """Raises `ApiError` where nothing of that name has replicas to scale."""
        version, kind = target.get("apiVersion", ""), target.get("kind", "")
        group = version.rpartition("/")[0]
        for each in BUILT_IN:
            if (each.group, each.kind) == (group, kind) and "scale" in each.subresources:
                return each
        path = f"/apis/{version}" if group else f"/api/{version or 'v1'}"
        answer = msgspec.json.decode(await self._client.request("GET", path))
        names = {each["name"]: each for each in answer.get("resources") or ()}
        for name, each in names.items():
            if each["kind"] == kind and f"{name}/scale" in names:
                return Kind(group, version.rpartition("/")[2], kind, name, bool(each.get("namespaced")))
        raise NotFound(f'no matches for kind "{kind}" in group "{group}"')

    async def _look(self, found: HorizontalPodAutoscaler, scale: Document) -> World:
        text = str((scale.get("status") or {}).get("selector") or "")
        replicas = int((scale.get("spec") or {}).get("replicas") or 0)
        if not text:
            self._selectors.pop(found.key, None)
            return World(replicas, "", (), ())
        selector = self._selectors[found.key] = parse_labels(text)
        pods = [each for each in self._pods.by_index("namespace", found.namespace) if selector.matches(each.metadata.labels)]  # fmt: skip
        rivals = [
            key
            for key, other in self._selectors.items()
            if key != found.key and key.startswith(f"{found.namespace}/") and any(other.matches(each.metadata.labels) for each in pods)
        ]  # fmt: skip
        metrics, _ = await self._client.list(POD_METRICS, found.namespace, labels=text, limit=0)
        return World(replicas, text, pods, metrics, rivals)

    async def _scale(
        self, found: HorizontalPodAutoscaler, kind: Kind, decision: Decision, before: int, now: float
    ) -> tuple[list[Document], bool]:
        """The conditions that tell how it went, and whether it did."""
        wanted = decision.replicas or 0
        about = reference(HORIZONTAL_POD_AUTOSCALER, found)
        said = f"New size: {wanted}; reason: {decision.reason}"
        try:
            await self._client.scale(kind, found.spec.scale_target_ref["name"], found.namespace, wanted)
        except ApiError as error:
            self._recorder.event(about, "Warning", "FailedRescale", f"{said}; error: {error.message}")
            text = f"the HPA controller was unable to update the target scale: {error.message}"
            return set_condition(decision.conditions, "AbleToScale", "False", "FailedUpdateScale", text, now), False
        self._recorder.event(about, "Normal", "SuccessfulRescale", said)
        self._histories[found.key] = decision.history.scaled(before, wanted, now)
        text = f"the HPA controller was able to update the target scale to {wanted}"
        return set_condition(decision.conditions, "AbleToScale", "True", "SucceededRescale", text, now), True

    async def _unable(self, found: HorizontalPodAutoscaler, message: str, now: float) -> None:
        self._recorder.event(reference(HORIZONTAL_POD_AUTOSCALER, found), "Warning", "FailedGetScale", message)
        text = f"the HPA controller was unable to get the target's current scale: {message}"
        conditions = list(found.status.get("conditions") or ())
        conditions = set_condition(conditions, "AbleToScale", "False", "FailedGetScale", text, now)
        await self._write(found, {**found.status, "conditions": conditions})

    async def _write(self, found: HorizontalPodAutoscaler, status: Document) -> None:
        if status == found.status:
            return
        patch = {"metadata": {"uid": found.metadata.uid}, "status": status}
        try:
            await self._client.patch(
                HORIZONTAL_POD_AUTOSCALER, found.name, found.namespace, patch, subresource="status"
            )
        except NotFound:
            log.debug("%s is gone, its status needn't be written", found.key)
