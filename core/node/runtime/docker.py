"""Pods on a Docker engine.

A Pod has one address on the node's own bridge, which this driver gives out. A solitary sandbox needs no container of its
own: its one container takes the Pod's address, and a restarted one takes it again. Other Pods have a pause container, whose
network the others share.

Nothing is kept but labels on the containers, a folder per Pod (`state_dir/UID`, with readiness sockets and termination messages) and,
for containers that were started before their Pods, a journal (`state_dir/slots`), so that a restarted agent finds all of its Pods.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.clock import wall
from core.node.addresses import AddressPool
from core.node.runtime import docker_spec as said
from core.node.runtime.base import (
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    ImageNotFound,
    Mount,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
    SandboxInfo,
    SandboxSpec,
    Streams,
)
from core.node.runtime.docker_attach import DockerStreams
from core.node.runtime.docker_engine import Absent, Conflicting, Engine
from core.node.runtime.docker_fit import Shape, unfit
from core.node.runtime.docker_journal import Adoptions
from core.node.runtime.docker_logs import RECONNECT_FIRST, RECONNECT_LONGEST, follow
from core.node.runtime.docker_network import ensure_network, open_routes, remove_network
from core.node.runtime.docker_notify import NotifySocket
from core.node.runtime.docker_queries import EngineQueries
from core.node.runtime.docker_records import Container, Sandbox, make_folder, termination_message
from core.node.runtime.docker_slot import Slot, remove_folder
from core.node.runtime.docker_stream import EngineStreams
from core.node.runtime.docker_warm import WarmPool, WarmSettings
from core.node.runtime.sandboxer.builders import COMMAND, container_settings

__all__ = ["DockerRuntime"]

log = logging.getLogger(__name__)

PAUSE_IMAGE = "faaslite/base:latest"
DRAIN = 2.0
"""Seconds that the end of a container's log may take to arrive before its exit is told."""
KILL_PATIENCE = 10.0
SETTLE = 0.2
"""Seconds after an adoption before the engine is asked for what the function doesn't wait for."""
SLOTS = "slots"


class DockerRuntime(EngineQueries):
    """`node` names the node in labels, and nobody else on that engine; `pod_cidr` is the subnet of its bridge, made where it is missing.

    `base_url` is as in DOCKER_HOST. `state_dir` is the driver's own folder. `bridge` names the bridge device, "" lets the engine.
    `cluster` marks what belongs to one cluster. `supernet` holds the ranges of all nodes that share the engine, "" where there is
    but one. `warm` says how many containers wait for Pods.
    """

    def __init__(
        self,
        node: str,
        *,
        state_dir: Path,
        pod_cidr: str,
        base_url: str = "unix:///var/run/docker.sock",
        bridge: str = "",
        pause_image: str = PAUSE_IMAGE,
        threads: int = 8,
        cluster: str = "",
        supernet: str = "",
        warm: WarmSettings | None = None,
    ) -> None:
        self.network = f"faaslite-{node}"
        self._node = node
        self._state = state_dir
        self._cidr = pod_cidr
        self._bridge = bridge
        self._pause_image = pause_image
        super().__init__(Engine(base_url, threads))
        self._streams: EngineStreams | None = None
        self._cluster = cluster
        self._supernet = supernet
        self._warm = warm or WarmSettings(each=0)
        self._addresses = AddressPool(pod_cidr, reserved=1)
        self.pool: WarmPool | None = None
        self._adoptions = Adoptions(state_dir / SLOTS)
        self._sandboxes: dict[str, Sandbox] = {}
        self._owners: dict[str, str] = {}
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    # Beginning and end

    async def start(self) -> None:
        await self._halt()
        await self._engine.connect()
        self._streams = EngineStreams(self._engine.base_url)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._addresses = AddressPool(self._cidr, reserved=1)
        await self._ensure_network()
        subscribed = asyncio.Event()
        self._spawn(self._listen(subscribed), "docker events")
        await subscribed.wait()
        for sandbox in await self._inspected():
            await self._adopt(sandbox)
        for leftover in [each for each in os.listdir(self._state) if each not in {*self._sandboxes, SLOTS}]:
            await asyncio.to_thread(shutil.rmtree, self._state / leftover, True)
        await self._start_pool()

    async def _start_pool(self) -> None:
        """Clear away those that waited for an agent before this one, then keep new ones."""
        await asyncio.gather(*(self._engine.remove(each) for each in await self._waiting()))
        slots = self._state / SLOTS
        for name in os.listdir(slots) if slots.is_dir() else ():
            if name not in self._adoptions:
                await asyncio.to_thread(remove_folder, slots / name)
        if not self._warm.each or not self._engine.base_url.startswith("unix://") or os.geteuid() != 0:
            return
        pool = WarmPool(
            self._engine, slots, self._warm, network=self.network, labels=self._marks(), addresses=self._addresses
        )
        try:
            await pool.start()
        except OSError as error:
            log.warning("no containers are kept waiting on this node: %s", error)
            return
        self.pool = pool
        assert self._streams is not None
        self._spawn(pool.watch_images(self._streams), "docker image events")

    async def _waiting(self) -> list[str]:
        """Containers that were started for no Pod yet."""
        filters = {"label": [said.label_filter(self._node), said.LABEL_SLOT]}
        found = await self._engine.do("containers", all=True, filters=filters)
        return [each["Id"] for each in found if each["Labels"][said.LABEL_SLOT] not in self._adoptions]

    def _marks(self) -> dict[str, str]:
        return {said.LABEL_NODE: self._node, **({said.LABEL_CLUSTER: self._cluster} if self._cluster else {})}

    async def close(self) -> None:
        await self._halt()
        await self._engine.close()

    async def _halt(self) -> None:
        if self.pool is not None:
            await self.pool.halt()
            self.pool = None
        followers = [
            each.follower for box in self._sandboxes.values() for each in box.containers.values() if each.follower
        ]
        tasks = [*self._tasks, *followers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for box in self._sandboxes.values():
            for each in box.containers.values():
                if each.notify is not None:
                    each.notify.close()
        self._sandboxes.clear()
        self._owners.clear()
        self._adoptions.clear()
        if self._streams is not None:
            await self._streams.close()
            self._streams = None

    async def _ensure_network(self) -> None:
        await ensure_network(
            self._engine, self.network, self._cidr, self._marks(), bridge=self._bridge, masquerade=not self._supernet
        )
        if self._supernet:
            await open_routes(self._supernet, f"faaslite-{self._cluster}")

    async def remove_network(self) -> None:
        """Take the node's bridge away, once no Pod of it is left: for a node that is given up."""
        await remove_network(self._engine, self.network)

    # Sandboxes

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        box = self._sandboxes.get(spec.uid)
        if box is None:
            box = self._sandboxes[spec.uid] = Sandbox(spec, self._addresses.allocate(), wall())
        if not spec.solitary and not box.pause:
            labels = self._labels(box)
            body = said.pause_body(spec, labels, self._pause_image, self.network, box.address)
            box.pause = await self._create(body, said.container_name(spec.uid, "", 0))
            await self._engine.do("start", box.pause)
        return self._sandbox_info(spec.uid, box, ())

    async def remove_sandbox(self, sandbox_id: str) -> None:
        box = self._sandboxes.get(sandbox_id)
        if box is None:
            return
        await asyncio.gather(*(self.remove_container(each) for each in list(box.containers)))
        if box.pause:
            await self._engine.remove(box.pause)
        del self._sandboxes[sandbox_id]
        self._addresses.release(box.address)
        await asyncio.to_thread(shutil.rmtree, self._state / sandbox_id, True)

    def _labels(self, box: Sandbox) -> dict[str, str]:
        return {**self._marks(), **said.sandbox_labels(self._node, box.spec, box.address)}

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        """A container that was started before the Pod came, where one of its kind waits; else an event says why not."""
        if self.pool is None or sandbox.uid in self._sandboxes:  # none are kept, or it began the ordinary way
            return None
        found: Slot | str = unfit(sandbox, containers) or self.pool.take(Shape.of(containers[0]))
        if isinstance(found, Slot):
            try:
                return self._give(found, sandbox, containers[0])
            except OSError as error:
                self._spawn(self.pool.discard(found), f"discard {found.id}")
                found = str(error)
        self._events.put_nowait(RuntimeEvent(
            RuntimeEventType.NOTED, sandbox.uid, sandbox.uid, message=f"No started container could be given to the Pod: {found}"
        ))  # fmt: skip
        return None

    def _give(self, slot: Slot, spec: SandboxSpec, container_spec: ContainerSpec) -> SandboxInfo:
        box = Sandbox(spec, slot.address, wall())
        labels = {**self._labels(box), **said.container_labels(container_spec)}
        adoption = slot.prepare(spec, container_spec, labels)
        self._adoptions.add(slot.id, adoption)
        self._sandboxes[spec.uid] = box
        container = self._remember(box, slot.container_id, container_spec.name, 0, False, folder=slot.folder)
        container.slot, container.env = slot.id, adoption.env
        container.info = ContainerInfo(
            slot.container_id, container_spec.name, spec.uid, ContainerState.RUNNING, image=slot.shape.image,
            image_id=slot.image_id, created_at=adoption.at, started_at=adoption.at,
        )  # fmt: skip
        try:
            slot.begin(container_spec)  # only now: somebody must listen when it says that it is ready
        except OSError:
            self._forget(box, container)
            del self._sandboxes[spec.uid]
            raise
        # Neither the log nor the name is waited for, and both cost the engine time that the function has better use for.
        asyncio.get_running_loop().call_later(SETTLE, self._settle, box, container)
        return self._sandbox_info(spec.uid, box, (container.info,))

    def _settle(self, box: Sandbox, container: Container) -> None:
        if self._known(container.id) is not None and self._streams is not None:
            self._follow(box, container)
            name = said.container_name(box.spec.uid, container.spec_name, container.attempt)
            self._spawn(self._engine.attempt("rename", container.id, name), f"rename {container.id[:12]}")

    async def list(self) -> Sequence[SandboxInfo]:
        inspected = await self._inspected()
        by_uid: dict[str, set[ContainerInfo]] = {uid: set() for uid in self._sandboxes}
        for each in inspected:
            labels = each["Config"]["Labels"]
            if labels[said.LABEL_CONTAINER] != said.PAUSE and labels[said.LABEL_UID] in by_uid:
                by_uid[labels[said.LABEL_UID]].add(self._info_of(each))
        return [
            self._sandbox_info(uid, self._sandboxes[uid], tuple(found))
            for uid, found in by_uid.items()
            if uid in self._sandboxes
        ]

    def _sandbox_info(self, uid: str, box: Sandbox, containers: Sequence[ContainerInfo]) -> SandboxInfo:
        return SandboxInfo(uid, uid, box.spec.name, box.spec.namespace, box.address, box.created_at, tuple(containers))

    async def _inspected(self) -> Sequence[dict[str, Any]]:
        filters = {"label": [said.label_filter(self._node)]}
        found = await self._engine.do("containers", all=True, filters=filters)
        answers = await asyncio.gather(*(self._inspect(each["Id"]) for each in found))
        return [each for each in answers if each is not None]

    async def _inspect(self, container_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.do("inspect_container", container_id)
        except Absent:
            return None
        return self._adoptions.identified(found)

    async def _adopt(self, inspected: dict[str, Any]) -> None:
        """A container from before this agent."""
        labels = inspected["Config"]["Labels"]
        uid, name = labels[said.LABEL_UID], labels[said.LABEL_CONTAINER]
        box = self._sandboxes.get(uid)
        if box is None:
            spec = SandboxSpec(
                uid, labels[said.LABEL_POD], labels[said.LABEL_NAMESPACE], labels[said.LABEL_LOGS],
                solitary=labels[said.LABEL_SOLITARY] == "true",
            )  # fmt: skip
            box = self._sandboxes[uid] = Sandbox(spec, labels[said.LABEL_ADDRESS], said.when(inspected["Created"]))
            self._addresses.take(box.address)
        if name == said.PAUSE:
            box.pause = inspected["Id"]
            return
        slot = labels.get(said.LABEL_SLOT, "")
        container = self._remember(
            box, inspected["Id"], name, int(labels[said.LABEL_ATTEMPT]), labels[said.LABEL_TTY] == "true",
            folder=self._state / SLOTS / slot if slot else None,
        )  # fmt: skip
        if slot:
            container.slot, container.env = slot, self._adoptions.env(slot)
        container.stop_signal = inspected["Config"].get("StopSignal") or "SIGTERM"
        if inspected["State"]["Status"] == "created":
            return
        self._follow(box, container)
        if not inspected["State"]["Running"]:
            container.exited.set()

    # Containers

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        box = self._sandboxes.get(sandbox_id)
        if box is None:
            raise RuntimeFailure(f"there is no sandbox {sandbox_id}")
        for each in box.containers.values():
            if (each.spec_name, each.attempt) == (spec.name, spec.attempt):
                return each.id
        folder = self._folder(box, spec.name, spec.attempt)
        notify, termination = folder / "notify", folder / "termination-log"
        await asyncio.to_thread(make_folder, notify, termination)
        joined, target = await self._beside(box, spec) if spec.added else ("", "")
        if list(spec.command[:1]) == [COMMAND] and self._engine.base_url.startswith("unix://"):
            spec = await asyncio.to_thread(_building, spec)
        body = said.container_body(
            box.spec, spec, self._labels(box),
            network=self.network, address=box.address, pause=box.pause, notify=str(notify), termination=str(termination),
            joined=joined, target=target,
        )  # fmt: skip
        container_id = await self._create(body, said.container_name(sandbox_id, spec.name, spec.attempt))
        container = self._remember(box, container_id, spec.name, spec.attempt, spec.tty)
        container.stop_signal = spec.stop_signal or container.stop_signal
        return container_id

    async def _beside(self, box: Sandbox, spec: ContainerSpec) -> tuple[str, str]:
        """The ids of the container whose network one that is added shares, and of that whose processes it sees."""
        running = {}
        for each in box.containers.values():
            found = await self._inspect(each.id)
            if found is not None and found["State"]["Running"]:
                running[each.spec_name] = each.id
        if not running and not box.pause:
            raise RuntimeFailure(f"no container of the Pod runs that {spec.name} could be beside")
        if spec.target and spec.target not in running:
            raise RuntimeFailure(f"unable to find target container {spec.target}")
        return next(iter(running.values()), ""), running.get(spec.target, "")

    def _folder(self, box: Sandbox, name: str, attempt: int) -> Path:
        return self._state / box.spec.uid / name / str(attempt)

    def _remember(
        self, box: Sandbox, container_id: str, name: str, attempt: int, tty: bool, *, folder: Path | None = None
    ) -> Container:
        container = Container(container_id, name, attempt, tty, folder or self._folder(box, name, attempt))
        container.notify = NotifySocket(container.folder / "notify", lambda: self._ready(container))
        box.containers[container_id] = container
        self._owners[container_id] = box.spec.uid
        return container

    async def _create(self, body: dict[str, Any], name: str) -> str:
        try:
            return str((await self._engine.do("create_container_from_config", body, name))["Id"])
        except Conflicting:
            return str((await self._engine.do("inspect_container", name))["Id"])
        except Absent as error:
            raise ImageNotFound(f"{body['Image']} is not on this node: {error}") from error

    def _known(self, container_id: str) -> tuple[Sandbox, Container] | None:
        box = self._sandboxes.get(self._owners.get(container_id, ""))
        return (box, box.containers[container_id]) if box and container_id in box.containers else None

    async def start_container(self, container_id: str) -> None:
        known = self._known(container_id)
        if known is None:
            raise RuntimeFailure(f"there is no container {container_id}")
        box, container = known
        await self._engine.do("start", container_id)
        self._follow(box, container)

    async def stop_container(self, container_id: str, grace: float) -> None:
        known = self._known(container_id)
        if known is None:
            return
        _, container = known
        for signal, seconds_ in ((container.stop_signal, grace), ("SIGKILL", KILL_PATIENCE)):
            try:
                await self._engine.do("kill", container_id, signal)
            except (Absent, Conflicting):
                return  # it isn't running
            try:
                async with asyncio.timeout(seconds_):
                    await container.exited.wait()
                    return
            except TimeoutError:
                log.debug("container %s is still there after %s", container_id, signal)
        raise RuntimeFailure(f"container {container_id} doesn't end")

    async def remove_container(self, container_id: str) -> None:
        known = self._known(container_id)
        await self._engine.remove(container_id)
        if known is None:
            return
        box, container = known
        await self._drained(container)
        if container.follower is not None:
            container.follower.cancel()
        self._forget(box, container)
        await asyncio.to_thread(remove_folder, container.folder)

    def _forget(self, box: Sandbox, container: Container) -> None:
        if container.notify is not None:
            container.notify.close()
        box.containers.pop(container.id, None)
        self._owners.pop(container.id, None)
        self._adoptions.forget(container.slot)

    # Logs and events

    def _follow(self, box: Sandbox, container: Container) -> None:
        if container.follower is None:
            assert self._streams is not None
            path = Path(box.spec.log_dir, container.spec_name, f"{container.attempt}.log")
            work = follow(self._streams, container.id, path, container.tty, container.exited)
            container.follower = asyncio.get_running_loop().create_task(work, name=f"log of {container.id[:12]}")

    async def _drained(self, container: Container) -> None:
        if container.follower is not None:
            await asyncio.wait([container.follower], timeout=DRAIN)

    async def _listen(self, subscribed: asyncio.Event) -> None:
        delay = RECONNECT_FIRST
        while self._streams is not None:
            try:
                filters = {"type": ["container"], "label": [said.label_filter(self._node)], "event": ["start", "die"]}
                async for event in self._streams.events(filters):
                    if not event:
                        if subscribed.is_set():
                            self._events.put_nowait(RuntimeEvent(RuntimeEventType.LOST))
                        subscribed.set()
                        delay = RECONNECT_FIRST
                    else:
                        self._engine_event(event)
                log.warning("the Docker engine ended its events, connecting again")
            except RuntimeFailure as error:
                log.warning("no events from the Docker engine: %s", error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_LONGEST)

    def _engine_event(self, event: dict[str, Any]) -> None:
        container_id = event["Actor"]["ID"]
        if self._known(container_id) is not None:
            kind = RuntimeEventType.STARTED if event["Action"] == "start" else RuntimeEventType.EXITED
            self._spawn(self._tell(kind, container_id), f"{event['Action']} {container_id[:12]}")
        elif self.pool is not None and event["Action"] == "die":
            self.pool.ended(container_id)

    def _ready(self, container: Container) -> None:
        if container.info is None:
            self._spawn(self._tell(RuntimeEventType.READY, container.id), f"ready {container.id[:12]}")
            return
        # The engine needs not be asked what is known: its answer would be the longest part of such a start.
        info = replace(container.info, announced_ready=True)
        self._events.put_nowait(RuntimeEvent(RuntimeEventType.READY, info.sandbox_id, info.sandbox_id, info))

    async def _tell(self, kind: RuntimeEventType, container_id: str) -> None:
        known = self._known(container_id)
        if known is None:
            return
        box, container = known
        if kind is RuntimeEventType.EXITED:
            self._follow(box, container)  # it may be gone before the call that started it has returned
            await self._drained(container)
        try:
            inspected = await self._inspect(container_id)
        except RuntimeFailure as error:
            log.warning("container %s can't be inspected: %s", container_id[:12], error)
            self._events.put_nowait(RuntimeEvent(RuntimeEventType.LOST))
            return
        if kind is RuntimeEventType.EXITED:
            container.exited.set()
        if inspected is not None:
            self._events.put_nowait(RuntimeEvent(kind, box.spec.uid, box.spec.uid, self._info_of(inspected)))

    def _info_of(self, inspected: dict[str, Any]) -> ContainerInfo:
        known = self._known(inspected["Id"])
        message, ready = "", False
        if known is not None:
            container = known[1]
            ready = container.notify is not None and container.notify.ready
            if not inspected["State"]["Running"]:
                message = termination_message(container.folder / "termination-log")
        found = said.container_info(inspected, message=message, ready=ready)
        if known is not None and found.state is ContainerState.EXITED:
            known[1].exited.set()
        return found

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The rest

    async def exec(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        if self._streams is None:
            raise RuntimeFailure("the driver was closed")
        known = self._known(container_id)
        async with asyncio.timeout(timeout):
            return await self._streams.exec(container_id, command, known[1].env if known else {})

    async def open_exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Streams:
        streams, container = self._running(container_id)
        return await DockerStreams.exec(streams, container_id, command, container.env, stdin=stdin, tty=tty)

    async def attach(self, container_id: str, *, stdin: bool) -> Streams:
        streams, container = self._running(container_id)
        return await DockerStreams.attach(streams, container_id, stdin=stdin, tty=container.tty)

    def _running(self, container_id: str) -> tuple[EngineStreams, Container]:
        known = self._known(container_id)
        if self._streams is None or known is None or known[1].exited.is_set():
            raise RuntimeFailure(f"container {container_id[:12]} isn't running")
        return self._streams, known[1]


def _building(spec: ContainerSpec) -> ContainerSpec:
    """A build of a layer, which looks for packages where this machine does. Blocks."""
    settings, places = container_settings()
    mounts = [*spec.mounts, *(Mount(each, each, read_only=True) for each in places)]
    return replace(spec, env={**settings, **spec.env}, mounts=mounts)
