"""The node-lifecycle controller: finds lost nodes, taints them, and evicts Pods as their tolerations say.

A heartbeat is a change of the node's Lease or of its status, timed by this process' own clock when it is seen, so that clocks
of nodes needn't agree. Decisions are in `core.controllers.nodehealth`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from core.api.kinds import LEASE, NODE, POD
from core.api.meta import disruption_target
from core.api.views import Lease, Node, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.transport import STRATEGIC_PATCH
from core.client.workqueue import WorkQueue
from core.clock import timestamp, wall
from core.controllers.nodehealth import GRACE, eviction_at, plan_node, ready_status
from core.errors import Conflict, NotFound

__all__ = ["NodeLifecycleController"]

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
WORKERS = 8


class NodeLifecycleController:
    """Keys of its queue: `node/NAME` and `pod/NAMESPACE/NAME`. `clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._nodes: Informer[Node] = informers.watch(NODE, Node)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._leases: Informer[Lease] = informers.watch(LEASE, Lease, namespace=LEASE_NAMESPACE)
        self._pods.add_index("node", lambda pod: [pod.spec.node_name] if pod.spec.node_name else [])
        self._heard: dict[str, float] = {}
        self._recorder = Recorder(client, component="node-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("nodelifecycle", self.sync, queue=self.queue, workers=WORKERS)
        self._nodes.add_handler(self.on_node)
        self._leases.add_handler(self.on_lease)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._nodes.wait_synced()
        await self._leases.wait_synced()
        await self._pods.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self._heard.pop(old.name, None)
            return
        if old is None or old.status != new.status:
            # Our own verdict changes the status too, but must not pass for a sign of life.
            if old is None or ready_status(new) != "Unknown":
                self._heard[new.name] = self._clock()
            self.queue.add(f"node/{new.name}")
        if old is None or old.spec != new.spec:
            self.queue.add(f"node/{new.name}")
            self._look_at_pods(new.name)

    def on_lease(self, old: Lease | None, new: Lease | None) -> None:
        if new is None or (old is not None and old.spec.renew_time == new.spec.renew_time):
            return
        first = new.name not in self._heard
        self._heard[new.name] = self._clock()
        if first:
            self.queue.add(f"node/{new.name}")

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or not new.spec.node_name:
            return
        if old is None or old.spec.node_name != new.spec.node_name or old.spec.tolerations != new.spec.tolerations:
            node = self._nodes.get(new.spec.node_name)
            if node is not None and node.spec.taints:
                self.queue.add(f"pod/{new.key}")

    def _look_at_pods(self, node: str) -> None:
        for pod in self._pods.by_index("node", node):
            self.queue.add(f"pod/{pod.key}")

    async def sync(self, key: str) -> float | None:
        """One reconcile of a node or a Pod; seconds until it must be looked at again."""
        what, _, name = key.partition("/")
        return await (self._sync_node(name) if what == "node" else self._sync_pod(name))

    async def _sync_node(self, name: str) -> float | None:
        node = self._nodes.get(name)
        if node is None:
            return None
        now = self._clock()
        silent = now - self._heard.setdefault(name, now)
        plan = plan_node(node, silent, now)
        try:
            if plan.conditions is not None:
                log.warning("node %s: nothing heard for %.0f s", name, silent)
                patch = {"status": {"conditions": plan.conditions}}
                await self._client.patch(NODE, name, "", patch, patch_type=STRATEGIC_PATCH, subresource="status")
                self._recorder.event(
                    reference(NODE, node), "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady"
                )
            if plan.taints is not None:
                # The list is replaced whole, so it must be of the state that it was made from.
                version = node.metadata.resource_version if plan.conditions is None else None
                await self._write_taints(name, version, plan.taints)
            if plan.ready in ("False", "Unknown"):
                await self._mark_pods(name)
        except NotFound:
            return None
        if plan.ready == "Unknown" and silent > GRACE:
            return None  # the next heartbeat adds it
        return max(GRACE - silent, 0.0) + 0.05

    async def _write_taints(self, name: str, version: str | None, taints: list[dict[str, object]]) -> None:
        if version is None:
            node = await self._client.get(NODE, name, as_=Node)
            again = plan_node(node, 0.0, self._clock()).taints
            if again is None:
                return
            version, taints = node.metadata.resource_version, again
        await self._client.patch(
            NODE, name, "", {"metadata": {"resourceVersion": version}, "spec": {"taints": taints or None}}
        )

    async def _mark_pods(self, node: str) -> None:
        """Pods of a node that isn't ready serve nobody: gateways and slices go by their Ready condition."""
        for pod in self._pods.by_index("node", node):
            if not pod.ready or pod.metadata.deletion_timestamp is not None:
                continue
            condition = {
                "type": "Ready",
                "status": "False",
                "reason": "NodeNotReady",
                "message": f"node {node} is not ready",
                "lastTransitionTime": timestamp(self._clock()),
            }
            patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
            try:
                await self._client.patch(
                    POD, pod.name, pod.namespace, patch, patch_type=STRATEGIC_PATCH, subresource="status"
                )
            except (NotFound, Conflict):
                continue

    async def _sync_pod(self, key: str) -> float | None:
        pod = self._pods.get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None or not pod.spec.node_name:
            return None
        node = self._nodes.get(pod.spec.node_name)
        if node is None:
            return None
        now = self._clock()
        at = eviction_at(pod, node.spec.taints, now)
        if at is None:
            return None
        if at > now:
            return at - now
        self._recorder.event(reference(POD, pod), "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        text = "Taint manager: deleting due to NoExecute taint"
        condition = disruption_target("DeletionByTaintManager", text, now)
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                POD, pod.name, pod.namespace, patch, patch_type=STRATEGIC_PATCH, subresource="status"
            )
            await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return None
        return None
