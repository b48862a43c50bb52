"""A runtime behind a guard: what every driver would otherwise have to do itself.

- Calls that change one sandbox follow one another; its containers may be stopped side by side, for they share one grace.
- Every call has a time limit; one that is over it raises `RuntimeUnavailable`.
- No more than `STARTS_AT_ONCE` sandboxes are made at the same time; those that wait for their turn aren't late yet.
- A sandbox whose creation failed half-way, or was cancelled, is removed again.
- Operations are counted and timed (`Guard.operations`), which the node's metrics show.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from core.clock import monotonic
from core.node.runtime.base import (
    ContainerSpec,
    Image,
    Runtime,
    RuntimeEvent,
    RuntimeInfo,
    RuntimeUnavailable,
    SandboxInfo,
    SandboxSpec,
    Stats,
    Streams,
    Warmable,
)

__all__ = ["TIME_LIMITS", "Guard", "Operation"]

log = logging.getLogger(__name__)

TIME_LIMITS: Mapping[str, float] = {
    "start": 60.0,
    "info": 30.0,
    "create_sandbox": 120.0,
    "remove_sandbox": 120.0,
    "run_pod": 60.0,
    "warm_up": 60.0,
    "create_container": 120.0,
    "start_container": 120.0,
    "stop_container": 30.0,
    "remove_container": 120.0,
    "list": 60.0,
    "exec": 10.0,
    "open_exec": 60.0,
    "attach": 30.0,
    "stats": 30.0,
    "pull_image": 1800.0,
    "find_image": 30.0,
    "images": 60.0,
    "remove_image": 120.0,
}
"""Seconds per call; those of `stop_container` and `exec` are on top of the time that the caller gives."""


STARTS_AT_ONCE = 64
"""A thousand Pods may be bound to a node in one second: they are made at the pace at which the runtime can make them."""


@dataclass(slots=True)
class Operation:
    """How often a call was made, how often it failed, and the seconds that it took in all."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0


class _Turn:
    """A sandbox's turn: one exclusive call at a time, or any number of shared ones."""

    __slots__ = ("_condition", "_exclusive", "_shared", "users")

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._exclusive = False
        self._shared = 0
        self.users = 0

    @asynccontextmanager
    async def take(self, shared: bool) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._exclusive and (shared or not self._shared))
            if shared:
                self._shared += 1
            else:
                self._exclusive = True
        try:
            yield
        finally:
            # Plain assignments first: a cancelled task must give its turn back even if it can't wait to tell.
            if shared:
                self._shared -= 1
            else:
                self._exclusive = False
            await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._condition:
            self._condition.notify_all()


class Guard:
    """Implements `Runtime` around a driver."""

    def __init__(self, runtime: Runtime, time_limits: Mapping[str, float] = TIME_LIMITS) -> None:
        self.runtime = runtime
        self.operations: dict[str, Operation] = {}
        self._limits = {**TIME_LIMITS, **time_limits}
        self._turns: dict[str, _Turn] = {}
        self._sandbox_of: dict[str, str] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)

    # The two things that every call goes through

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        operation = self.operations.setdefault(name, Operation())
        operation.calls += 1
        begin = monotonic()
        try:
            yield
        except BaseException:
            operation.failures += 1
            raise
        finally:
            operation.seconds += monotonic() - begin

    @asynccontextmanager
    async def _call(self, name: str, extra: float = 0.0) -> AsyncIterator[None]:
        limit = self._limits[name] + extra
        with self._measured(name):
            timer = asyncio.timeout(limit)
            try:
                async with timer:
                    yield
            except TimeoutError:
                if not timer.expired():
                    raise
                raise RuntimeUnavailable(f"the runtime didn't finish {name} within {limit:g} s") from None

    @asynccontextmanager
    async def _turn(self, key: str, *, shared: bool = False) -> AsyncIterator[None]:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn()
        turn.users += 1
        try:
            async with turn.take(shared):
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                self._turns.pop(key, None)

    def _container_turn(self, container_id: str) -> str:
        return self._sandbox_of.get(container_id, container_id)

    # Runtime

    async def start(self) -> None:
        async with self._call("start"):
            await self.runtime.start()

    async def close(self) -> None:
        await self.runtime.close()

    async def info(self) -> RuntimeInfo:
        async with self._call("info"):
            return await self.runtime.info()

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        async with self._turn(spec.uid):
            try:
                async with self._starts, self._call("create_sandbox"):
                    return await self.runtime.create_sandbox(spec)
            except BaseException:
                await self._undo(spec)
                raise

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        async with self._turn(sandbox.uid):
            try:
                async with self._starts, self._call("run_pod"):
                    found = await self.runtime.run_pod(sandbox, containers)
            except BaseException:
                await self._undo(sandbox)
                raise
        for each in found.containers if found else ():
            self._sandbox_of[each.id] = found.id if found else ""
        return found

    async def warm_up(self, sandbox: SandboxSpec, container: ContainerSpec) -> None:
        """As `Warmable.warm_up`; nothing where the driver isn't one."""
        if isinstance(self.runtime, Warmable):
            async with self._call("warm_up"):
                await self.runtime.warm_up(sandbox, container)

    async def _undo(self, spec: SandboxSpec) -> None:
        """Remove whatever there is of that Pod; a failure is logged, for the one that led here is being raised."""
        task = asyncio.ensure_future(self._remove_remains(spec.uid))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await task
            raise

    async def _remove_remains(self, uid: str) -> None:
        try:
            async with asyncio.timeout(self._limits["remove_sandbox"]):
                for each in await self.runtime.list():
                    if each.uid == uid:
                        await self.runtime.remove_sandbox(each.id)
        except Exception as error:
            log.warning("the remains of the sandbox of Pod %s could not be removed: %s", uid, error)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        async with self._turn(sandbox_id), self._call("remove_sandbox"):
            await self.runtime.remove_sandbox(sandbox_id)
        for each in [key for key, value in self._sandbox_of.items() if value == sandbox_id]:
            del self._sandbox_of[each]

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        async with self._turn(sandbox_id), self._call("create_container"):
            container_id = await self.runtime.create_container(sandbox_id, spec)
        self._sandbox_of[container_id] = sandbox_id
        return container_id

    async def start_container(self, container_id: str) -> None:
        async with self._turn(self._container_turn(container_id)), self._call("start_container"):
            await self.runtime.start_container(container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        async with self._turn(self._container_turn(container_id), shared=True), self._call("stop_container", grace):
            await self.runtime.stop_container(container_id, grace)

    async def remove_container(self, container_id: str) -> None:
        async with self._turn(self._container_turn(container_id)), self._call("remove_container"):
            await self.runtime.remove_container(container_id)
        self._sandbox_of.pop(container_id, None)

    async def list(self) -> Sequence[SandboxInfo]:
        async with self._call("list"):
            found = await self.runtime.list()
        for sandbox in found:
            for each in sandbox.containers:
                self._sandbox_of[each.id] = sandbox.id
        return found

    def events(self) -> AsyncIterator[RuntimeEvent]:
        return self.runtime.events()

    async def exec(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        async with self._call("exec", timeout):
            return await self.runtime.exec(container_id, command, timeout)

    async def open_exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Streams:
        async with self._call("open_exec"):
            return await self.runtime.open_exec(container_id, command, stdin=stdin, tty=tty)

    async def attach(self, container_id: str, *, stdin: bool) -> Streams:
        async with self._call("attach"):
            return await self.runtime.attach(container_id, stdin=stdin)

    async def stats(self, container_id: str) -> Stats:
        async with self._call("stats"):
            return await self.runtime.stats(container_id)

    async def pull_image(self, image: str) -> Image:
        async with self._call("pull_image"):
            return await self.runtime.pull_image(image)

    async def find_image(self, image: str) -> Image | None:
        async with self._call("find_image"):
            return await self.runtime.find_image(image)

    async def images(self) -> Sequence[Image]:
        async with self._call("images"):
            return await self.runtime.images()

    async def remove_image(self, image: str) -> None:
        async with self._call("remove_image"):
            await self.runtime.remove_image(image)
