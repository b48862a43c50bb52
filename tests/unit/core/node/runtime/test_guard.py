from __future__ import annotations

import asyncio

import pytest

from core.node.runtime.base import ContainerSpec, RuntimeFailure, RuntimeUnavailable, SandboxInfo, SandboxSpec
from core.node.runtime.fake import DeafRuntime, FakeRuntime, HalfwayRuntime, SlowRuntime, StuckRuntime
from core.node.runtime.guard import Guard

SPEC = SandboxSpec("u", "p", "ns", "")


async def test_half_made_sandboxes_are_removed() -> None:
    runtime = HalfwayRuntime()
    with pytest.raises(RuntimeFailure):
        await Guard(runtime).create_sandbox(SPEC)
    assert await runtime.list() == []


async def test_calls_have_a_limit_and_leave_nothing() -> None:
    runtime = StuckRuntime()
    guard = Guard(runtime, {"create_sandbox": 0.05})
    with pytest.raises(RuntimeUnavailable, match=r"didn't finish create_sandbox within 0\.05 s"):
        await guard.create_sandbox(SPEC)
    assert await runtime.list() == []
    assert (guard.operations["create_sandbox"].calls, guard.operations["create_sandbox"].failures) == (1, 1)
    assert guard.operations["create_sandbox"].seconds >= 0.05


async def test_a_cancelled_creation_leaves_nothing() -> None:
    runtime = StuckRuntime()
    task = asyncio.create_task(Guard(runtime).create_sandbox(SPEC))
    await runtime.until_called("create_sandbox")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await runtime.list() == []


async def test_changes_of_one_sandbox_follow_one_another() -> None:
    class Counting(SlowRuntime):
        under_way = most = 0

        async def _change(self, call: str, name: str) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0)
            self.under_way -= 1

    runtime = Counting()
    guard = Guard(runtime)
    sandbox = await guard.create_sandbox(SPEC)
    await asyncio.gather(*(guard.create_container(sandbox.id, ContainerSpec(f"c{each}", "i")) for each in range(5)))
    assert runtime.most == 1
    other = await guard.create_sandbox(SandboxSpec("u2", "q", "ns", ""))
    await asyncio.gather(*(guard.create_container(each, ContainerSpec("x", "i")) for each in (sandbox.id, other.id)))
    assert runtime.most == 2


async def test_containers_of_one_sandbox_share_one_grace() -> None:
    class Counting(DeafRuntime):
        stopping = 0
        all_are = asyncio.Event()

        async def stop_container(self, container_id: str, grace: float) -> None:
            self.stopping += 1
            if self.stopping == 3:
                self.all_are.set()
            await self.all_are.wait()
            await super().stop_container(container_id, grace)

    guard = Guard(Counting())
    sandbox = await guard.create_sandbox(SPEC)
    containers = [await guard.create_container(sandbox.id, ContainerSpec(each, "i")) for each in "abc"]
    for each in containers:
        await guard.start_container(each)
    async with asyncio.timeout(30):  # one after another they would wait for each other for ever
        await asyncio.gather(*(guard.stop_container(each, 0.1) for each in containers))


async def test_a_call_that_is_cancelled_gives_its_turn_back() -> None:
    guard = Guard(DeafRuntime())
    sandbox = await guard.create_sandbox(SPEC)
    container = await guard.create_container(sandbox.id, ContainerSpec("a", "i"))
    await guard.start_container(container)
    stop = asyncio.create_task(guard.stop_container(container, 60))
    await guard.runtime.until_called("stop_container")  # type: ignore[attr-defined]
    removal = asyncio.create_task(guard.remove_sandbox(sandbox.id))
    await asyncio.sleep(0)
    stop.cancel()
    async with asyncio.timeout(1):
        await removal


async def test_a_timeout_of_the_command_is_no_failure_of_the_runtime() -> None:
    class Timing(FakeRuntime):
        async def exec(self, container_id: str, command: object, timeout: float) -> tuple[int, bytes]:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        await Guard(Timing()).exec("c", ["x"], 1.0)


async def test_who_waits_for_a_turn_to_be_made_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is over for the crowd as a whole, and for none of those in it."""
    monkeypatch.setattr("core.node.runtime.guard.STARTS_AT_ONCE", 2)
    begin = now = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    class OneByOne(FakeRuntime):
        under_way = most = 0

        async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
            nonlocal now
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            now += 0.02
            await asyncio.sleep(0)
            self.under_way -= 1
            return await super().create_sandbox(spec)

    runtime = OneByOne()
    guard = Guard(runtime, {"create_sandbox": 0.2})
    specs = [SandboxSpec(f"u{number}", f"p{number}", "ns", "") for number in range(40)]
    await asyncio.gather(*map(guard.create_sandbox, specs))
    assert now - begin > 0.2
    assert len(await runtime.list()) == 40
    assert runtime.most == 2
