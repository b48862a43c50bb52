"""The warm pool of a Docker node: started containers that wait for Pods, refilled in the background.

A container waits for the sake of its `Shape`. Shapes are those the node was told of and those that Pods came with; as many wait of each as
`docker_fit.shares` says. A waiting container whose control connection ends is gone; so none outlives the agent that it waits
for. One container serves one Pod, ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import wall
from core.node.addresses import AddressPool
from core.node.runtime import docker_spec as said
from core.node.runtime.base import ContainerSpec, ImageNotFound, Mount, RuntimeFailure, SandboxSpec
from core.node.runtime.docker_engine import Absent, Engine
from core.node.runtime.docker_fit import ROOTS, Shape, shares
from core.node.runtime.docker_slot import Slot, control_socket, prepare_folder, remove_folder
from core.node.runtime.docker_stream import EngineStreams
from core.node.runtime.sandboxer.isolation import make_shared, mounts_below

__all__ = ["WarmPool", "WarmSettings"]

log = logging.getLogger(__name__)

BORN_SECONDS = 30.0
CALM = 0.25
"""Seconds after an adoption before the next container is made: the function that begins has the processor to itself."""
RETRY_FIRST, RETRY_LONGEST = 1.0, 60.0
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class WarmSettings:
    """`each` containers wait per shape (0 turns the pool off), for `budget` bytes in all; `shapes` are kept from the start."""

    each: int = 4
    budget: int = 512 << 20
    shapes: Sequence[Shape] = ()


class WarmPool:
    """`folder` is its own. `labels` are put on every container. `network` is the node's bridge, `addresses` what is free of it."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        settings: WarmSettings,
        *,
        network: str,
        labels: Mapping[str, str],
        addresses: AddressPool,
    ) -> None:
        self.folder = folder
        self._engine = engine
        self._settings = settings
        self._network = network
        self._labels = labels
        self._addresses = addresses
        self._used: dict[Shape, float] = {}
        self._idle: dict[Shape, list[Slot]] = {}
        self._filling: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unable: dict[str, str] = {}
        self._news = asyncio.Event()

    # Beginning and end

    async def start(self) -> None:
        """Raises OSError where volumes can't be made to appear in running containers here."""
        await asyncio.to_thread(self._open)
        self._used = dict.fromkeys(self._settings.shapes, 0.0)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"warm pool of {self._network}")
        self._wake.set()

    def _open(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = os.path.realpath(self.folder)
        if path not in mounts_below(path):
            make_shared(path)

    async def halt(self) -> None:
        """Let go of those that wait: they end by themselves."""
        await self._stop_keeping()
        for slots in self._idle.values():
            for each in slots:
                self._forget(each)
        self._idle.clear()
        self._used.clear()
        self._unable.clear()

    async def empty(self) -> None:
        """Remove those that wait, and keep none from now on: for a node that is given up."""
        await self._stop_keeping()
        for slot in [each for slots in self._idle.values() for each in slots]:
            await self._drop(slot)

    async def _stop_keeping(self) -> None:
        tasks = [*self._tasks, *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = None

    @property
    def idle(self) -> Mapping[Shape, int]:
        return {shape: len(slots) for shape, slots in self._idle.items() if slots}

    async def filled(self) -> None:
        """Return when as many wait as shall."""
        while self._lacking() or not self._wanted():
            self._news.clear()
            await self._news.wait()

    async def watch_images(self, streams: EngineStreams) -> None:
        """Until cancelled: take notice of images that were built, brought or removed."""
        filters = {"type": ["image"], "event": ["tag", "untag", "import", "load", "pull", "delete"]}
        while True:
            with contextlib.suppress(RuntimeFailure):
                async for _ in streams.events(filters):
                    self.image_changed()
            await asyncio.sleep(RETRY_FIRST)

    # Giving away

    def take(self, shape: Shape) -> Slot | str:
        """A waiting container, or why there is none; the shape is kept in store from now on."""
        self._used[shape] = wall()
        slots = self._idle.get(shape)
        asyncio.get_running_loop().call_later(CALM if slots else 0.0, self._wake.set)
        if slots:
            slot = slots.pop()
            self._forget(slot, keep=True)
            return slot
        return self._unable.get(shape.image, "no container of its kind waits")

    def ended(self, container_id: str) -> None:
        """A container died that no Pod has."""
        waiter = self._filling.get(container_id)
        if waiter is not None and not waiter.done():
            waiter.set_exception(RuntimeFailure("it ended before it waited"))

    def image_changed(self) -> None:
        """Those of an image that is another one now are to go, and what was not possible may be."""
        self._unable.clear()
        self._spawn(self._drop_outdated())

    async def _drop_outdated(self) -> None:
        for shape in list(self._idle):
            with contextlib.suppress(RuntimeFailure):
                found = await self._engine.find_image(shape.image)
                for slot in [each for each in self._idle.get(shape, ()) if found is None or each.image_id != found.id]:
                    await self._drop(slot)
        self._wake.set()

    async def discard(self, slot: Slot) -> None:
        """Remove the container and all that it held."""
        slot.control.close()
        await self._undo(slot.container_id, slot.folder, slot.address)

    def _forget(self, slot: Slot, *, keep: bool = False) -> None:
        asyncio.get_running_loop().remove_reader(slot.control)
        if not keep:
            slot.control.close()

    async def _drop(self, slot: Slot) -> None:
        slots = self._idle.get(slot.shape, [])
        if slot in slots:
            slots.remove(slot)
            self._forget(slot)
            await self.discard(slot)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"warm pool of {self._network}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Keeping it full

    def _wanted(self) -> dict[Shape, int]:
        able = {shape: used for shape, used in self._used.items() if shape.image not in self._unable}
        return shares(able, self._settings.each, self._settings.budget)

    def _lacking(self) -> list[Shape]:
        """One entry per container to be made."""
        wanted = self._wanted().items()
        return [shape for shape, count in wanted for _ in range(count - len(self._idle.get(shape, ())))]

    async def _keep(self) -> None:
        delay = RETRY_FIRST
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._trim()
                while lacking := self._lacking():
                    made = await asyncio.gather(*map(self._fill, lacking[:_AT_ONCE]), return_exceptions=True)
                    self._news.set()
                    for error in made:
                        if error is not None:
                            raise error
                delay = RETRY_FIRST
            except (RuntimeFailure, OSError) as error:
                log.warning("no container can be kept waiting, trying again in %g s: %s", delay, error)
                asyncio.get_running_loop().call_later(delay, self._wake.set)
                delay = min(delay * 2, RETRY_LONGEST)
            except Exception:
                log.exception("the warm pool failed")
                asyncio.get_running_loop().call_later(RETRY_LONGEST, self._wake.set)
            self._news.set()

    async def _trim(self) -> None:
        wanted = self._wanted()
        for shape, slots in list(self._idle.items()):
            for slot in slots[wanted.get(shape, 0) :]:
                await self._drop(slot)

    async def _command(self, image: str) -> list[str]:
        """How this image waits; empty where it can't, which is then known until an image changes."""
        try:
            found = await self._engine.do("inspect_image", image)
        except (ImageNotFound, Absent):
            self._unable[image] = f"the image {image} is not on this node"
            return []
        label = (found["Config"].get("Labels") or {}).get(said.LABEL_WAITING)
        if not label:
            self._unable[image] = f"the image {image} can't wait (it has no label {said.LABEL_WAITING})"
            return []
        return [str(each) for each in json.loads(label)]

    async def _fill(self, shape: Shape) -> None:
        command = await self._command(shape.image)
        if not command:
            return
        slot_id = secrets.token_hex(6)
        folder, address = self.folder / slot_id, self._addresses.allocate()
        container_id, listener = "", None
        try:
            await asyncio.to_thread(prepare_folder, folder)
            listener = control_socket(folder)
            body = self._body(shape, command, slot_id, folder, address)
            container_id = (await self._engine.do("create_container_from_config", body, said.slot_name(slot_id)))["Id"]
            born = self._filling[container_id] = asyncio.get_running_loop().create_future()
            await self._engine.do("start", container_id)
            control = await self._born(listener, born)
        except BaseException as error:
            # Also when cancelled: what was made must not stay. The engine may be the very thing that fails.
            removal = asyncio.ensure_future(self._undo(container_id, folder, address))
            await asyncio.shield(removal)
            if isinstance(error, RuntimeFailure):
                raise RuntimeFailure(f"{shape.image}: {error}") from error
            raise
        finally:
            self._filling.pop(container_id, None)
            if listener is not None:
                listener.close()
        try:
            inspected = await self._engine.do("inspect_container", container_id)
        except BaseException:
            control.close()
            await asyncio.shield(asyncio.ensure_future(self._undo(container_id, folder, address)))
            raise
        etc = {
            "hostname": inspected["HostnamePath"],
            "hosts": inspected["HostsPath"],
            "resolv.conf": inspected["ResolvConfPath"],
        }
        pid = int(inspected["State"]["Pid"])
        slot = Slot(slot_id, folder, shape, address, container_id, inspected["Image"], pid, etc, control)
        self._idle.setdefault(shape, []).append(slot)
        asyncio.get_running_loop().add_reader(control, self._lost, slot)

    def _lost(self, slot: Slot) -> None:
        """It has nothing to say any more but its end."""
        asyncio.get_running_loop().remove_reader(slot.control)
        self._spawn(self._lose(slot))

    async def _lose(self, slot: Slot) -> None:
        if slot in self._idle.get(slot.shape, ()):
            log.warning("a waiting container of %s ended", slot.shape.image)
            with contextlib.suppress(RuntimeFailure):
                await self._drop(slot)
            asyncio.get_running_loop().call_later(RETRY_FIRST, self._wake.set)

    async def _undo(self, container_id: str, folder: Path, address: str) -> None:
        try:
            if container_id:
                await self._engine.remove(container_id)
        except RuntimeFailure as error:
            log.warning("the container %s could not be removed: %s", container_id[:12], error)
        await asyncio.to_thread(remove_folder, folder)
        self._addresses.release(address)

    async def _born(self, listener: Any, ended: asyncio.Future[None]) -> Any:
        """The control connection of a container that says that it waits."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(BORN_SECONDS):
            await _readable(loop, listener, ended)
            control, _ = listener.accept()
            try:
                control.setblocking(False)
                await _readable(loop, control, ended)
                if not control.recv(4096):
                    raise RuntimeFailure("it ended before it waited")
            except BaseException:
                control.close()
                raise
        return control

    def _body(self, shape: Shape, command: list[str], slot_id: str, folder: Path, address: str) -> dict[str, Any]:
        sandbox = SandboxSpec(slot_id, "", "", "", hostname=slot_id, solitary=True)
        spec = ContainerSpec(
            "", shape.image, command, (), {"FAASLITE_CONTROL": f"{said.NOTIFY_FOLDER}/control"}, user=shape.user, group=shape.group,
            cpu=shape.cpu, cpu_request=shape.cpu_request, memory=shape.memory, read_only_root=shape.read_only_root,
            no_capabilities=shape.no_capabilities, mounts=tuple(Mount("", path, scratch=size) for path, size in shape.scratches),
        )  # fmt: skip
        body = said.container_body(
            sandbox, spec, {}, network=self._network, address=address, pause="",
            notify=str(folder / "notify"), termination=str(folder / "termination-log"),
        )  # fmt: skip
        body["Labels"] = {**self._labels, said.LABEL_SLOT: slot_id, said.LABEL_ADDRESS: address}
        body["HostConfig"]["Mounts"] += [
            {
                "Type": "bind",
                "Source": str(folder / name),
                "Target": path,
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            }
            for name, path in ROOTS.items()
        ]
        return body


async def _readable(loop: asyncio.AbstractEventLoop, waited: Any, ended: asyncio.Future[None]) -> None:
    """Until there is something to read; raises what `ended` is given."""
    came = asyncio.Event()
    loop.add_reader(waited, came.set)
    waiting = loop.create_task(came.wait())
    try:
        await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
    finally:
        waiting.cancel()
        loop.remove_reader(waited)
