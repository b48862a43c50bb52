"""What the sandboxer does for drivers: each public method named in `OPERATIONS` is one operation of the protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.clock import monotonic, wall
from core.node.runtime.base import (
    ContainerSpec,
    ImageNotFound,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
)

from .beside import open_exec, run_beside
from .builders import COMMAND, builder_of
from .bytecode import Bytecode
from .containers import Container, Sandbox
from .images import image_name, with_version
from .node import Node
from .protocol import Call, Reply
from .streams import Driver
from .zygotes import Base, Zygote

__all__ = ["Service"]

log = logging.getLogger(__name__)
LEARN_SECONDS = 0.25
"""After a start: by then its call has been answered."""
LOOKS_AT_ONCE = 20


class Service:
    """All sandboxes of a node. `push` is given every event."""

    def __init__(self, node: Node, push: Callable[[RuntimeEvent], None]) -> None:
        self._node = node
        self._push = push
        # One per image, started when it is first needed: an idle node holds none.
        self._bases: dict[str, Base] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._zygotes: dict[tuple[str, str, str], Zygote] = {}
        self._old: list[Zygote] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytecode = Bytecode(node)

    async def stop(self) -> None:
        """End everything that runs."""
        for container in self._containers.values():
            if container.running and container.child is not None:
                container.child.kill()
        for container in self._containers.values():
            if container.running:
                await container.exited.wait()
        for zygote in [*self._zygotes.values(), *self._old]:
            zygote.close()
        for base in self._bases.values():
            base.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sweep(self, now: float) -> None:
        """Let go of zygotes that were idle for long (`now` of the monotonic clock), and of what is left of dead ones."""
        for key, zygote in list(self._zygotes.items()):
            if not zygote.alive or (zygote.idle and now - zygote.used_at > self._node.settings.idle):
                zygote.close()
                self._old.append(self._zygotes.pop(key))
        for zygote in list(self._old):
            if not zygote.members:
                zygote.remove_folders()
                self._old.remove(zygote)
        for zygote in self._zygotes.values():
            zygote.refill()

    async def look(self) -> None:
        """Look at the limits of everything that runs, a few at a time: starts must not wait for it."""
        for number, container in enumerate(list(self._containers.values()), 1):
            container.look(monotonic())
            if number % LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)

    # Operations

    def try_now(self, call: Call) -> Reply | None:
        """`run_pod` where all it takes is at hand, without a task of its own; None where it has to be awaited."""
        if (
            call.op != "run_pod"
            or call.sandbox is None
            or len(call.containers) != 1
            or call.sandbox.uid in self._sandboxes
        ):
            return None
        spec = call.containers[0]
        image = image_name(spec.image)
        if image not in self._node.images or spec.command[:1] == [COMMAND]:
            return None
        sandbox = Sandbox(call.sandbox, wall())
        container = Container(self._node, sandbox, spec, image, self._event)
        zygote = self._zygotes.get((call.sandbox.namespace, container.image.name, container.layer))
        if zygote is None or not zygote.alive or (child := zygote.take()) is None:
            return None
        container.adopt(child)
        self._add(sandbox, container)
        self._learn(zygote, container)
        return Reply(call.id, sandboxes=[sandbox.info()])

    async def run_pod(self, call: Call) -> Reply:
        assert call.sandbox is not None
        if len(call.containers) != 1 or image_name(call.containers[0].image) not in self._node.images:
            return Reply(call.id)
        await self._find_builder(call.containers[0])
        known = call.sandbox.uid in self._sandboxes
        sandbox = self._sandbox(call)
        try:
            container = self._container(sandbox, call.containers[0])
            await self._start(container)
        except BaseException:
            if not known:
                self._forget(sandbox)
            raise
        return Reply(call.id, sandboxes=[sandbox.info()])

    async def warm_up(self, call: Call) -> Reply:
        """Have the zygote of such Pods ready."""
        assert call.sandbox is not None
        spec = call.containers[0]
        await self._find_builder(spec)
        container = Container(self._node, Sandbox(call.sandbox, wall()), spec, image_name(spec.image), self._event)
        zygote = await self._zygote(container)
        if self._preloads:
            await zygote.preload(container.scanned)
        zygote.refill()
        await self._compile(container)
        return Reply(call.id)

    async def create_sandbox(self, call: Call) -> Reply:
        return Reply(call.id, sandboxes=[self._sandbox(call).info()])

    async def remove_sandbox(self, call: Call) -> Reply:
        sandbox = self._sandboxes.get(call.target)
        if sandbox is not None:
            for container in list(sandbox.containers.values()):
                await self._remove(container)
            self._forget(sandbox)
        return Reply(call.id)

    async def create_container(self, call: Call) -> Reply:
        sandbox = self._sandboxes.get(call.target)
        if sandbox is None:
            raise RuntimeFailure(f"there is no sandbox {call.target}")
        await self._find_builder(call.containers[0])
        return Reply(call.id, text=self._container(sandbox, call.containers[0]).id)

    async def start_container(self, call: Call) -> Reply:
        await self._start(self._known(call.target))
        return Reply(call.id)

    async def stop_container(self, call: Call) -> Reply:
        container = self._containers.get(call.target)
        if container is not None:
            await container.stop(call.seconds)
        return Reply(call.id)

    async def remove_container(self, call: Call) -> Reply:
        container = self._containers.get(call.target)
        if container is not None:
            await self._remove(container)
        return Reply(call.id)

    async def list(self, call: Call) -> Reply:
        return Reply(call.id, sandboxes=[each.info() for each in self._sandboxes.values()])

    async def info(self, call: Call) -> Reply:
        images = self._node.images.values()
        known = await asyncio.gather(*(asyncio.to_thread(with_version, each) for each in images))
        return Reply(call.id, isolation=self._node.isolation, text="\n".join(known))

    async def stats(self, call: Call) -> Reply:
        return Reply(call.id, stats=self._known(call.target).stats())

    async def exec(self, call: Call) -> Reply:
        code, output = await run_beside(self._known(call.target), call.command, call.seconds)
        return Reply(call.id, code=code, output=output)

    async def open_exec(self, call: Call, driver: Driver) -> None:
        await open_exec(self._known(call.target), call, driver)

    async def attach(self, call: Call, driver: Driver) -> None:
        self._known(call.target).attach(call, driver)

    STREAMS = frozenset({"attach", "open_exec"})
    """Operations of a connection of their own, which answer by themselves."""

    OPERATIONS = frozenset({
        "create_container", "create_sandbox", "exec", "info", "list", "remove_container", "remove_sandbox", "run_pod",
        "start_container", "stats", "stop_container", "warm_up",
    })  # fmt: skip

    # Parts

    def _event(self, kind: RuntimeEventType, container: Container) -> None:
        self._push(RuntimeEvent(kind, container.sandbox.id, container.sandbox.spec.uid, container.info()))

    def _sandbox(self, call: Call) -> Sandbox:
        assert call.sandbox is not None
        sandbox = self._sandboxes.get(call.sandbox.uid)
        if sandbox is None:
            sandbox = self._sandboxes[call.sandbox.uid] = Sandbox(call.sandbox, wall())
        return sandbox

    def _container(self, sandbox: Sandbox, spec: ContainerSpec) -> Container:
        image = image_name(spec.image)
        if image not in self._node.images:
            raise ImageNotFound(f"process nodes run {', '.join(sorted(self._node.images))} only, not {spec.image}")
        container = Container(self._node, sandbox, spec, image, self._event)
        if container.id in self._containers:
            return self._containers[container.id]
        self._add(sandbox, container)
        return container

    async def _find_builder(self, spec: ContainerSpec) -> None:
        """Raises `RuntimeFailure` where a build is asked for of an image that has none."""
        name = image_name(spec.image)
        if spec.command[:1] != [COMMAND] or name in self._node.builders or name not in self._node.images:
            return
        found = await asyncio.to_thread(builder_of, self._node.images[name])
        if found is None:
            raise RuntimeFailure(f"{name} builds no layers on process nodes")
        self._node.builders[name] = found

    def _add(self, sandbox: Sandbox, container: Container) -> None:
        self._sandboxes[sandbox.id] = sandbox
        self._containers[container.id] = sandbox.containers[container.id] = container

    def _known(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFailure(f"there is no container {container_id}")
        return container

    async def _start(self, container: Container) -> None:
        if container.starting or container.child is not None:
            return
        container.starting = True
        try:
            zygote = await self._zygote(container)
            child = zygote.take()
            if child is None:
                if self._preloads and not zygote.knows(container.scanned):
                    await zygote.preload(container.scanned)
                child = await zygote.fork()
            if container.id not in self._containers:
                child.kill()
                raise RuntimeFailure(f"container {container.id} was removed while it was started")
            container.adopt(child)
            self._learn(zygote, container)
        finally:
            container.starting = False

    @property
    def _preloads(self) -> bool:
        """Whether zygotes may import code that isn't ours: only where it can't read what the node's user can."""
        return self._node.mounts or "landlock" not in self._node.isolation

    async def _zygote(self, container: Container) -> Zygote:
        namespace, image, layer = container.sandbox.spec.namespace, container.image, container.layer
        key = (namespace, image.name, layer)
        zygote = self._zygotes.get(key)
        if zygote is not None and not zygote.alive:
            self._old.append(self._zygotes.pop(key))
            zygote = None
        if zygote is None:
            base = self._bases.get(image.base)
            if base is None or not base.alive:
                if base is not None:
                    base.close()
                base = self._bases[image.base] = Base(self._node, self._node.images[image.base])
            await base.ready()
            zygote = self._zygotes.get(key)
            if zygote is None:
                zygote = self._zygotes[key] = Zygote(self._node, base, image, namespace, layer)
        await zygote.ready()
        return zygote

    def _learn(self, zygote: Zygote, container: Container) -> None:
        """Off the critical path: import for the next ones what this package imports."""
        package = container.scanned
        if (self._preloads and not zygote.knows(package)) or not self._bytecode.knows(package):
            task = asyncio.create_task(self._study(zygote, container))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _study(self, zygote: Zygote, container: Container) -> None:
        await asyncio.sleep(LEARN_SECONDS)
        if self._preloads:
            try:
                await zygote.preload(container.scanned)
            except (RuntimeFailure, OSError) as error:
                log.warning("the imports of %s were not looked at: %s", container.scanned, error)
        await self._compile(container)

    async def _compile(self, container: Container) -> None:
        base = self._bases.get(container.image.base)
        if container.scanned and base is not None and base.alive:
            await self._bytecode.compile(base, container.scanned)

    async def _remove(self, container: Container) -> None:
        if container.running and container.child is not None:
            container.child.kill()
            await container.exited.wait()
        self._containers.pop(container.id, None)
        container.sandbox.containers.pop(container.id, None)

    def _forget(self, sandbox: Sandbox) -> None:
        for container in list(sandbox.containers.values()):
            self._containers.pop(container.id, None)
        self._sandboxes.pop(sandbox.id, None)
        self.sweep(monotonic())
