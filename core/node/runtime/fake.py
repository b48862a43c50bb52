"""A runtime in memory: a true implementation without processes, for tests and for thousands of fake nodes.

Containers run until something says that they end: a test (`finish`), their `Behaviour`, or the agent. Runtimes that fail
are classes of their own, named for how they fail.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from core.clock import timestamp, wall
from core.node.runtime.base import (
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Image,
    ImagePullError,
    NotSupported,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
    RuntimeInfo,
    RuntimeUnavailable,
    SandboxInfo,
    SandboxSpec,
    Stats,
)
from core.node.runtime.fake_streams import PROGRAMS, FakeStreams, Program, echoing

__all__ = [
    "Behaviour", "BrokenSandboxRuntime", "CrashingRuntime", "DeafRuntime", "DownRuntime", "FakeRuntime", "HalfwayRuntime", "MuteRuntime",
    "NoImagesRuntime", "SlowRuntime", "StuckRuntime", "WarmRuntime",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a container does once it is started; times in seconds after its start, None for never.

    `ready_after` 0 announces readiness at once. `deaf` containers ignore TERM and die only when their grace is over.
    """

    ready_after: float | None = 0.0
    exit_after: float | None = None
    exit_code: int = 0
    oom_killed: bool = False
    message: str = ""
    output: str = ""
    deaf: bool = False
    cpu: float = 0.001
    """Cores that it keeps busy."""
    memory: int = 1 << 20


@dataclass(slots=True)
class _Container:
    info: ContainerInfo
    spec: ContainerSpec
    behaviour: Behaviour
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    beside: list[FakeStreams] = field(default_factory=list)
    """Streams that end with it."""


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    info: SandboxInfo
    containers: dict[str, _Container] = field(default_factory=dict)


class FakeRuntime:
    """`behave` says what a container does, by its specification; `latency` is the seconds that each change takes."""

    behaviour = Behaviour()
    warm = False

    def __init__(
        self,
        behave: Callable[[ContainerSpec], Behaviour] | None = None,
        *,
        latency: float = 0.0,
        assigns_addresses: bool = True,
        images: Sequence[str] = (),
    ) -> None:
        self._behave = behave or (lambda spec: self.behaviour)
        self._latency = latency
        self._assigns = assigns_addresses
        self._images: dict[str, Image] = {name: Image(name, f"sha256:{name}", 1) for name in images}
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._number = 0
        self.calls: list[tuple[str, str]] = []
        """Every change asked for: (call, name), oldest first."""
        self._called = asyncio.Event()
        self.exec_results: dict[tuple[str, ...], tuple[int, bytes]] = {}
        self.programs: dict[str, Program] = dict(PROGRAMS)
        """What `open_exec` can run, by the command's first word."""

    # What a test does to it

    def container(self, uid: str, name: str) -> ContainerInfo:
        """The newest attempt of a Pod's container; KeyError where there is none."""
        found = [
            each.info
            for sandbox in self._sandboxes.values()
            if sandbox.spec.uid == uid
            for each in sandbox.containers.values()
            if each.info.name == name
        ]
        if not found:
            raise KeyError(f"{uid}/{name}")
        return max(found, key=lambda each: each.attempt)

    def spec(self, container_id: str) -> ContainerSpec:
        return self._containers[container_id].spec

    def finish(self, container_id: str, code: int = 0, *, message: str = "", oom_killed: bool = False) -> None:
        """The container's process ends."""
        self._end(self._containers[container_id], code, message, oom_killed)

    def announce(self, container_id: str) -> None:
        """The container says that it is ready."""
        self._announce(self._containers[container_id])

    async def until_called(self, call: str, timeout: float = 30.0) -> None:
        """Return once that call was made. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not any(each == call for each, _ in self.calls):
                await self._called.wait()

    def lose_events(self) -> None:
        """The connection to the engine breaks and is back."""
        self._events.put_nowait(RuntimeEvent(RuntimeEventType.LOST))

    # Runtime

    async def start(self) -> None:
        self._events = asyncio.Queue()

    async def close(self) -> None:
        """Timers of behaviours go on: what runs keeps running."""

    def discard(self) -> None:
        """End every timer, for the end of a test."""
        for each in self._containers.values():
            _cancel(each)

    async def info(self) -> RuntimeInfo:
        return RuntimeInfo("fake", "0.1", (), self._assigns, tuple(self._images) if self.warm else ())

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        await self._change("create_sandbox", spec.name)
        for each in self._sandboxes.values():
            if each.spec.uid == spec.uid:
                return self._sandbox_info(each)
        self._number += 1
        address = spec.address
        if self._assigns:
            address = f"10.{self._number >> 16 & 255}.{self._number >> 8 & 255}.{self._number & 255}"
        info = SandboxInfo(f"sandbox-{self._number}", spec.uid, spec.name, spec.namespace, address, wall())
        self._sandboxes[info.id] = _Sandbox(spec, info)
        return info

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._change("remove_sandbox", sandbox_id)
        sandbox = self._sandboxes.pop(sandbox_id, None)
        for each in list(sandbox.containers.values()) if sandbox else ():
            self._end(each, 137, "", False)
            self._containers.pop(each.info.id, None)

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        if not self.warm:
            return None
        info = await self.create_sandbox(sandbox)
        for each in containers:
            container_id = await self.create_container(info.id, each)
            await self.start_container(container_id)
        return self._sandbox_info(self._sandboxes[info.id])

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        await self._change("create_container", spec.name)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise RuntimeFailure(f"there is no sandbox {sandbox_id}")
        container_id = f"{sandbox_id}-{spec.name}-{spec.attempt}"
        if container_id not in self._containers:
            info = ContainerInfo(
                container_id, spec.name, sandbox_id, ContainerState.CREATED,
                image=spec.image, image_id=f"sha256:{spec.image}", attempt=spec.attempt, created_at=wall(),
            )  # fmt: skip
            found = _Container(info, spec, self._behave(spec))
            self._containers[container_id] = sandbox.containers[container_id] = found
        return container_id

    async def start_container(self, container_id: str) -> None:
        await self._change("start_container", container_id)
        found = self._containers.get(container_id)
        if found is None:
            raise RuntimeFailure(f"there is no container {container_id}")
        if found.info.state is not ContainerState.CREATED:
            return
        found.info = replace(found.info, state=ContainerState.RUNNING, started_at=wall())
        self._write(found)
        self._tell(RuntimeEventType.STARTED, found)
        does, loop = found.behaviour, asyncio.get_running_loop()
        if does.ready_after == 0:
            self._announce(found)
        elif does.ready_after is not None:
            found.timers.append(loop.call_later(does.ready_after, self._announce, found))
        if does.exit_after == 0:
            self._end(found, does.exit_code, does.message, does.oom_killed)
        elif does.exit_after is not None:
            ends = partial(self._end, found, does.exit_code, does.message, does.oom_killed)
            found.timers.append(loop.call_later(does.exit_after, ends))

    async def stop_container(self, container_id: str, grace: float) -> None:
        await self._change("stop_container", container_id)
        found = self._containers.get(container_id)
        if found is None or found.info.state is not ContainerState.RUNNING:
            return
        if found.behaviour.deaf:
            try:
                async with asyncio.timeout(grace):
                    await found.ended.wait()
            except TimeoutError:
                self._end(found, 137, "", False)
        else:
            self._end(found, 143, "", False)

    async def remove_container(self, container_id: str) -> None:
        await self._change("remove_container", container_id)
        found = self._containers.pop(container_id, None)
        if found is not None:
            self._end(found, 137, "", False)
            self._sandboxes[found.info.sandbox_id].containers.pop(container_id, None)

    async def list(self) -> Sequence[SandboxInfo]:
        return [self._sandbox_info(each) for each in self._sandboxes.values()]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    async def exec(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        self._note("exec", " ".join(command))
        self._running(container_id)
        return self.exec_results.get(tuple(command), (0, b""))

    async def open_exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> FakeStreams:
        self._note("open_exec", " ".join(command))
        container = self._running(container_id)
        program = self.programs.get(command[0], _missing)
        streams = FakeStreams(program, command, stdin=stdin, tty=tty)
        container.beside.append(streams)
        return streams

    async def attach(self, container_id: str, *, stdin: bool) -> FakeStreams:
        """What the container is given as input it says again, where its specification has an input."""
        self._note("attach", container_id)
        container = self._running(container_id)
        spec = container.spec

        async def program(streams: FakeStreams, command: Sequence[str]) -> int:
            code = await echoing(streams, command)
            if spec.stdin_once:
                asyncio.get_running_loop().call_soon(self.finish, container_id)
            return code

        streams = FakeStreams(
            program if spec.stdin else None, (), stdin=stdin and spec.stdin, tty=spec.tty, attached=True
        )
        container.beside.append(streams)
        return streams

    async def say(self, container_id: str, data: bytes, stream: int = 1) -> None:
        """The container's process writes: whoever is attached sees it."""
        for each in self._containers[container_id].beside:
            await each.say(data, stream)

    def _running(self, container_id: str) -> _Container:
        found = self._containers.get(container_id)
        if found is None or found.info.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {container_id} isn't running")
        return found

    async def stats(self, container_id: str) -> Stats:
        found = self._containers.get(container_id)
        if found is None or found.info.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {container_id} isn't running")
        busy = found.behaviour.cpu * (wall() - found.info.started_at)
        return Stats(cpu_ns=int(busy * 1e9), memory=found.behaviour.memory)

    async def pull_image(self, image: str) -> Image:
        await self._change("pull_image", image)
        return self._images.setdefault(image, Image(image, f"sha256:{image}", 1))

    async def find_image(self, image: str) -> Image | None:
        return self._images.get(image)

    async def images(self) -> Sequence[Image]:
        return tuple(self._images.values())

    async def remove_image(self, image: str) -> None:
        self._images.pop(image, None)

    # Inside

    async def _change(self, call: str, name: str) -> None:
        self._note(call, name)
        if self._latency:
            await asyncio.sleep(self._latency)

    def _note(self, call: str, name: str) -> None:
        self.calls.append((call, name))
        self._called.set()
        self._called = asyncio.Event()

    def _sandbox_info(self, sandbox: _Sandbox) -> SandboxInfo:
        return replace(sandbox.info, containers=tuple(each.info for each in sandbox.containers.values()))

    def _tell(self, event: RuntimeEventType, container: _Container) -> None:
        sandbox_id = container.info.sandbox_id
        sandbox = self._sandboxes.get(sandbox_id)
        self._events.put_nowait(RuntimeEvent(event, sandbox_id, sandbox.spec.uid if sandbox else "", container.info))

    def _announce(self, container: _Container) -> None:
        if container.info.state is ContainerState.RUNNING:
            container.info = replace(container.info, announced_ready=True)
            self._tell(RuntimeEventType.READY, container)

    def _end(self, container: _Container, code: int, message: str, oom_killed: bool) -> None:
        _cancel(container)
        if container.info.state is not ContainerState.RUNNING:
            return
        container.info = replace(
            container.info, state=ContainerState.EXITED, finished_at=wall(), exit_code=code, message=message, oom_killed=oom_killed
        )  # fmt: skip
        container.ended.set()
        for each in container.beside:
            each.kill()
        self._tell(RuntimeEventType.EXITED, container)

    def _write(self, container: _Container) -> None:
        """The behaviour's output, as a CRI log file."""
        log_dir = self._sandboxes[container.info.sandbox_id].spec.log_dir
        if container.behaviour.output and log_dir:
            folder = os.path.join(log_dir, container.info.name)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"{container.info.attempt}.log"), "a") as file:
                for line in container.behaviour.output.splitlines():
                    file.write(f"{timestamp()} stdout F {line}\n")


async def _missing(streams: FakeStreams, command: Sequence[str]) -> int:
    await streams.say(f"{command[0]}: No such file or directory\n".encode(), 2)
    return 127


def _cancel(container: _Container) -> None:
    for each in container.timers:
        each.cancel()
    container.timers.clear()


class MuteRuntime(FakeRuntime):
    """Its containers never say that they are ready."""

    behaviour = Behaviour(ready_after=None)


class WarmRuntime(FakeRuntime):
    """It has a warm sandbox for every Pod: `run_pod` takes each."""

    warm = True


class CrashingRuntime(FakeRuntime):
    """Its containers exit with 1 as soon as they are started."""

    behaviour = Behaviour(ready_after=None, exit_after=0.0, exit_code=1, output="it fell over")


class DeafRuntime(FakeRuntime):
    """Its containers ignore TERM."""

    behaviour = Behaviour(deaf=True)


class SlowRuntime(FakeRuntime):
    """Each change takes a tenth of a second."""

    def __init__(self) -> None:
        super().__init__(latency=0.1)


class NoImagesRuntime(FakeRuntime):
    """No registry is within reach: every pull fails."""

    async def pull_image(self, image: str) -> Image:
        await self._change("pull_image", image)
        raise ImagePullError(f"{image} is not on this node and no registry answers")


class BrokenSandboxRuntime(FakeRuntime):
    """It never makes a sandbox."""

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        await self._change("create_sandbox", spec.name)
        raise NotSupported("this runtime makes no sandboxes")


class HalfwayRuntime(FakeRuntime):
    """It makes the sandbox, and then fails."""

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        await super().create_sandbox(spec)
        raise RuntimeFailure("the address could not be set")


class StuckRuntime(FakeRuntime):
    """A sandbox is begun and never done."""

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        await super().create_sandbox(spec)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class DownRuntime(FakeRuntime):
    """The engine doesn't answer until `up` is set."""

    up = False

    async def start(self) -> None:
        if not self.up:
            raise RuntimeUnavailable("the engine doesn't answer")
        await super().start()

    async def info(self) -> RuntimeInfo:
        if not self.up:
            raise RuntimeUnavailable("the engine doesn't answer")
        return await super().info()
