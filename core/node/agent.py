"""The node agent: runs the Pods that are bound to its node (what the kubelet is to Kubernetes).

An informer brings the Pods of this node; each has a `PodWorker`. The runtime's events go to the worker of their Pod. On
start, what already runs is found again by `Runtime.list` and goes on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from core import trace
from core.api import views
from core.api.kinds import POD, SERVICE
from core.api.meta import Document
from core.client.events import Recorder
from core.client.informer import Informers
from core.client.readiness import HintSender
from core.client.rest import Client
from core.clock import wall
from core.errors import ApiError, Conflict, NotFound
from core.lull import LULL
from core.node import logs
from core.node.addresses import AddressPool
from core.node.context import NodeContext
from core.node.env import service_environment
from core.node.heartbeat import Heartbeat, allocatable
from core.node.housekeeping import LOG_RETENTION, remove_logs, sweep
from core.node.machine import observe
from core.node.metrics import AgentCollector
from core.node.objects import ObjectCache
from core.node.pod_worker import PodWorker
from core.node.registration import NodeSpec
from core.node.runtime.base import Runtime, RuntimeEventType, RuntimeFailure, SandboxInfo
from core.node.runtime.guard import Guard
from core.node.server import AgentServer, LogSource, Serving, UnknownContainer
from core.node.specs import Dns, log_folder
from core.node.streams.endpoints import NotRunning
from core.node.usage import Metered, Sampler, own_usage, prometheus, summary
from core.node.volumes.base import CsiPlugin, VolumeContext
from core.node.volumes.claim import ApiClaims, remove_folder
from core.node.volumes.manager import Volumes
from core.node.warming import Warming
from core.node.writer import StatusWriter

__all__ = ["Agent"]

log = logging.getLogger(__name__)

RETRY = 1.0
CLEANING_PERIOD = 300.0


class Agent:
    """A component: `start` returns when the node works (its Pods of before are found, its server listens), `stop` when nothing of
    it is left; Pods keep running.

    `data_dir` is the node's own (`nodes/NAME`), `log_root` is `logs/pods`. `pod_cidr` is the range from which the agent gives Pods their
    addresses where the runtime doesn't. `csi` serves inline volumes, by driver. Without `serving` the node has no server, and
    so no logs over the API. `templates` is a label selector: for Pods of such ReplicaSets the node gets ready before there is one. `hints` (the agent closes it) tells others of the machine of Pods' readiness. `node_ready` is set at the first heartbeat that the API took.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        runtime: Runtime,
        *,
        data_dir: Path,
        log_root: Path,
        address: str,
        pod_cidr: str = "",
        capacity: Mapping[str, str],
        reserved: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, Any]] = (),
        labels: Mapping[str, str] | None = None,
        csi: Mapping[str, CsiPlugin] | None = None,
        dns: Dns | None = None,
        serving: Serving | None = None,
        log_retention: float = LOG_RETENTION,
        templates: str = "",
        hints: HintSender | None = None,
    ) -> None:
        self.name = name
        self.runtime = Guard(runtime)
        self.registry = CollectorRegistry()
        self._client = client
        self._data_dir = data_dir
        self._log_root = log_root
        self._log_retention = log_retention
        self._dns = dns or Dns()
        self._csi = dict(csi or {})
        spec = NodeSpec(name, address, pod_cidr, 0, capacity, reserved or {}, labels or {}, taints)
        self._spec = spec
        self.heartbeat = Heartbeat(client, spec, self.runtime, self._restart_runtime, partial(observe, data_dir))
        self._server = AgentServer(self, serving, self.registry) if serving else None
        self._sampler = Sampler(self._metered, self.runtime.stats, own_usage, wall)
        self._began = wall()
        self.idle = asyncio.Event()
        """Set while the node looks after no Pod."""
        self.idle.set()
        self._forgotten = asyncio.Event()
        self._workers: dict[str, PodWorker] = {}
        self._keys: dict[str, str] = {}
        self._found: dict[str, SandboxInfo] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hints = hints
        self._recorder = Recorder(client, "kubelet", name)
        self._writer = StatusWriter(client)
        self._informers = Informers(client)
        self._objects = ObjectCache(self._informers, self._source_changed, self._spawn)
        allowed = allocatable(spec)
        self._folders = data_dir / "volumes"
        context = VolumeContext(self._objects, address, allowed, self._csi, ApiClaims(client), self._folders)
        self._volumes = Volumes(data_dir / "pods", context)
        self._pods = self._informers.watch(POD, views.Pod, fields=f"spec.nodeName={name}")
        self._services = self._informers.watch(SERVICE, views.Service)
        self._allocatable = allowed
        self._warming = Warming(self._informers, templates, self._csi, self.runtime) if templates else None
        self._node: NodeContext | None = None
        self._events: asyncio.Task[None] | None = None
        self.registry.register(AgentCollector(self.runtime, lambda: self._writer, lambda: self.running_pods))

    # The component

    async def start(self) -> None:
        """Raises `RuntimeUnavailable` where the runtime doesn't answer."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log_root.mkdir(mode=0o755, parents=True, exist_ok=True)
        await self.runtime.start()
        self._events = asyncio.get_running_loop().create_task(self._listen(), name=f"events of {self.name}")
        info = await self.runtime.info()
        self._found = {each.uid: each for each in await self.runtime.list()}
        addresses = None
        if not info.assigns_addresses and self._spec.pod_cidr:
            addresses = AddressPool(self._spec.pod_cidr, start=zlib.crc32(bytes(self._data_dir.absolute())))
            for each in self._found.values():
                if each.address:
                    addresses.take(each.address)
        self._node = NodeContext(
            runtime=self.runtime,
            runtime_name=info.name,
            warm=True,
            host_ip=self._spec.address,
            log_root=self._log_root,
            dns=self._dns,
            allocatable=self._allocatable,
            addresses=addresses,
            volumes=self._volumes,
            objects=self._objects,
            writer=self._writer,
            recorder=self._recorder,
            hint=self._hints.send if self._hints is not None else lambda pod, uid, address: None,
            service_environment=self._service_environment,
            delete=self._delete,
            forget=self._forget,
            resync=self.resync,
            spawn=self._spawn,
        )
        if self._server is not None:
            await self._server.start()
        await self.heartbeat.start(self._server.port if self._server else 0)
        self._pods.add_handler(self._pod_changed)
        self._pods.on_relist(self._post_again)
        await self._informers.start()
        if self._warming is not None:
            await self._warming.start()
        self._spawn(self._housekeep(), f"housekeeping of {self.name}")

    async def stop(self) -> None:
        workers = set(self._workers.values())  # those that forget their Pod meanwhile end a moment after that
        await self.heartbeat.stop()
        if self._warming is not None:
            await self._warming.stop()
        await self._informers.stop()
        if self._events is not None:
            self._events.cancel()
            await asyncio.gather(self._events, return_exceptions=True)
        for each in list(self._tasks):
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in {*workers, *self._workers.values()}))
        await self._writer.close()
        await self._recorder.stop()
        for plugin in self._csi.values():
            close = getattr(plugin, "close", None)
            if close is not None:
                await close()
        if self._server is not None:
            await self._server.stop()
        if self._hints is not None:
            self._hints.close()
        await self.runtime.close()

    # Pods

    def _pod_changed(self, old: views.Pod | None, new: views.Pod | None) -> None:
        key = (new or old).key if (new or old) else ""  # type: ignore[union-attr]
        uid = self._keys.get(key)
        if new is None or (uid is not None and uid != new.metadata.uid):
            worker = self._workers.get(uid or "")
            if worker is not None:
                worker.removed()
            self._keys.pop(key, None)
        if new is None:
            return
        self._keys[key] = new.metadata.uid
        worker = self._workers.get(new.metadata.uid)
        if worker is not None:
            worker.update(new)
            return
        if trace.ON:
            trace.mark("seen", new.key)
        LULL.disturb()
        assert self._node is not None
        sandbox = self._found.pop(new.metadata.uid, None)
        if sandbox is not None:
            self._volumes.adopt(new)
        self.idle.clear()
        worker = self._workers[new.metadata.uid] = PodWorker(self._node, new, sandbox)
        worker.poke()

    def _post_again(self) -> None:
        """The API was away: of the statuses that it took last, a crash may have lost some."""
        for uid, worker in self._workers.items():
            self._writer.resend(uid)
            worker.poke()

    def _forget(self, worker: PodWorker) -> None:
        if self._workers.get(worker.uid) is worker:
            del self._workers[worker.uid]
            self._forgotten.set()
            if not self._workers:
                self.idle.set()

    async def _delete(self, pod: views.Pod) -> None:
        delay = 0.1
        while True:
            try:
                await self._client.delete(POD, pod.name, pod.namespace, grace=0, uid=pod.metadata.uid)
                return
            except (NotFound, Conflict):
                return
            except ApiError as error:
                log.warning("Pod %s can't be deleted yet: %s", pod.key, error.message)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _source_changed(self, kind: str, namespace: str, name: str) -> None:
        for worker in self._workers.values():
            if worker.pod.namespace == namespace:
                worker.source_changed(kind, name)

    def _service_environment(self, namespace: str, links: bool) -> Mapping[str, str]:
        return service_environment(self._services.values(), namespace, links)

    # The runtime

    async def _listen(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self.runtime.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        if event.type is RuntimeEventType.LOST:
                            self._spawn(self.resync(), "resync")
                        else:
                            worker = self._workers.get(event.uid)
                            if worker is not None and event.type is RuntimeEventType.NOTED:
                                worker.noted(event.message)
                            elif worker is not None:
                                worker.runtime_event(event)
                log.warning("node %s: the runtime's events ended", self.name)
            except RuntimeFailure as error:
                log.warning("node %s: no events from the runtime: %s", self.name, error)
            except Exception:
                log.exception("node %s: a runtime event could not be taken", self.name)
            await asyncio.sleep(RETRY)
            self._spawn(self.resync(), "resync")

    async def resync(self) -> None:
        """Read the runtime's list and tell every worker what there is of its Pod."""
        try:
            found = {each.uid: each for each in await self.runtime.list()}
        except RuntimeFailure as error:
            log.warning("node %s: what runs can't be listed: %s", self.name, error)
            return
        for uid, worker in list(self._workers.items()):
            worker.resync(found.get(uid))

    async def _restart_runtime(self) -> None:
        await self.runtime.start()
        await self.resync()

    async def _housekeep(self) -> None:
        await self._pods.wait_synced()
        while True:
            try:
                await sweep(self.runtime, self._volumes, self._uids)
                await remove_logs(self._log_root, self._uids(), wall(), self._log_retention)
            except (RuntimeFailure, OSError) as error:
                log.warning("node %s: housekeeping failed: %s", self.name, error)
            self._found.clear()
            await asyncio.sleep(CLEANING_PERIOD)

    def _uids(self) -> set[str]:
        """Of all Pods that this node has, or is still to take leave of."""
        return {each.metadata.uid for each in self._pods.values()} | set(self._workers)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    async def wait_gone(self, uids: Collection[str]) -> None:
        """Until nothing is left of those Pods here."""
        while not self._workers.keys().isdisjoint(uids):
            self._forgotten.clear()
            await self._forgotten.wait()

    # What the server asks

    def pods(self) -> list[views.Pod]:
        return self._pods.values()

    def healthy(self) -> str:
        return self.heartbeat.trouble

    async def remove_volume(self, handle: str) -> None:
        await remove_folder(self._folders, handle)

    async def usage_summary(self) -> Document:
        before, after = await self._sampler.window()
        return summary(self.name, self._began, before, after, self._sampler.ended_ns)

    async def usage_counters(self) -> str:
        return prometheus(await self._sampler.now(), self._sampler.ended_ns)

    def _metered(self) -> list[Metered]:
        found = []
        for worker in self._workers.values():
            pod = worker.pod
            for name, each in worker.observed.containers.items():
                if each.running and each.info is not None:
                    found.append(Metered(each.info.id, pod.namespace, pod.name, worker.uid, name, each.info.started_at))
        return found

    @property
    def running_pods(self) -> int:
        """Pods that the node still looks after, those of deleted objects included."""
        return len(self._workers)

    def _worker(self, namespace: str, pod: str) -> PodWorker:
        found = self._pods.get(f"{namespace}/{pod}")
        worker = self._workers.get(found.metadata.uid) if found else None
        if worker is None:
            raise NotRunning(f'pod "{namespace}/{pod}" is not on this node')
        return worker

    def running_container(self, namespace: str, pod: str, container: str) -> str:
        record = self._worker(namespace, pod).observed.containers.get(container)
        if record is None or record.info is None or not record.running:
            raise NotRunning(f'container not found ("{container}")')
        return record.info.id

    def pod_address(self, namespace: str, pod: str) -> str:
        observed = self._worker(namespace, pod).observed
        if not observed.address or not observed.running:
            raise NotRunning(f'pod "{pod}" is not running')
        return observed.address

    def log_source(self, namespace: str, pod: str, container: str, previous: bool) -> LogSource:
        found = self._pods.get(f"{namespace}/{pod}")
        worker = self._workers.get(found.metadata.uid) if found else None
        if found is None or worker is None:
            raise UnknownContainer(f'pod "{namespace}/{pod}" is not on this node')
        record = worker.observed.containers.get(container)
        if record is None:
            raise UnknownContainer(f'container "{container}" is not valid for pod "{pod}"')
        folder = str(log_folder(self._log_root, found))
        if previous:
            if record.attempt == 0:
                raise UnknownContainer(f'previous terminated container "{container}" in pod "{pod}" not found')
            ended = asyncio.Event()
            ended.set()
            return LogSource(logs.path(folder, container, record.attempt - 1), ended)
        attempt = record.attempt - 1 if record.info is None and record.last is not None else record.attempt
        return LogSource(logs.path(folder, container, attempt), worker.ended_event(container))
