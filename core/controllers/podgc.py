"""Pods that nobody else would remove: of nodes that are gone, terminated ones beyond a threshold, terminating ones without a node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from core.api.kinds import NODE, POD
from core.api.meta import disruption_target
from core.api.views import Node, Pod
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.transport import STRATEGIC_PATCH
from core.client.workqueue import WorkQueue
from core.clock import wall
from core.errors import Conflict, NotFound

__all__ = ["PodGarbageCollector", "excess", "orphans", "unscheduled_terminating"]

TERMINATED_THRESHOLD = 12500
QUARANTINE = 40.0
"""Seconds that a node must be missed before its Pods go: it may be registering anew."""
ALL = "all"


def excess(pods: Iterable[Pod], threshold: int) -> list[Pod]:
    """Terminated Pods beyond the threshold, the oldest first."""
    ended = [pod for pod in pods if pod.terminal and pod.metadata.deletion_timestamp is None]
    over = len(ended) - threshold
    if over <= 0:
        return []
    return sorted(ended, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.key))[:over]


def orphans(pods: Iterable[Pod], nodes: Collection[str]) -> list[Pod]:
    """Pods bound to a node that isn't among `nodes`."""
    return [pod for pod in pods if pod.spec.node_name and pod.spec.node_name not in nodes]


def unscheduled_terminating(pods: Iterable[Pod]) -> list[Pod]:
    """Pods that are to go and have no node that would let them go."""
    return [pod for pod in pods if pod.metadata.deletion_timestamp is not None and not pod.spec.node_name]


class PodGarbageCollector:
    """Looks when something happened that may call for it; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        clock: Callable[[], float] = wall,
        threshold: int = TERMINATED_THRESHOLD,
        quarantine: float = QUARANTINE,
    ) -> None:
        self._client = client
        self._clock = clock
        self._threshold = threshold
        self._quarantine = quarantine
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._nodes: Informer[Node] = informers.watch(NODE, Node)
        self._missed: dict[str, float] = {}
        self._ended: set[str] = set()
        self.queue = WorkQueue()
        self._reconciler = Reconciler("podgc", self.sync, queue=self.queue)
        self._pods.add_handler(self.on_pod)
        self._nodes.add_handler(self.on_node)

    async def start(self) -> None:
        await self._pods.wait_synced()
        await self._nodes.wait_synced()
        self.queue.add(ALL)
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            if old is not None:
                self._ended.discard(old.key)
            return
        if new.terminal:
            self._ended.add(new.key)
            if len(self._ended) > self._threshold:
                self.queue.add(ALL)
        node = new.spec.node_name
        lost = node and (old is None or not old.spec.node_name) and self._nodes.get(node) is None
        if lost or (not node and new.metadata.deletion_timestamp is not None):
            self.queue.add(ALL)

    def on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self.queue.add(ALL)

    async def sync(self, key: str) -> float | None:
        """Collect all there is to collect; seconds until a quarantine ends."""
        pods = self._pods.values()
        for pod in [*excess(pods, self._threshold), *unscheduled_terminating(pods)]:
            await self._remove(pod)
        return await self._collect_orphans(pods)

    async def _collect_orphans(self, pods: Iterable[Pod]) -> float | None:
        lost = orphans(pods, {each.name for each in self._nodes.values()})
        names = {pod.spec.node_name for pod in lost}
        now = self._clock()
        self._missed = {name: self._missed.get(name, now) for name in names}
        waits = []
        for name, since in list(self._missed.items()):
            left = since + self._quarantine - now
            if left > 0:
                waits.append(left)
            elif await self._node_gone(name):
                for pod in lost:
                    if pod.spec.node_name == name:
                        await self._give_up(pod)
                        await self._remove(pod)
        return min(waits, default=None)

    async def _give_up(self, pod: Pod) -> None:
        """A Pod that is kept by a finalizer will never be told of by its node: it has failed."""
        if pod.terminal:
            return
        condition = disruption_target("DeletionByPodGC", "PodGC: node no longer exists", self._clock())
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}}
        try:
            await self._client.patch(
                POD, pod.name, pod.namespace, patch, patch_type=STRATEGIC_PATCH, subresource="status"
            )
        except (NotFound, Conflict):
            return

    async def _node_gone(self, name: str) -> bool:
        try:
            await self._client.get(NODE, name, as_=Node)
        except NotFound:
            return True
        return False

    async def _remove(self, pod: Pod) -> None:
        try:
            await self._client.delete(POD, pod.name, pod.namespace, grace=0, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return
