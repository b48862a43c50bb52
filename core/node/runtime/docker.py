"""Pods on a Docker engine.

A Pod has one address on the node's own bridge, which this driver gives out. A solitary sandbox needs no container of its
own: its one container takes the Pod's address, and a restarted one takes it again. Other Pods have a pause container, whose
network the others share.

Nothing is kept but labels on the containers and a folder per Pod (`state_dir/UID`, with readiness sockets and
termination messages), so that a restarted agent finds all of its Pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from core.clock import wall
from core.node.addresses import AddressPool
from core.node.runtime import docker_spec as said
from core.node.runtime.base import (
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Image,
    ImageNotFound,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
    RuntimeInfo,
    SandboxInfo,
    SandboxSpec,
    Stats,
)
from core.node.runtime.docker_engine import Absent, Conflicting, Engine
from core.node.runtime.docker_logs import LogFile, copy_logs, seconds
from core.node.runtime.docker_notify import NotifySocket
from core.node.runtime.docker_stream import EngineStreams

__all__ = ["DockerRuntime"]

log = logging.getLogger(__name__)

PAUSE_IMAGE = "faaslite/base:latest"
RECONNECT_FIRST, RECONNECT_LONGEST = 0.2, 5.0
DRAIN = 2.0
"""Seconds that the end of a container's log may take to arrive before its exit is told."""
KILL_PATIENCE = 10.0
MESSAGE_BYTES = 4096


@dataclass(slots=True)
class _Container:
    id: str
    spec_name: str
    attempt: int
    tty: bool
    stop_signal: str = "SIGTERM"
    notify: NotifySocket | None = None
    follower: asyncio.Task[None] | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    address: str
    created_at: float
    pause: str = ""
    containers: dict[str, _Container] = field(default_factory=dict)


class DockerRuntime:
    """`node` names the node in labels; `pod_cidr` is the subnet of its bridge, made where it is missing.

    `base_url` is as in DOCKER_HOST. `state_dir` is the driver's own folder. `bridge` names the bridge device, "" lets the engine.
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
    ) -> None:
        self.network = f"faaslite-{node}"
        self._node = node
        self._state = state_dir
        self._cidr = pod_cidr
        self._bridge = bridge
        self._pause_image = pause_image
        self._engine = Engine(base_url, threads)
        self._streams: EngineStreams | None = None
        self._addresses = AddressPool(pod_cidr, reserved=1)
        self._sandboxes: dict[str, _Sandbox] = {}
        self._owners: dict[str, str] = {}
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    # Beginning and end

    async def start(self) -> None:
        await self._halt()
        await self._engine.connect()
        self._streams = EngineStreams(self._engine.base_url)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._ensure_network()
        subscribed = asyncio.Event()
        self._spawn(self._listen(subscribed), "docker events")
        await subscribed.wait()
        for sandbox in await self._inspected():
            await self._adopt(sandbox)
        for leftover in [each for each in os.listdir(self._state) if each not in self._sandboxes]:
            await asyncio.to_thread(shutil.rmtree, self._state / leftover, True)

    async def close(self) -> None:
        await self._halt()
        await self._engine.close()

    async def _halt(self) -> None:
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
        if self._streams is not None:
            await self._streams.close()
            self._streams = None

    async def info(self) -> RuntimeInfo:
        version = await self._engine.do("version")
        options = (await self._engine.do("info")).get("SecurityOptions") or ()
        isolation = ["no_new_privs", *(["seccomp"] if any("seccomp" in each for each in options) else [])]
        return RuntimeInfo(
            "docker", str(version["Version"]), (*isolation, "mount", "pid", "ipc", "uts", "net", "cgroup"), assigns_addresses=True
        )  # fmt: skip

    async def _ensure_network(self) -> None:
        found = await self._engine.do("networks", names=[f"^{self.network}$"])
        if found:
            subnets = [each.get("Subnet") for each in found[0]["IPAM"]["Config"] or ()]
            if self._cidr not in subnets:
                raise RuntimeFailure(
                    f"the Docker network {self.network} has the subnet {', '.join(map(str, subnets))}, not {self._cidr}; remove it first"
                )
            return
        gateway = str(next(ip_network(self._cidr).hosts()))
        options = {"com.docker.network.bridge.name": self._bridge} if self._bridge else {}
        try:
            await self._engine.do(
                "create_network", self.network, driver="bridge", options=options, check_duplicate=True,
                ipam={"Driver": "default", "Config": [{"Subnet": self._cidr, "Gateway": gateway}]},
                labels={said.LABEL_NODE: self._node},
            )  # fmt: skip
        except Conflicting:
            log.debug("the network %s came from elsewhere meanwhile", self.network)

    async def remove_network(self) -> None:
        """Take the node's bridge away, once no Pod of it is left: for a node that is given up."""
        with contextlib.suppress(Absent):
            await self._engine.do("remove_network", self.network)

    # Sandboxes

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        box = self._sandboxes.get(spec.uid)
        if box is None:
            box = self._sandboxes[spec.uid] = _Sandbox(spec, self._addresses.allocate(), wall())
        if not spec.solitary and not box.pause:
            labels = said.sandbox_labels(self._node, spec, box.address)
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
            await self._remove(box.pause)
        del self._sandboxes[sandbox_id]
        self._addresses.release(box.address)
        await asyncio.to_thread(shutil.rmtree, self._state / sandbox_id, True)

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        return None

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

    def _sandbox_info(self, uid: str, box: _Sandbox, containers: Sequence[ContainerInfo]) -> SandboxInfo:
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
        return found

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
            box = self._sandboxes[uid] = _Sandbox(spec, labels[said.LABEL_ADDRESS], said.when(inspected["Created"]))
            self._addresses.take(box.address)
        if name == said.PAUSE:
            box.pause = inspected["Id"]
            return
        container = self._remember(
            box, inspected["Id"], name, int(labels[said.LABEL_ATTEMPT]), labels[said.LABEL_TTY] == "true"
        )
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
        await asyncio.to_thread(_make_folder, notify, termination)
        body = said.container_body(
            box.spec, spec, said.sandbox_labels(self._node, box.spec, box.address),
            network=self.network, address=box.address, pause=box.pause, notify=str(notify), termination=str(termination),
        )  # fmt: skip
        container_id = await self._create(body, said.container_name(sandbox_id, spec.name, spec.attempt))
        container = self._remember(box, container_id, spec.name, spec.attempt, spec.tty)
        container.stop_signal = spec.stop_signal or container.stop_signal
        return container_id

    def _folder(self, box: _Sandbox, name: str, attempt: int) -> Path:
        return self._state / box.spec.uid / name / str(attempt)

    def _remember(self, box: _Sandbox, container_id: str, name: str, attempt: int, tty: bool) -> _Container:
        container = _Container(container_id, name, attempt, tty)
        folder = self._folder(box, name, attempt) / "notify"
        container.notify = NotifySocket(folder, lambda: self._ready(box.spec.uid, container_id))
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

    def _known(self, container_id: str) -> tuple[_Sandbox, _Container] | None:
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
        await self._remove(container_id)
        if known is None:
            return
        box, container = known
        await self._drained(container)
        if container.follower is not None:
            container.follower.cancel()
        if container.notify is not None:
            container.notify.close()
        box.containers.pop(container_id, None)
        self._owners.pop(container_id, None)
        folder = self._folder(box, container.spec_name, container.attempt)
        await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _remove(self, container_id: str) -> None:
        with contextlib.suppress(Absent):
            await self._engine.do("remove_container", container_id, force=True, v=True)

    # Logs and events

    def _follow(self, box: _Sandbox, container: _Container) -> None:
        if container.follower is None:
            work = self._copy_logs(box, container)
            container.follower = asyncio.get_running_loop().create_task(work, name=f"log of {container.id[:12]}")

    async def _copy_logs(self, box: _Sandbox, container: _Container) -> None:
        path = Path(box.spec.log_dir, container.spec_name, f"{container.attempt}.log")
        delay = RECONNECT_FIRST
        while self._streams is not None:
            try:
                log_file = LogFile(path)
                try:
                    await copy_logs(self._streams.logs(container.id, seconds(log_file.since), container.tty), log_file)
                finally:
                    log_file.close()
                return
            except RuntimeFailure as error:
                if container.exited.is_set():
                    return
                log.warning("the log of container %s broke off, going on: %s", container.id[:12], error)
            except Exception:
                log.exception("the log of container %s can't be written", container.id[:12])
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_LONGEST)

    async def _drained(self, container: _Container) -> None:
        if container.follower is not None:
            await asyncio.wait([container.follower], timeout=DRAIN)

    async def _listen(self, subscribed: asyncio.Event) -> None:
        delay = RECONNECT_FIRST
        while self._streams is not None:
            try:
                async for event in self._streams.events(said.label_filter(self._node)):
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

    def _ready(self, uid: str, container_id: str) -> None:
        self._spawn(self._tell(RuntimeEventType.READY, container_id), f"ready {container_id[:12]}")

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
            box, container = known
            ready = container.notify is not None and container.notify.ready
            if not inspected["State"]["Running"]:
                message = _message(self._folder(box, container.spec_name, container.attempt) / "termination-log")
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
        async with asyncio.timeout(timeout):
            return await self._streams.exec(container_id, command)

    async def stats(self, container_id: str) -> Stats:
        found = await self._engine.do("stats", container_id, stream=False, one_shot=True)
        memory = found.get("memory_stats") or {}
        idle = (memory.get("stats") or {}).get(
            "total_inactive_file", (memory.get("stats") or {}).get("inactive_file", 0)
        )
        return Stats(
            int(found["cpu_stats"]["cpu_usage"]["total_usage"]), max(int(memory.get("usage", 0)) - int(idle), 0)
        )

    async def pull_image(self, image: str) -> Image:
        return await self._engine.pull_image(image)

    async def find_image(self, image: str) -> Image | None:
        return await self._engine.find_image(image)

    async def images(self) -> Sequence[Image]:
        return await self._engine.images()

    async def remove_image(self, image: str) -> None:
        with contextlib.suppress(Absent, ImageNotFound):
            await self._engine.do("remove_image", said.normal_image(image))


def _make_folder(notify: Path, termination: Path) -> None:
    notify.mkdir(mode=0o755, parents=True, exist_ok=True)
    termination.touch()
    termination.chmod(0o666)


def _message(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MESSAGE_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
