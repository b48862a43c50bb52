"""The DaemonSet controller: a Pod on every node that is meant. What to do is decided in `core.controllers.daemons`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.api.kinds import DAEMON_SET, NODE, POD
from core.api.views import DaemonSet, Node, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import monotonic, wall
from core.controllers import daemons
from core.controllers.adoption import Adoption, by_controller, parse_selector
from core.controllers.expectations import Expectations
from core.controllers.revisions import LABEL, Revisions, hash_of
from core.errors import ApiError, NotFound

__all__ = ["DaemonSetController"]

log = logging.getLogger(__name__)


class DaemonSetController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._sets: Informer[DaemonSet] = informers.watch(DAEMON_SET, DaemonSet)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._nodes: Informer[Node] = informers.watch(NODE, Node)
        self._pods.add_index("owner", by_controller)
        self._revisions = Revisions(client, informers, DAEMON_SET)
        self._adoption: Adoption[Pod] = Adoption(client, DAEMON_SET, POD)
        self._expected = Expectations()
        self._recorder = Recorder(client, component="daemonset-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("daemonset", self.sync, queue=self.queue, workers=2)
        self._sets.add_handler(self.on_set)
        self._pods.add_handler(self.on_pod)
        self._nodes.add_handler(self.on_node)

    async def start(self) -> None:
        for each in (self._sets, self._pods, self._nodes, self._revisions.informer):
            await each.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_set(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        for key in self._expected.observe(DAEMON_SET, old, new):
            self.queue.add(key)

    def on_node(self, old: Node | None, new: Node | None) -> None:
        """Heartbeats change nothing that matters here."""
        if old is not None and new is not None:
            same = old.metadata.labels == new.metadata.labels and old.spec == new.spec
            if same:
                return
        for each in self._sets.values():
            self.queue.add(each.key)

    async def sync(self, key: str) -> float | None:
        """One reconcile of `namespace/name`; seconds until a Pod has been ready for long enough."""
        found = self._sets.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            self._expected.forget(key)
            return None
        now = self._clock()
        trusted = self._expected.satisfied(key, monotonic())
        uid = found.metadata.uid
        candidates = [*self._pods.by_index("owner", uid), *self._pods.by_index("owner", f"{found.namespace}/")]
        pods = await self._adoption.claim(found, parse_selector(found.spec.selector), candidates)
        revision = await self._revisions.current(found, found.spec.template)
        label, nodes = hash_of(revision, found), self._nodes.values()
        if trusted:
            plan = daemons.decide(found, nodes, pods, label, now)
            uids = [pod.metadata.uid for pod in plan.delete]
            if plan.create or uids:
                self._expected.expect(key, monotonic(), creations=len(plan.create), deletions=uids)
                await asyncio.gather(
                    *(self._create(key, found, node, label) for node in plan.create),
                    *(self._delete(key, found, pod) for pod in plan.delete),
                )
        status = daemons.new_status(found, nodes, pods, label, now)
        if status is not None:
            patch = {"metadata": {"uid": uid}, "status": status}
            try:
                await self._client.patch(DAEMON_SET, found.name, found.namespace, patch, subresource="status")
            except NotFound:
                log.debug("%s is gone, its status needn't be written", key)
                return None
        used = {f"{found.name}-{pod.metadata.labels.get(LABEL)}" for pod in pods}
        await self._revisions.trim(found, {revision.name, *used}, found.spec.revision_history_limit)
        return daemons.next_check(found, pods, now)

    async def _create(self, key: str, found: DaemonSet, node: str, label: str) -> None:
        try:
            pod = await self._client.create(POD, daemons.pod_document(found, node, label), found.namespace)
        except BaseException as error:
            self._expected.created(key)
            if isinstance(error, ApiError):
                text = f"Error creating: {error.message}"
                self._recorder.event(reference(DAEMON_SET, found), "Warning", "FailedCreate", text)
            raise
        text = f"Created pod: {pod['metadata']['name']}"
        self._recorder.event(reference(DAEMON_SET, found), "Normal", "SuccessfulCreate", text)

    async def _delete(self, key: str, found: DaemonSet, pod: Pod) -> None:
        try:
            await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except NotFound:
            self._expected.deleted(key, pod.metadata.uid)
            return
        self._recorder.event(reference(DAEMON_SET, found), "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
