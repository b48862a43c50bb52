"""Containers that are started before their Pods, by the driver alone."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.node.runtime.base import ContainerSpec, ContainerState, Mount, RuntimeEvent, RuntimeEventType, SandboxSpec
from core.node.runtime.docker import DockerRuntime
from core.node.runtime.docker_fit import Shape
from core.node.runtime.docker_slot import remove_folder
from core.node.runtime.docker_warm import WarmSettings

pytestmark = [pytest.mark.docker, pytest.mark.root]
SHAPE = Shape.of(ContainerSpec("", "faaslite/python"))


class Node:
    """A driver, its folders, and what it told."""

    def __init__(self, folder: Path, url: str, subnet: str) -> None:
        self.folder, self.seen = folder, asyncio.Queue[RuntimeEvent]()
        self._arguments = (f"t{uuid.uuid4().hex[:8]}", url, subnet)
        self._listener: asyncio.Task[None] | None = None
        self.driver = self._make()

    def _make(self) -> DockerRuntime:
        name, url, subnet = self._arguments
        warm = WarmSettings(each=1, shapes=[SHAPE])
        return DockerRuntime(name, state_dir=self.folder / "state", pod_cidr=subnet, base_url=url, warm=warm)

    async def start(self) -> None:
        self.driver = self._make()
        await self.driver.start()
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self.driver.events():
            self.seen.put_nowait(event)

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self.driver.close()

    async def full(self) -> None:
        assert self.driver.pool is not None
        async with asyncio.timeout(30):
            await self.driver.pool.filled()

    async def event(self, kind: RuntimeEventType) -> RuntimeEvent:
        async with asyncio.timeout(15):
            while (found := await self.seen.get()).type is not kind:
                continue
        return found

    def pod(self, code: str, **env: str) -> tuple[SandboxSpec, ContainerSpec]:
        uid = str(uuid.uuid4())
        package, logs = self.folder / uid / "package", self.folder / uid / "logs"
        package.mkdir(parents=True)
        logs.mkdir()
        (package / "app.py").write_text(code)
        sandbox = SandboxSpec(uid, "greeter", "default", str(logs), hostname="greeter", solitary=True)
        mount = Mount(str(package), "/var/faaslite/package", True)
        return sandbox, ContainerSpec("function", "faaslite/python", env=env, mounts=(mount,))

    def slots(self) -> list[str]:
        return os.listdir(self.folder / "state" / "slots")


@pytest.fixture
async def node(python_image: str, docker_subnet: str) -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory(prefix="faaslite-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o711)
        found = Node(Path(name), python_image, docker_subnet)
        await found.start()
        yield found
        await asyncio.gather(*(found.driver.remove_sandbox(each.id) for each in await found.driver.list()))
        pool = found.driver.pool
        assert pool is not None
        await pool.empty()
        await found.driver.remove_network()
        await found.stop()
        assert not found.slots()
        remove_folder(Path(name) / "state")


GREET = "import os, socket\ndef handle(event, context):\n    return [os.environ.get('WORD'), socket.gethostname(), os.getpid()]\n"


async def test_a_pod_is_given_a_container_that_waited(node: Node) -> None:
    await node.full()
    sandbox, spec = node.pod(GREET, WORD="hush", FAASLITE_HANDLER="app:handle")
    began = time.monotonic()
    given = await node.driver.run_pod(sandbox, [spec])
    ready = await node.event(RuntimeEventType.READY)
    took = time.monotonic() - began
    assert given is not None and ready.uid == sandbox.uid and ready.container is not None
    (container,) = given.containers
    assert container.state is ContainerState.RUNNING and ready.container.id == container.id
    assert took < 5.0, "it did not wait, warm"

    def ask() -> object:
        with urllib.request.urlopen(f"http://{given.address}:8080/", timeout=5) as reply:
            return json.load(reply)

    assert await asyncio.to_thread(ask) == ["hush", "greeter", 1]
    shown = "import os; print(os.environ['WORD'])"
    assert await node.driver.exec(container.id, ["python3", "-c", shown], 10.0) == (0, b"hush\n")
    assert await node.driver.run_pod(sandbox, [spec]) is None, "a Pod that has its sandbox needs no other"

    await node.full()  # another waits by now, and is not the Pod's
    (found,) = await node.driver.list()
    assert found.uid == sandbox.uid and found.containers[0].id == container.id

    await node.stop()
    await node.start()
    (found,) = await node.driver.list()
    assert (found.uid, found.name, found.address) == (sandbox.uid, "greeter", given.address)
    assert found.containers[0].announced_ready and found.containers[0].started_at >= began - began
    assert await node.driver.exec(container.id, ["python3", "-c", shown], 10.0) == (0, b"hush\n")
    await node.full()
    assert len(node.slots()) == 2

    await node.driver.stop_container(container.id, 10.0)
    ended = await node.event(RuntimeEventType.EXITED)
    assert ended.container is not None and ended.container.exit_code == 0
    again = await node.driver.create_container(sandbox.uid, ContainerSpec(**{**_fields(spec), "attempt": 1}))
    await node.driver.start_container(again)
    await node.event(RuntimeEventType.READY)
    await node.driver.remove_sandbox(sandbox.uid)
    assert await node.driver.list() == []
    assert len(node.slots()) == 1


def _fields(spec: ContainerSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


async def test_a_handler_that_cant_be_loaded_says_why(node: Node) -> None:
    await node.full()
    sandbox, spec = node.pod("import missing_thing\n", FAASLITE_HANDLER="app:handle")
    assert await node.driver.run_pod(sandbox, [spec]) is not None
    ended = await node.event(RuntimeEventType.EXITED)
    assert ended.container is not None
    assert ended.container.exit_code == 1 and "missing_thing" in ended.container.message


async def test_a_kind_that_nobody_asked_for_before_is_kept_from_then_on(node: Node) -> None:
    await node.full()
    sandbox, spec = node.pod(GREET)
    spec = ContainerSpec(**{**_fields(spec), "memory": 96 << 20})  # type: ignore[arg-type]
    assert await node.driver.run_pod(sandbox, [spec]) is None
    noted = await node.event(RuntimeEventType.NOTED)
    assert noted.uid == sandbox.uid and "no container of its kind waits" in noted.message
    await node.full()
    given = await node.driver.run_pod(sandbox, [spec])
    assert given is not None
    limit = await node.driver.exec(given.containers[0].id, ["cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"], 10.0)
    if limit[0] == 0:  # cgroup v1
        assert int(limit[1]) == 96 << 20
