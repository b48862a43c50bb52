"""One Pod on its node: keeps what is observed of it, asks `lifecycle.decide`, and carries the answer out.

Events (a changed object, a runtime event, a probe's result, a timer) change `observed` in the callback itself and publish
the status; then `poke` lets the worker's task decide. The task exists only while there is something to do.

A change that outdates what is under way (the Pod is deleted while its image is pulled, its grace is cut short) cancels it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import trace
from core.api import views
from core.api.kinds import POD
from core.api.meta import Document
from core.client.events import reference
from core.clock import wall
from core.node import images, lifecycle, logs
from core.node.checks import Target, check
from core.node.context import NodeContext
from core.node.env import ConfigError, environment, wants_address
from core.node.lifecycle import (
    Action,
    ContainerRecord,
    DeleteObject,
    EnsureSandbox,
    Fail,
    Forget,
    Observed,
    Plan,
    RemoveSandbox,
    Start,
    Stop,
    Waiting,
)
from core.node.probes import ContainerProbes
from core.node.runtime.base import (
    AddressInUse,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    ImagePullError,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
    SandboxInfo,
)
from core.node.specs import container_spec, log_folder, sandbox_spec
from core.node.status import holds, pod_status, posted_conditions, with_foreign
from core.node.stopping import stop_container
from core.node.volumes.base import Prepared, VolumeError
from core.node.volumes.manager import Volumes

__all__ = ["PodWorker"]

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_LONGEST = 1.0, 30.0
ADDRESSES_TRIED = 16


class PodWorker:
    def __init__(self, node: NodeContext, pod: views.Pod, sandbox: SandboxInfo | None) -> None:
        self.observed: Observed = lifecycle.observe(pod)
        self.node = node
        self.uid = pod.metadata.uid
        self._conditions: list[Document] = posted_conditions(pod)
        self._volumes: dict[str, Prepared] = {}
        self._probes: dict[str, ContainerProbes] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._inner: asyncio.Future[list[None]] | None = None
        self._doing: Plan = Plan("")
        self._outdated = self._dirty = self._closed = self._telling = False
        self._timer: asyncio.TimerHandle | None = None
        self._assigned = self._hinted = ""
        self._sources = Volumes.sources(pod)
        if not self.observed.start_time:
            self.observed.start_time = wall()
        if sandbox is not None:
            self._find(sandbox)
        elif not pod.terminal:
            lifecycle.lose_sandbox(self.observed, wall())
        if self._sources and not pod.terminal:
            node.objects.hold(self.uid, pod.namespace, self._sources)
        if pod.metadata.deletion_timestamp:
            self._doom(pod)

    @property
    def pod(self) -> views.Pod:
        return self.observed.pod

    # What happens to a Pod; each of these returns at once

    def update(self, pod: views.Pod) -> None:
        """The object changed in the API."""
        before = self.pod.metadata
        changed = (pod.metadata.labels, pod.metadata.annotations) != (before.labels, before.annotations)
        self._conditions = with_foreign(self._conditions, pod)
        self.observed.pod = pod
        if pod.spec.ephemeral_containers and lifecycle.add_ephemerals(self.observed, pod):
            self._sources = Volumes.sources(pod)
            if self._sources and not pod.terminal:
                self.node.objects.hold(self.uid, pod.namespace, self._sources)
        if pod.metadata.deletion_timestamp:
            self._doom(pod)
        if changed and self.observed.sandbox_id:
            self.node.spawn(self.node.volumes.refresh(pod), f"volumes of {pod.key}")
        self.poke()

    def removed(self) -> None:
        """The object is gone from the API: nothing of it may stay."""
        self.observed.gone = True
        self._outdate()
        self.poke()

    def source_changed(self, kind: str, name: str) -> None:
        """A Secret or ConfigMap of its namespace changed."""
        if (kind, name) not in self._sources:
            return
        if self.observed.sandbox_id:
            self.node.spawn(self.node.volumes.refresh(self.pod), f"volumes of {self.pod.key}")
        for waiting in (self.observed.waiting, *(each.waiting for each in self.observed.containers.values())):
            if waiting is not None and waiting.reason in ("CreateContainerConfigError", "FailedMount"):
                waiting.retry_at = 0.0
        self.poke()

    def runtime_event(self, event: RuntimeEvent) -> None:
        if event.container is not None and self._see(event.container):
            if event.type is RuntimeEventType.READY:
                if trace.ON:
                    trace.mark("told", self.pod.key)
                self._telling = True  # of all probes at once, below
                try:
                    self._announced(event.container.name)
                finally:
                    self._telling = False
            # Events may outrun the reply to the call that they come of: nobody may see a ready Pod without its address.
            self.observed.sandbox_id = self.observed.sandbox_id or event.sandbox_id
            self.observed.address = self.observed.address or self._assigned
            self._publish()
            self.poke()

    def noted(self, message: str) -> None:
        """The runtime wants it said."""
        self._event("Normal", "NotAdopted", message)

    def resync(self, sandbox: SandboxInfo | None) -> None:
        """Events may have been missed: this is what the runtime has now (None: no sandbox of this Pod)."""
        if sandbox is not None:
            self._find(sandbox)
        elif self.observed.sandbox_id and self._inner is None:
            log.warning("the sandbox of Pod %s is no more", self.pod.key)
            for name in list(self._probes):
                self._stop_probes(name)
            lifecycle.lose_sandbox(self.observed, wall())
        self._publish()
        self.poke()

    def ended_event(self, container: str) -> asyncio.Event:
        """Set while that container doesn't run."""
        found = self._ended.setdefault(container, asyncio.Event())
        record = self.observed.containers.get(container)
        if record is None or not record.running:
            found.set()
        return found

    def poke(self) -> None:
        self._dirty = True
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {self.pod.key}")

    async def close(self) -> None:
        """The agent goes; what runs keeps running."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for each in self._probes.values():
            each.stop()
        tasks: list[asyncio.Future[Any]] = [each for each in (self._task, self._inner) if each is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Observing

    def _doom(self, pod: views.Pod) -> None:
        grace = pod.metadata.deletion_grace_period_seconds
        by = wall() + float(pod.spec.termination_grace_period_seconds if grace is None else grace)
        if self.observed.kill_by is None or by < self.observed.kill_by - 0.5:
            self.observed.kill_by = by
            self._outdate()

    def _outdate(self) -> None:
        if self._inner is not None and any(
            isinstance(each, EnsureSandbox | Start | Stop) for each in self._doing.actions
        ):
            self._outdated = True
            self._inner.cancel()

    def _find(self, sandbox: SandboxInfo) -> None:
        """What runs already: this agent's work, or that of one before it."""
        self.observed.sandbox_id, self.observed.address = sandbox.id, sandbox.address
        for info in sorted(sandbox.containers, key=lambda each: each.attempt):
            self._see(info)
            record = self.observed.containers.get(info.name)
            if record is not None and record.info is not None and record.info.id == info.id and info.announced_ready:
                self._announced(info.name)

    def _see(self, info: ContainerInfo) -> bool:
        """Whether this is news of a container's newest attempt."""
        record = self.observed.containers.get(info.name)
        if record is None or info.attempt < record.attempt or (info.attempt == record.attempt and record.exited):
            return False
        if info.attempt > record.attempt and record.info is not None:
            return False  # an attempt that nobody here began is seen only by an agent that has just come
        before = record.running
        record.info, record.attempt = info, info.attempt
        if record.running and not before:
            self._ended.setdefault(info.name, asyncio.Event()).clear()
            self._running(record, info)
        elif record.exited:
            self._exited(record, info)
        return True

    def _running(self, record: ContainerRecord, info: ContainerInfo) -> None:
        spec, name = record.spec, record.spec.name
        record.waiting = None
        posted = next((each for each in (*self.pod.status.container_statuses, *self.pod.status.init_container_statuses)
                       if each.name == name and each.container_id.endswith(info.id)), None)  # fmt: skip
        record.started = spec.startup_probe is None or bool(posted and posted.started)
        record.ready = spec.readiness_probe is None or bool(posted and posted.ready)
        if spec.startup_probe or spec.readiness_probe or spec.liveness_probe:
            probes = ContainerProbes(
                spec,
                self._target(record, info.id),
                lambda kind, holds, message: self._probed(record, kind, holds, message),
                lambda kind, said: self._event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {said}"),
            )
            self._stop_probes(name)
            self._probes[name] = probes
            probes.start(
                started=record.started,
                age=wall() - info.started_at if posted else 0.0,
                announces=info.announces and not info.announced_ready,
            )

    def _exited(self, record: ContainerRecord, info: ContainerInfo) -> None:
        self._stop_probes(record.spec.name)
        record.started = record.ready = False
        record.kill = ""
        record.waiting = None
        record.ended_message = info.message
        if not info.message and info.exit_code and record.spec.termination_message_policy == "FallbackToLogsOnError":
            record.ended_message = logs.last_lines(logs.path(self._log_dir, info.name, info.attempt))
        self._ended.setdefault(info.name, asyncio.Event()).set()

    def _stop_probes(self, name: str) -> None:
        probes = self._probes.pop(name, None)
        if probes is not None:
            probes.stop()

    def _announced(self, name: str) -> None:
        if name in self._probes:
            self._probes[name].announce()

    def _probed(self, record: ContainerRecord, kind: str, holds: bool, message: str) -> None:
        if kind == "readiness":
            record.ready = holds
        elif kind == "startup" and holds:
            record.started = True
        elif not holds:
            record.kill = f"Container {record.spec.name} failed {kind} probe, will be restarted"
            self._event("Normal", "Killing", record.kill)
        if not self._telling:
            self._publish()
            self.poke()

    # Telling

    @property
    def _log_dir(self) -> str:
        return str(log_folder(self.node.log_root, self.pod))

    def _event(self, type_: str, reason: str, message: str) -> None:
        self.node.recorder.event(reference(POD, self.pod), type_, reason, message)

    def _publish(self) -> None:
        if self.observed.gone or self.observed.final_phase:
            return
        was = holds(self._conditions, "Ready")
        status = pod_status(
            self.observed, self._conditions, now=wall(), host_ip=self.node.host_ip, runtime=self.node.runtime_name
        )
        self._conditions = status["conditions"]
        pod, ready = self.pod, holds(self._conditions, "Ready")
        address = self.observed.address if ready else ""
        if address != self._hinted:
            self._hinted = address
            self.node.hint(pod.key, self.uid, address)
        urgent = ready != was or status["phase"] in ("Succeeded", "Failed")
        self.node.writer.submit(pod.namespace, pod.name, self.uid, status, urgent=urgent)

    # Doing

    async def _run(self) -> None:
        try:
            while not self._closed:
                self._dirty = False
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                plan = lifecycle.decide(self.observed, wall())
                # What a Pod is waiting for now is said once the runtime is at work: until then nothing else counts.
                begins = any(isinstance(each, EnsureSandbox) for each in plan.actions)
                if not begins:
                    self._publish()
                if plan.actions:
                    await self._carry_out(plan, publish=begins)
                elif not self._dirty:
                    if plan.wake_at is not None:
                        delay = max(plan.wake_at - wall(), 0.0) + 0.001
                        self._timer = asyncio.get_running_loop().call_later(delay, self.poke)
                    return
        except Exception:
            log.exception("the worker of Pod %s failed, going on in %g s", self.pod.key, RETRY_FIRST)
            self._timer = asyncio.get_running_loop().call_later(RETRY_FIRST, self.poke)
        finally:
            self._task = None

    async def _carry_out(self, plan: Plan, *, publish: bool = False) -> None:
        """Perform the plan's actions side by side; an outdated plan is cancelled and forgotten. `publish`: the status, when they are under way."""
        self._doing, self._outdated = plan, False
        self._inner = asyncio.gather(*(self._perform(each) for each in plan.actions))
        if publish:
            asyncio.get_running_loop().call_soon(self._publish)
        try:
            await self._inner
        except asyncio.CancelledError:
            if not self._outdated or self._closed:
                raise
        finally:
            self._inner = None

    async def _perform(self, action: Action) -> None:
        match action:
            case EnsureSandbox():
                await self._ensure_sandbox()
            case Start():
                await self._start(self.observed.containers[action.container], action.attempt)
            case Stop():
                await asyncio.gather(*(self._stop(each, action) for each in action.containers))
            case Fail():
                self.observed.failed = (action.reason, action.message)
                self._event("Warning", action.reason, action.message)
            case RemoveSandbox():
                await self._remove_sandbox()
            case DeleteObject():
                await self._delete_object()
            case Forget():
                await self._forget()

    # Beginning

    async def _ensure_sandbox(self) -> None:
        pod, node = self.pod, self.node
        try:
            if self._sources:
                await node.objects.ready(self.uid, pod.namespace, self._sources)
            self._volumes = dict(await node.volumes.prepare(pod))
            if trace.ON:
                trace.mark("volumes", pod.key)
            folder = log_folder(node.log_root, pod)
            if node.addresses is not None and not self._assigned:
                self._assigned = node.addresses.allocate()
            found = None
            if node.warm and not pod.spec.init_containers and not any(each.info for each in self.observed.mains):
                found = await self._run_warm(folder)
            if found is None:
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                found = await node.runtime.create_sandbox(sandbox_spec(pod, folder, self._assigned, node.dns))
        except (VolumeError, ConfigError) as error:
            reason = error.reason if isinstance(error, VolumeError) else "CreateContainerConfigError"
            self.observed.waiting = self._waits(self.observed.waiting, reason, str(error))
        except RuntimeFailure as error:
            reason = _reason(error, "CreatePodSandboxError")
            self.observed.waiting = self._waits(self.observed.waiting, reason, str(error))
        except OSError as error:
            self.observed.waiting = self._waits(self.observed.waiting, "CreatePodSandboxError", str(error))
        else:
            self.observed.waiting = None
            self._find(found)

    async def _run_warm(self, folder: Path) -> SandboxInfo | None:
        """The Pod in a warm sandbox; None where the runtime has none for it."""
        node = self.node
        if node.addresses is None and wants_address(self.pod):
            self.noted("The environment tells the Pod's address, which is known only once it has a sandbox of its own")
            return None
        for attempt in range(ADDRESSES_TRIED, -1, -1):
            containers = [self._spec(each, each.attempt) for each in self.observed.mains]
            try:
                found = await node.runtime.run_pod(sandbox_spec(self.pod, folder, self._assigned, node.dns), containers)
            except AddressInUse as error:
                if node.addresses is None or not attempt:
                    raise
                log.info("Pod %s gets another address: %s", self.pod.key, error)
                taken, self._assigned = self._assigned, node.addresses.allocate()
                node.addresses.release(taken)
            else:
                for each in containers if found is not None else ():
                    self._event("Normal", "Started", f"Started container {each.name}")
                return found
        return None

    def _spec(self, record: ContainerRecord, attempt: int) -> ContainerSpec:
        pod, node = self.pod, self.node
        links = pod.spec.enable_service_links is not False
        env = environment(
            record.spec,
            pod,
            node.objects,
            address=self.observed.address or self._assigned,
            host_ip=node.host_ip,
            services=node.service_environment(pod.namespace, links),
            allocatable=node.allocatable,
        )
        return container_spec(record.spec, pod, env, self._volumes, attempt)

    async def _start(self, record: ContainerRecord, attempt: int) -> None:
        if attempt != record.attempt:
            lifecycle.restored(record)
        name, runtime, doing = record.spec.name, self.node.runtime, "CreateContainerError"
        try:
            if self._sources:
                await self.node.objects.ready(self.uid, self.pod.namespace, self._sources)
            if not self._volumes and self.pod.spec.volumes:
                self._volumes = dict(await self.node.volumes.prepare(self.pod))
            if not await self._have_image(record):
                return
            spec = self._spec(record, attempt)
            container_id = await runtime.create_container(self.observed.sandbox_id, spec)
            doing = "RunContainerError"
            if record.info is None:
                record.info = ContainerInfo(
                    container_id, name, self.observed.sandbox_id, ContainerState.CREATED,
                    image=spec.image, attempt=attempt, created_at=wall(),
                )  # fmt: skip
            await runtime.start_container(container_id)
        except (VolumeError, ConfigError) as error:
            reason = error.reason if isinstance(error, VolumeError) else "CreateContainerConfigError"
            record.waiting = self._waits(record.waiting, reason, str(error))
        except RuntimeFailure as error:
            record.info = None
            record.waiting = self._waits(record.waiting, _reason(error, doing), str(error))
        else:
            record.waiting = None
            if record.info is not None and record.info.state is ContainerState.CREATED:
                self._see(replace(record.info, id=container_id, state=ContainerState.RUNNING, started_at=wall()))
            self._event("Normal", "Started", f"Started container {name}")
            if record.last is not None and record.last.attempt == attempt - 1:
                await runtime.remove_container(record.last.id)
            await self._post_start(record, container_id)

    async def _have_image(self, record: ContainerRecord) -> bool:
        image = record.spec.image
        waiting = await images.ensure_image(self.node.runtime, record.spec, record.waiting)
        if waiting is None:
            return True
        record.waiting = waiting
        self._event("Warning", "Failed", f'Failed to pull image "{image}": {waiting.message}')
        if waiting.reason == ImagePullError.reason:
            asyncio.get_running_loop().call_later(images.SHOWN_AS_ERROR, self._show_backoff, waiting, image)
        return False

    def _show_backoff(self, waiting: Waiting, image: str) -> None:
        if not self._closed and any(each.waiting is waiting for each in self.observed.containers.values()):
            images.show_backoff(waiting, image)
            self._publish()

    async def _post_start(self, record: ContainerRecord, container_id: str) -> None:
        handler = (record.spec.lifecycle or {}).get("postStart")
        if not handler:
            return
        found = await check(
            handler, self._target(record, container_id), float(self.pod.spec.termination_grace_period_seconds)
        )
        if not found.ok:
            self._event("Warning", "FailedPostStartHook", found.message)
            record.kill = "FailedPostStartHook"

    def _target(self, record: ContainerRecord, container_id: str) -> Target:
        async def run(command: Any, timeout: float) -> tuple[int, bytes]:
            return await self.node.runtime.exec(container_id, command, timeout)

        return Target.of(record.spec, self.observed.address or self._assigned, run)

    def _waits(self, before: Waiting | None, reason: str, message: str) -> Waiting:
        """The next state of something that failed; the event is recorded, the delay doubles from 1 s to 30 s."""
        failures = (before.failures if before else 0) + 1
        delay = min(RETRY_FIRST * 2 ** (failures - 1), RETRY_LONGEST)
        if before is None or (before.reason, before.message) != (reason, message):
            log.info("Pod %s: %s: %s", self.pod.key, reason, message)
        self._event("Warning", reason if reason == "FailedMount" else "Failed", message)
        return Waiting(reason, message, wall() + delay, failures)

    # Ending

    async def _stop(self, name: str, action: Stop) -> None:
        record, ended = self.observed.containers[name], self.ended_event(name)
        target = self._target(record, record.info.id if record.info else "")
        if not await stop_container(self.node.runtime, record, target, action.grace, ended, self._event):
            await self.node.resync()

    async def _remove_sandbox(self) -> None:
        try:
            await self.node.runtime.remove_sandbox(self.observed.sandbox_id)
        except RuntimeFailure as error:
            log.warning("the sandbox of Pod %s could not be removed yet: %s", self.pod.key, error)
            await asyncio.sleep(RETRY_FIRST)
            return
        for name, record in self.observed.containers.items():
            self._stop_probes(name)
            if record.running and record.info is not None:
                self._see(replace(record.info, state=ContainerState.EXITED, exit_code=137, finished_at=wall()))
            elif record.info is not None and record.info.state is ContainerState.CREATED:
                record.info = None
        self.observed.sandbox_id = ""
        self._release_address()

    def _release_address(self) -> None:
        if self.node.addresses is not None:
            self.node.addresses.release(self.observed.address or self._assigned)
        self._assigned = ""

    async def _delete_object(self) -> None:
        await self.node.writer.finish(self.uid)
        await self.node.delete(self.pod)
        self.observed.gone = True

    async def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for name in list(self._probes):
            self._stop_probes(name)
        self._closed = True
        self.node.writer.forget(self.uid)
        self._release_address()
        self.node.objects.release(self.uid, self.pod.namespace, self._sources)
        await self.node.volumes.release(self.pod)
        self.node.forget(self)


def _reason(error: RuntimeFailure, doing: str) -> str:
    """Why a container waits: what the runtime says more closely, else what it failed at, in the kubelet's words."""
    return doing if error.reason == RuntimeFailure.reason else error.reason
