"""The scheduler as a component: watches Pods and Nodes, chooses, binds.

The choice is made in the event loop's very next step after a Pod's event: no timer, no queue between tasks. Bindings are
requests in flight, many at a time; the Pod counts on its node from the choice on. A failed binding takes the Pod back to the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from core import trace
from core.api.kinds import NODE, POD
from core.api.meta import Document
from core.api.views import Node, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.rest import Client
from core.client.transport import STRATEGIC_PATCH
from core.clock import monotonic, timestamp, wall
from core.errors import ApiError, Conflict, NotFound
from core.scheduler.cycle import Decision, Profile, schedule
from core.scheduler.framework import BindPlugin, ClusterEvent, CycleState, Plugin, WatchingPlugin
from core.scheduler.plugins.default_binder import DefaultBinder
from core.scheduler.plugins.node_resources import FIT
from core.scheduler.queue import QueuedPod, SchedulingQueue
from core.scheduler.registry import plugins_of, profile
from core.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["Scheduler", "unschedulable_condition"]

log = logging.getLogger(__name__)

NAME = "default-scheduler"
BATCH = 32
"""Pods scheduled before the event loop gets its turn: some 3 ms of work."""
MAX_BINDINGS = 512
"""In flight; past that the API is the bottleneck, and more would only wait there."""


def unschedulable_condition(pod: Pod, message: str, now: float) -> Document | None:
    """The PodScheduled condition that says why there is no node; None where the Pod says it already."""
    old = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
    if old is not None and (old.status, old.reason, old.message) == ("False", "Unschedulable", message):
        return None
    since = old.last_transition_time if old is not None and old.status == "False" else timestamp(now)
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": since,
    }


def wants_scheduling(pod: Pod, name: str) -> bool:
    """Whether the Pod waits for this scheduler."""
    return (
        not pod.spec.node_name
        and pod.metadata.deletion_timestamp is None
        and pod.spec.scheduler_name == name
        and not pod.spec.scheduling_gates
        and not pod.terminal
    )


class Scheduler:
    """`clock` gives seconds since the epoch, `plugins` replace the tables'."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        clock: Callable[[], float] = wall,
        plugins: tuple[Plugin, ...] = (),
        binder: BindPlugin | None = None,
        name: str = NAME,
    ) -> None:
        self.name = name
        plugins = plugins or plugins_of(client, informers)
        self.snapshot = Snapshot()
        self.queue = SchedulingQueue({each.name: each.helped_by for each in plugins})
        self._client = client
        self._profile: Profile = profile(plugins)
        self._watching = tuple(each for each in plugins if isinstance(each, WatchingPlugin))
        self._binder: BindPlugin = binder or DefaultBinder(client)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._nodes: Informer[Node] = informers.watch(NODE, Node)
        self._recorder = Recorder(client, component=name, capacity=10_000)
        self._clock = clock
        self._start_index = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bindings = 0
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._listening = False

    async def start(self) -> None:
        """Returns once nodes and Pods are known; the informers must have been started or be started soon."""
        self._listen()
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        for each in self._watching:
            await each.wait_synced()
        self._running = True
        self._wake()

    async def stop(self) -> None:
        """Makes no more choices; bindings in flight are cancelled, the next start finds out how they ended."""
        self._running = False
        for handle in (self._turn, self._timer):
            if handle is not None:
                handle.cancel()
        self._turn = self._timer = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._recorder.stop()

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._nodes.add_handler(self.on_node)
            self._pods.add_handler(self.on_pod)
            for each in self._watching:
                each.watch(self._may_help)

    # Events

    def on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self.snapshot.remove_node(old.name)
            return
        if old is not None and _same_for_scheduling(old, new):
            return
        self.snapshot.set_node(new)
        self._may_help(ClusterEvent.NODE_ADDED if old is None else ClusterEvent.NODE_CHANGED)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.terminal:
            pod = new or old
            if pod is not None:
                self._gone(pod.key)
        elif new.spec.node_name:
            self.queue.remove(new.key)
            self.snapshot.set_pod(new)
        elif wants_scheduling(new, self.name):
            if old is not None and old.metadata.uid != new.metadata.uid:
                self._gone(old.key)
            if not self.snapshot.assumed(new.key):
                self.queue.add(new, self._clock())
                self._wake()
        else:
            self._gone(new.key)

    def _gone(self, key: str) -> None:
        self.queue.remove(key)
        if self.snapshot.remove_pod(key):
            self._may_help(ClusterEvent.POD_REMOVED)

    def _may_help(self, event: ClusterEvent) -> None:
        if len(self.queue) and self.queue.on_event(event, self._clock()):
            self._wake()

    # The loop

    def _wake(self) -> None:
        if self._running and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        for _ in range(BATCH):
            if self._bindings >= MAX_BINDINGS:
                return  # each binding that ends wakes the loop
            if not self.schedule_one():
                self._arm()
                return
        self._wake()

    def _arm(self) -> None:
        """Wake up when the next back-off ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.queue.next_at()
        if at is not None and self._running:
            self._timer = asyncio.get_running_loop().call_later(max(at - self._clock(), 0.0), self._wake)

    def schedule_one(self) -> bool:
        """Take one Pod from the queue and choose its node; False where none is ready. The binding goes on by itself."""
        now = self._clock()
        queued = self.queue.pop(now)
        if queued is None:
            return False
        pod = queued.pod
        nodes = self.snapshot.nodes
        decision = schedule(self._profile, nodes, pod, self._start_index)
        if nodes:
            self._start_index = (self._start_index + decision.looked_at) % len(nodes)
        if decision.node is None:
            self._refuse(queued, decision.message, decision.plugins, now)
            return True
        self._place(queued, decision, decision.node, now)
        return True

    def _place(self, queued: QueuedPod, decision: Decision, node: NodeInfo, now: float) -> None:
        pod, state = queued.pod, decision.state
        self.snapshot.assume(pod, node.name, state.get(FIT))
        for plugin in self._profile.reserves:
            status = plugin.reserve(state, pod, node)
            if status is not None:
                self._release(pod, state, node)
                self._refuse(queued, ", ".join(status.reasons), frozenset({status.plugin}), now)
                return
        self._bindings += 1
        self._spawn(self._bind(queued, state, node))

    def _release(self, pod: Pod, state: CycleState, node: NodeInfo) -> None:
        for plugin in reversed(self._profile.reserves):
            plugin.unreserve(state, pod, node)
        self.snapshot.forget(pod.key)

    def _refuse(self, queued: QueuedPod, message: str, plugins: frozenset[str], now: float) -> None:
        self.queue.park(queued, now, plugins)
        condition = unschedulable_condition(queued.pod, message, now)
        if condition is not None:
            self._recorder.event(reference(POD, queued.pod), "Warning", "FailedScheduling", message)
            self._spawn(self._write_condition(queued.pod, condition))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Writes

    async def _bind(self, queued: QueuedPod, state: CycleState, node: NodeInfo) -> None:
        pod = queued.pod
        began = monotonic()
        try:
            for plugin in self._profile.pre_binds:
                if plugin.name in state:
                    await plugin.pre_bind(state, pod, node.name)
            await self._binder.bind(pod, node.name)
        except (Conflict, NotFound) as error:
            log.info("%s was not bound to %s: %s", pod.key, node.name, error.message)
            self._unbound(queued, state, node)
        except ApiError as error:
            log.warning("binding %s to %s failed: %s", pod.key, node.name, error.message)
            self._unbound(queued, state, node)
        except Exception:
            log.exception("binding %s to %s failed", pod.key, node.name)
            self._unbound(queued, state, node)
        else:
            if trace.ON:
                trace.mark("bound", pod.key)
            log.debug("bound %s to %s in %.4f s", pod.key, node.name, monotonic() - began)
            message = f"Successfully assigned {pod.key} to {node.name}"
            self._recorder.event(reference(POD, pod), "Normal", "Scheduled", message)
        finally:
            self._bindings -= 1
            self._wake()

    def _unbound(self, queued: QueuedPod, state: CycleState, node: NodeInfo) -> None:
        """The binding failed: the Pod goes back to the queue, unless it is gone, or the watch has shown it bound after all."""
        key = queued.pod.key
        self._release(queued.pod, state, node)
        current = self._pods.get(key)
        if current is None or not wants_scheduling(current, self.name) or key in self.queue:
            return
        if current.metadata.uid != queued.pod.metadata.uid:
            self.queue.add(current, self._clock())
            return
        queued.pod = current
        self.queue.retry(queued, self._clock())
        self._arm()

    async def _write_condition(self, pod: Pod, condition: Document) -> None:
        meta = pod.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                POD, meta.name, meta.namespace, patch, patch_type=STRATEGIC_PATCH, subresource="status"
            )
        except (Conflict, NotFound):
            log.debug("%s went away before it could be told why it waits", pod.key)
        except ApiError as error:
            log.warning("could not write the PodScheduled condition of %s: %s", pod.key, error.message)


def _same_for_scheduling(old: Node, new: Node) -> bool:
    """Heartbeats change nothing here."""
    return (
        old.spec == new.spec
        and old.metadata.labels == new.metadata.labels
        and old.status.allocatable == new.status.allocatable
        and old.status.capacity == new.status.capacity
    )
