"""The disruption controller: how many more Pods of a PodDisruptionBudget may be evicted. `budget` is the pure part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.api.kinds import POD, POD_DISRUPTION_BUDGET, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET
from core.api.meta import Document, set_condition
from core.api.selectors import from_label_selector
from core.api.views import DisruptionBudget, Pod, ReplicaSet, ReplicationController, StatefulSet
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import parse_time, wall
from core.controllers.adoption import by_namespace
from core.errors import NotFound

__all__ = ["DisruptionController", "budget"]

_FORGET = 120.0
"""Seconds after which an eviction that has had no effect is no longer counted."""


def _share(value: Any, of: int) -> int:
    return math.ceil(of * int(value.rstrip("%") or 0) / 100) if isinstance(value, str) else int(value)


def budget(found: DisruptionBudget, pods: Sequence[Pod], expected: int, now: float) -> Document | None:
    """The status as it should be, None where the object has it. `expected` is how many Pods their controllers want."""
    spec = found.spec
    if spec.max_unavailable is not None:
        wanted = max(expected - _share(spec.max_unavailable, expected), 0)
    elif isinstance(spec.min_available, str):
        wanted = _share(spec.min_available, expected)
    else:
        wanted, expected = spec.min_available if spec.min_available is not None else 1, len(pods)
    uids = {pod.name for pod in pods if pod.metadata.deletion_timestamp is None}
    disrupted = {
        name: at for name, at in found.status.disrupted_pods.items() if name in uids and parse_time(at) + _FORGET > now
    }
    healthy = sum(pod.ready and pod.metadata.deletion_timestamp is None and pod.name not in disrupted for pod in pods)
    allowed = max(healthy - wanted, 0) if expected > 0 else 0
    status = "True" if allowed else "False"
    reason = "SufficientPods" if allowed else "InsufficientPods"
    before = [
        {"type": each.type, "status": each.status, "reason": each.reason, "message": each.message, "lastTransitionTime": each.last_transition_time}
        for each in found.status.conditions
    ]  # fmt: skip
    conditions = set_condition(
        before, "DisruptionAllowed", status, reason, "", now, observedGeneration=found.metadata.generation
    )
    was = found.status
    counts = (allowed, healthy, wanted, expected, found.metadata.generation)
    if counts == (
        was.disruptions_allowed,
        was.current_healthy,
        was.desired_healthy,
        was.expected_pods,
        was.observed_generation,
    ) and (
        disrupted == was.disrupted_pods
        and [each.status for each in was.conditions] == [each["status"] for each in conditions]
    ):
        return None
    names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods", "observedGeneration")
    removed = {name: None for name in was.disrupted_pods if name not in disrupted}
    return {
        **dict(zip(names, counts, strict=True)),
        "disruptedPods": {**disrupted, **removed},
        "conditions": conditions,
    }


class DisruptionController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._budgets: Informer[DisruptionBudget] = informers.watch(POD_DISRUPTION_BUDGET, DisruptionBudget)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._scaled: Mapping[str, Informer[ReplicaSet] | Informer[ReplicationController] | Informer[StatefulSet]] = {
            REPLICA_SET.kind: informers.watch(REPLICA_SET, ReplicaSet),
            REPLICATION_CONTROLLER.kind: informers.watch(REPLICATION_CONTROLLER, ReplicationController),
            STATEFUL_SET.kind: informers.watch(STATEFUL_SET, StatefulSet),
        }
        self._pods.add_index("namespace", by_namespace)
        self.queue = WorkQueue()
        self._reconciler = Reconciler("disruption", self.sync, queue=self.queue, workers=1)
        self._budgets.add_handler(self.on_budget)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        for each in (self._budgets, self._pods, *self._scaled.values()):
            await each.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_budget(self, old: DisruptionBudget | None, new: DisruptionBudget | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        found = new or old
        if found is None or (old is not None and new is not None and _same(old, new)):
            return
        for each in self._budgets.values():
            if each.namespace == found.namespace and _selects(each, found):
                self.queue.add(each.key)

    async def sync(self, key: str) -> float | None:
        found = self._budgets.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            return None
        pods = [
            pod
            for pod in self._pods.by_index("namespace", found.namespace)
            if not pod.terminal and _selects(found, pod)
        ]
        status = budget(found, pods, self._expected(pods), self._clock())
        if status is not None:
            # What evictions have taken meanwhile must not be given back.
            metadata = {"resourceVersion": found.metadata.resource_version}
            patch = {"metadata": metadata, "status": status}
            try:
                await self._client.patch(
                    POD_DISRUPTION_BUDGET, found.name, found.namespace, patch, subresource="status"
                )
            except NotFound:
                return None
        return _FORGET if found.status.disrupted_pods else None

    def _expected(self, pods: Iterable[Pod]) -> int:
        """As many as their controllers want; a Pod without one counts for itself."""
        wanted: dict[str, int] = {}
        for pod in pods:
            controller = pod.metadata.controller
            if controller is None:
                wanted[pod.metadata.uid] = 1
                continue
            key = f"{pod.namespace}/{controller.name}"
            informer = self._scaled.get(controller.kind)
            owner = informer.get(key) if informer is not None else None
            if owner is not None:
                wanted[controller.uid] = owner.spec.replicas
            else:
                wanted[controller.uid] = wanted.get(controller.uid, 0) + 1
        return sum(wanted.values())


def _same(old: Pod, new: Pod) -> bool:
    """Whether nothing changed that a budget counts."""
    return (old.ready, old.terminal, old.metadata.deletion_timestamp, old.metadata.labels) == (
        new.ready, new.terminal, new.metadata.deletion_timestamp, new.metadata.labels,
    )  # fmt: skip


def _selects(found: DisruptionBudget, pod: Pod) -> bool:
    if found.spec.selector is None:
        return False
    try:
        selector = from_label_selector(found.spec.selector)
    except (KeyError, ValueError, TypeError):
        return False
    return selector is None or selector.matches(pod.metadata.labels)
