"""What every runtime keeps of `core.node.runtime.base`.

A driver joins with a fixture that yields a `Case` and a row in `CASES`. What containers do is said by name (`Does`); the case
turns a name into a specification that its runtime can run.
"""

from __future__ import annotations

import asyncio
import enum
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.node.runtime.base import (
    ContainerSpec,
    ContainerState,
    Mount,
    Runtime,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeFailure,
    SandboxInfo,
    SandboxSpec,
    Streams,
)
from core.node.runtime.fake import Behaviour, FakeRuntime
from core.node.runtime.fake_streams import FakeStreams


class Does(enum.Enum):
    RUNS = "runs until TERM, then exits 0 or by the signal"
    EXITS = "exits 3"
    TALKS = "writes hello to stdout and oops to stderr, exits 0"
    ANNOUNCES = "says that it is ready, then runs"
    IGNORES = "runs and ignores TERM"
    COMPLAINS = "writes 'no handler' to its termination message path, exits 1"


class Runs(enum.Enum):
    """Commands beside a container's own."""

    CATS = "copies its input to its output"
    ECHOES = "writes hello to stdout"
    COMPLAINS = "writes oops to stderr"
    EXITS = "exits 7"
    MEASURES = "writes rows and columns of its terminal once it has some"
    WAITS = "says ready; notes that its terminal was hung up"


FAKED = {
    Runs.CATS: ["cat"], Runs.ECHOES: ["echo", "hello"], Runs.COMPLAINS: ["complain", "oops"], Runs.EXITS: ["exit", "7"],
    Runs.MEASURES: ["size"], Runs.WAITS: ["wait"],
}  # fmt: skip
MEASURE = """
import os, time
while (size := os.get_terminal_size(0)) == (0, 0):
    time.sleep(0.01)
print(size.lines, size.columns)
"""
SCRIPTED = {
    Runs.CATS: ["cat"],
    Runs.ECHOES: ["sh", "-c", "echo hello"],
    Runs.COMPLAINS: ["sh", "-c", "echo oops >&2"],
    Runs.EXITS: ["sh", "-c", "exit 7"],
    Runs.MEASURES: ["python3", "-c", MEASURE],
    Runs.WAITS: ["sh", "-c", "trap ': > ${TMPDIR:-/tmp}/hung-up; exit' HUP; echo ready; while :; do sleep 0.02; done"],
}
HUNG_UP = ["sh", "-c", "until [ -e ${TMPDIR:-/tmp}/hung-up ]; do sleep 0.02; done"]


@dataclass
class Case:
    """A runtime under test. `spec` makes a container; `again` is a new driver on the same state, as after an agent's restart."""

    runtime: Runtime
    spec: Callable[[str, Does], ContainerSpec]
    again: Callable[[], Awaitable[Runtime]]
    logs: Path
    address: Callable[[], str] = lambda: ""
    commands: Mapping[Runs, list[str]] = field(default_factory=lambda: SCRIPTED)
    many: bool = True
    """Whether a sandbox can hold several containers."""
    seen: list[RuntimeEvent] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: asyncio.Task[None] | None = None

    def listen(self) -> None:
        async def pump() -> None:
            async for event in self.runtime.events():
                self.seen.append(event)
                self._news.set()

        self._listener = asyncio.create_task(pump())

    async def deaf(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None

    async def event(self, type_: RuntimeEventType, container: str, timeout: float = 15.0) -> RuntimeEvent:
        async with asyncio.timeout(timeout):
            while True:
                for each in self.seen:
                    if each.type is type_ and each.container is not None and each.container.id == container:
                        return each
                self._news.clear()
                await self._news.wait()

    def sandbox_spec(self, name: str = "a", solitary: bool = False) -> SandboxSpec:
        uid = str(uuid.uuid4())
        folder = self.logs / uid  # which the runtime makes
        return SandboxSpec(uid, name, "default", str(folder), self.address(), hostname=name, solitary=solitary)

    async def sandbox(self, name: str = "a", solitary: bool = False) -> SandboxInfo:
        return await self.runtime.create_sandbox(self.sandbox_spec(name, solitary))

    async def run(self, does: Does, sandbox: SandboxInfo | None = None) -> tuple[SandboxInfo, str]:
        sandbox = sandbox or await self.sandbox()
        container = await self.runtime.create_container(sandbox.id, self.spec("main", does))
        await self.runtime.start_container(container)
        return sandbox, container

    async def found(self, sandbox: SandboxInfo) -> SandboxInfo:
        return next(each for each in await self.runtime.list() if each.id == sandbox.id)


# The cases


@pytest.fixture
async def fake_case(tmp_path: Path) -> AsyncIterator[Case]:
    does = {
        Does.RUNS: Behaviour(ready_after=None),
        Does.EXITS: Behaviour(ready_after=None, exit_after=0.0, exit_code=3),
        Does.TALKS: Behaviour(ready_after=None, exit_after=0.0, output="hello"),
        Does.ANNOUNCES: Behaviour(ready_after=0.01),
        Does.IGNORES: Behaviour(ready_after=None, deaf=True),
        Does.COMPLAINS: Behaviour(ready_after=None, exit_after=0.0, exit_code=1, message="no handler"),
    }
    runtime = FakeRuntime(lambda spec: does[Does[spec.args[0]]])

    async def again() -> Runtime:
        await runtime.close()
        await runtime.start()
        return runtime

    await runtime.start()

    async def wait(streams: FakeStreams, command: Sequence[str]) -> int:
        await streams.say(b"ready\n")
        try:
            await asyncio.Event().wait()
        finally:
            if streams.hung_up:
                runtime.exec_results[tuple(HUNG_UP)] = (0, b"")
        return 0

    runtime.programs["wait"] = wait
    runtime.exec_results[tuple(HUNG_UP)] = (1, b"")
    yield Case(
        runtime, lambda name, what: ContainerSpec(name, "image", args=(what.name,)), again, tmp_path, commands=FAKED
    )
    runtime.discard()


SCRIPTS = {
    Does.RUNS: "trap 'exit 0' TERM; while :; do sleep 0.05; done",
    Does.EXITS: "exit 3",
    Does.TALKS: "echo hello; echo oops >&2",
    Does.IGNORES: "trap '' TERM; : > ${TMPDIR:-/tmp}/deaf; while :; do sleep 0.05; done",
    Does.COMPLAINS: 'echo "no handler" > ${FAASLITE_TERMINATION_LOG:-/dev/termination-log}; exit 1',
}
ANNOUNCE = """
import os, signal, socket
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""


def scripted(image: str, name: str, does: Does) -> ContainerSpec:
    """A container of a runtime that runs programs."""
    if does is Does.ANNOUNCES:
        return ContainerSpec(name, image, command=("python3", "-c", ANNOUNCE))
    return ContainerSpec(name, image, command=("sh", "-c", SCRIPTS[does]))


@pytest.fixture
async def docker_case(docker_url: str, docker_subnet: str) -> AsyncIterator[Case]:
    from core.node.runtime.docker import DockerRuntime

    with tempfile.TemporaryDirectory(prefix="faaslite-") as name:
        folder = Path(name)
        node = f"t{uuid.uuid4().hex[:8]}"

        def make() -> DockerRuntime:
            return DockerRuntime(node, state_dir=folder / "state", pod_cidr=docker_subnet, base_url=docker_url)

        (folder / "logs").mkdir()
        runtime = make()
        try:
            await runtime.start()
        except BaseException:
            await runtime.close()
            raise
        case = Case(runtime, lambda name, what: scripted("faaslite/base", name, what), lambda: again(), folder / "logs")

        async def again() -> Runtime:
            await case.runtime.close()
            case.runtime = make()
            await case.runtime.start()
            return case.runtime

        try:
            yield case
        finally:
            await case.deaf()
            last = case.runtime
            assert isinstance(last, DockerRuntime)
            await asyncio.gather(*(last.remove_sandbox(each.id) for each in await last.list()))
            await last.remove_network()
            await last.close()


@pytest.fixture
async def process_case(tmp_path: Path) -> AsyncIterator[Case]:
    from core.node.runtime.process import ProcessRuntime

    state = tempfile.mkdtemp(prefix="faaslite-")
    ready, announce = os.pipe()
    options = ["--socket", f"{state}/s.sock", "--state", f"{state}/state", "--ready-fd", str(announce)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec
        [sys.executable, "-m", "core.node.runtime.sandboxer", *options], cwd=root, pass_fds=[announce]
    )
    os.close(announce)
    assert await asyncio.to_thread(os.read, ready, 1) == b"R"
    os.close(ready)
    package = tmp_path / "package"
    package.mkdir()
    (package / "app.py").write_text("def handle(event, context):\n    return None\n")
    own = 128 + os.getpid() % 100  # test runs beside each other on one machine have addresses of their own
    addresses = (f"127.{own}.{each // 250}.{each % 250 + 1}" for each in range(1000))
    mounts = (Mount(str(package), "/var/faaslite/package", True),)

    def spec(name: str, does: Does) -> ContainerSpec:
        if does is Does.ANNOUNCES:
            return ContainerSpec(name, "faaslite/python", mounts=mounts, ports=(8080,))
        return scripted("faaslite/python", name, does)

    runtime = ProcessRuntime(f"{state}/s.sock")
    await runtime.start()
    (tmp_path / "logs").mkdir()

    async def again() -> ProcessRuntime:
        assert isinstance(case.runtime, ProcessRuntime)
        await case.runtime.close()
        case.runtime = ProcessRuntime(f"{state}/s.sock")
        await case.runtime.start()
        return case.runtime

    case = Case(runtime, spec, again, tmp_path / "logs", lambda: next(addresses))
    try:
        yield case
    finally:
        await case.deaf()
        assert isinstance(case.runtime, ProcessRuntime)
        await case.runtime.close()
        process.terminate()
        await asyncio.to_thread(process.wait, 15)
        shutil.rmtree(state)


CASES = {"fake_case": (), "process_case": (), "docker_case": ("docker_url",)}
"""A case's fixture, and the fixtures of the session that it stands on."""


@pytest.fixture(
    scope="session", params=[pytest.param(each, marks=pytest.mark.docker if "docker" in each else ()) for each in CASES]
)
def case_name(request: pytest.FixtureRequest) -> str:
    # Of the session, so that an engine is up before the test's own leak check looks round.
    name: str = request.param
    for each in CASES[name]:
        request.getfixturevalue(each)
    return name


@pytest.fixture
def case(case_name: str, request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(case_name)
    return found


# The contract


async def test_info_names_the_runtime(case: Case) -> None:
    info = await case.runtime.info()
    assert info.name and info.version


async def test_a_container_runs_and_is_listed(case: Case) -> None:
    sandbox, container = await case.run(Does.RUNS)
    found = await case.found(sandbox)
    assert (found.uid, found.name, found.namespace) == (sandbox.uid, "a", "default")
    (info,) = found.containers
    assert (info.id, info.name, info.attempt, info.sandbox_id) == (container, "main", 0, sandbox.id)
    assert info.state is ContainerState.RUNNING
    assert info.started_at > 0
    assert info.exit_code is None


async def test_every_sandbox_has_an_address_of_its_own(case: Case) -> None:
    one, two = await case.sandbox("a"), await case.sandbox("b", solitary=True)
    assert one.address and two.address and one.address != two.address


async def test_creating_what_exists_returns_it(case: Case) -> None:
    spec = case.sandbox_spec()
    sandbox = await case.runtime.create_sandbox(spec)
    again = await case.runtime.create_sandbox(spec)
    assert (sandbox.id, sandbox.address) == (again.id, again.address)
    wanted = case.spec("main", Does.RUNS)
    assert await case.runtime.create_container(sandbox.id, wanted) == await case.runtime.create_container(
        sandbox.id, wanted
    )
    assert len((await case.found(sandbox)).containers) == 1


async def test_exit_is_told_with_its_code(case: Case) -> None:
    case.listen()
    _, container = await case.run(Does.EXITS)
    event = await case.event(RuntimeEventType.EXITED, container)
    assert event.container is not None
    assert event.container.state is ContainerState.EXITED
    assert event.container.exit_code == 3
    assert event.container.finished_at >= event.container.started_at > 0
    assert not event.container.oom_killed
    await case.deaf()


async def test_start_is_told(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.RUNS)
    event = await case.event(RuntimeEventType.STARTED, container)
    assert (event.sandbox_id, event.uid) == (sandbox.id, sandbox.uid)
    await case.deaf()


async def test_readiness_is_told_and_remembered(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.ANNOUNCES)
    event = await case.event(RuntimeEventType.READY, container)
    assert event.uid == sandbox.uid
    assert event.container is not None and event.container.announced_ready
    assert (await case.found(sandbox)).containers[0].announced_ready
    await case.deaf()


async def test_termination_message(case: Case) -> None:
    case.listen()
    _, container = await case.run(Does.COMPLAINS)
    event = await case.event(RuntimeEventType.EXITED, container)
    assert event.container is not None
    assert (event.container.exit_code, event.container.message) == (1, "no handler")
    await case.deaf()


async def test_log_is_complete_when_the_exit_is_told(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.TALKS)
    await case.event(RuntimeEventType.EXITED, container)
    lines = (case.logs / sandbox.uid / "main" / "0.log").read_text().splitlines()
    parts = [each.split(" ", 3) for each in lines]
    assert ["stdout", "F", "hello"] in [each[1:] for each in parts]
    assert all(each[1] in ("stdout", "stderr") and each[2] in "FP" for each in parts)
    await case.deaf()


async def test_stop_lets_it_end_by_itself(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.ANNOUNCES)
    await case.event(RuntimeEventType.READY, container)
    await case.runtime.stop_container(container, 10.0)
    assert (await case.found(sandbox)).containers[0].state is ContainerState.EXITED
    await case.deaf()


async def test_stop_kills_when_the_grace_is_over(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.IGNORES)
    await case.event(RuntimeEventType.STARTED, container)
    await case.runtime.exec(container, ["sh", "-c", "until [ -e ${TMPDIR:-/tmp}/deaf ]; do sleep 0.02; done"], 10.0)
    await case.runtime.stop_container(container, 0.3)
    await case.event(RuntimeEventType.EXITED, container)
    info = (await case.found(sandbox)).containers[0]
    assert (info.state, info.exit_code) == (ContainerState.EXITED, 137)
    await case.deaf()


async def test_stopping_and_removing_what_is_gone_succeeds(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.EXITS)
    await case.event(RuntimeEventType.EXITED, container)
    await case.runtime.stop_container(container, 1.0)
    await case.runtime.remove_container(container)
    await case.runtime.remove_container(container)
    await case.runtime.stop_container(container, 1.0)
    await case.runtime.remove_sandbox(sandbox.id)
    await case.runtime.remove_sandbox(sandbox.id)
    assert sandbox.id not in [each.id for each in await case.runtime.list()]
    await case.deaf()


async def test_removing_a_sandbox_kills_what_runs_in_it(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.IGNORES)
    await case.runtime.remove_sandbox(sandbox.id)
    assert await case.runtime.list() == []
    with pytest.raises(RuntimeFailure):
        await case.runtime.exec(container, ["true"], 5.0)
    await case.deaf()


async def test_next_attempt_keeps_the_address_and_has_its_own_log(case: Case) -> None:
    case.listen()
    sandbox = await case.sandbox(solitary=True)
    _, first = await case.run(Does.EXITS, sandbox)
    await case.event(RuntimeEventType.EXITED, first)
    spec = replace(case.spec("main", Does.TALKS), attempt=1)
    second = await case.runtime.create_container(sandbox.id, spec)
    assert second != first
    await case.runtime.start_container(second)
    await case.event(RuntimeEventType.EXITED, second)
    assert (await case.found(sandbox)).address == sandbox.address
    assert "hello" in (case.logs / sandbox.uid / "main" / "1.log").read_text()
    await case.deaf()


async def test_several_containers_in_one_sandbox(case: Case) -> None:
    if not case.many:
        pytest.skip("this runtime holds one container per sandbox")
    sandbox = await case.sandbox()
    for name in ("one", "two"):
        await case.runtime.start_container(await case.runtime.create_container(sandbox.id, case.spec(name, Does.RUNS)))
    assert {each.name: each.state for each in (await case.found(sandbox)).containers} == {
        "one": ContainerState.RUNNING,
        "two": ContainerState.RUNNING,
    }


async def test_a_container_is_added_to_a_pod_of_one(case: Case) -> None:
    case.listen()
    sandbox = await case.sandbox(solitary=True)
    await case.run(Does.RUNS, sandbox)
    spec = replace(case.spec("tool", Does.EXITS), added=True, target="main")
    added = await case.runtime.create_container(sandbox.id, spec)
    await case.runtime.start_container(added)
    assert (await case.event(RuntimeEventType.EXITED, added)).container.exit_code == 3  # type: ignore[union-attr]
    found = {each.name: each.state for each in (await case.found(sandbox)).containers}
    assert found == {"main": ContainerState.RUNNING, "tool": ContainerState.EXITED}
    await case.deaf()
    await case.runtime.remove_sandbox(sandbox.id)
    assert not [each for each in await case.runtime.list() if each.id == sandbox.id]


async def test_a_new_driver_finds_what_runs(case: Case) -> None:
    case.listen()
    sandbox, container = await case.run(Does.ANNOUNCES)
    await case.event(RuntimeEventType.READY, container)
    await case.deaf()
    before = (await case.found(sandbox)).containers[0]
    case.seen.clear()
    runtime = await case.again()
    (found,) = await runtime.list()
    assert (found.id, found.uid, found.address) == (sandbox.id, sandbox.uid, sandbox.address)
    info = found.containers[0]
    assert (info.id, info.state, info.started_at) == (container, ContainerState.RUNNING, before.started_at)
    assert info.announced_ready
    case.listen()
    await runtime.stop_container(container, 5.0)
    await case.event(RuntimeEventType.EXITED, container)
    await case.deaf()


async def test_a_container_of_no_sandbox_is_refused(case: Case) -> None:
    with pytest.raises(RuntimeFailure):
        await case.runtime.create_container("there-is-none", case.spec("main", Does.RUNS))


async def test_stats_of_a_running_container(case: Case) -> None:
    _, container = await case.run(Does.RUNS)
    found = await case.runtime.stats(container)
    assert found.memory > 0
    assert found.cpu_ns > 0


# Streams


async def said(streams: Streams) -> dict[int, bytes]:
    """Everything that comes until the end, by stream."""
    found: dict[int, bytes] = {}
    async with asyncio.timeout(30):
        while True:
            number, data = await streams.read()
            if not data:
                return found
            found[number] = found.get(number, b"") + data


async def begin(case: Case, runs: Runs, *, stdin: bool = False, tty: bool = False) -> tuple[str, Streams]:
    _, container = await case.run(Does.RUNS)
    return container, await case.runtime.open_exec(container, case.commands[runs], stdin=stdin, tty=tty)


@pytest.mark.parametrize(
    ("runs", "output", "code"),
    [(Runs.ECHOES, {1: b"hello\n"}, 0), (Runs.COMPLAINS, {2: b"oops\n"}, 0), (Runs.EXITS, {}, 7)],
)
async def test_a_command_says_what_it_says_and_ends_with_its_code(
    case: Case, runs: Runs, output: dict[int, bytes], code: int
) -> None:
    _, streams = await begin(case, runs)
    assert await said(streams) == output
    assert await streams.wait() == code
    await streams.close()
    await streams.close()


async def test_a_command_that_is_not_there_ends_with_126_or_127_and_says_so(case: Case) -> None:
    _, container = await case.run(Does.RUNS)
    streams = await case.runtime.open_exec(container, ["no-such-command"], stdin=False, tty=False)
    found = await said(streams)
    assert b"no-such-command" in b"".join(found.values())
    assert await streams.wait() in (126, 127)
    await streams.close()


async def test_input_reaches_a_command_and_its_end_too(case: Case) -> None:
    _, streams = await begin(case, Runs.CATS, stdin=True)
    await streams.write(b"one\n")
    assert await streams.read() == (1, b"one\n")
    await streams.write(b"two\n")
    await streams.end_input()
    assert await said(streams) == {1: b"two\n"}
    assert await streams.wait() == 0
    await streams.close()


async def test_much_goes_through_unharmed_however_slowly_it_is_read(case: Case) -> None:
    _, streams = await begin(case, Runs.CATS, stdin=True)
    wanted = b"".join(os.urandom(64) * 512 for _ in range(128))  # 4 MiB, in pieces of no use to a compressor

    async def feed() -> None:
        for start in range(0, len(wanted), 50_000):
            await streams.write(wanted[start : start + 50_000])
        await streams.end_input()

    feeding = asyncio.create_task(feed())
    await asyncio.wait((feeding,), timeout=0.2)
    assert not feeding.done()  # nobody reads: whoever writes has to wait
    found = await said(streams)
    await feeding
    assert found[1] == wanted
    assert await streams.wait() == 0
    await streams.close()


async def test_a_terminal_has_the_size_that_it_is_given(case: Case) -> None:
    _, streams = await begin(case, Runs.MEASURES, stdin=True, tty=True)
    await streams.resize(132, 43)
    assert await said(streams) == {1: b"43 132\r\n"}
    assert await streams.wait() == 0
    await streams.close()


async def test_a_terminal_is_hung_up_when_its_owner_goes(case: Case) -> None:
    container, streams = await begin(case, Runs.WAITS, stdin=True, tty=True)
    assert b"ready" in (await streams.read())[1]
    await streams.close()
    assert (await case.runtime.exec(container, HUNG_UP, 10.0))[0] == 0


async def test_nobody_looks_into_what_does_not_run(case: Case) -> None:
    case.listen()
    _, container = await case.run(Does.EXITS)
    await case.event(RuntimeEventType.EXITED, container)
    with pytest.raises(RuntimeFailure):
        await case.runtime.open_exec(container, ["true"], stdin=False, tty=False)
    with pytest.raises(RuntimeFailure):
        await case.runtime.attach(container, stdin=False)
    await case.deaf()


async def test_a_command_ends_with_its_container(case: Case) -> None:
    container, streams = await begin(case, Runs.CATS, stdin=True)
    await streams.write(b"begun\n")
    assert await streams.read() == (1, b"begun\n")  # what has not begun yet ends with 126
    await case.runtime.stop_container(container, 0.0)
    await said(streams)
    assert await streams.wait() == 137
    await streams.close()


async def attached(case: Case, *, tty: bool = False) -> tuple[SandboxInfo, str]:
    """A container that copies its input to its output."""
    sandbox = await case.sandbox()
    spec = replace(case.spec("main", Does.RUNS), stdin=True, stdin_once=True, tty=tty)
    if case.commands is not FAKED:
        spec = replace(spec, command=("cat",))
    container = await case.runtime.create_container(sandbox.id, spec)
    await case.runtime.start_container(container)
    return sandbox, container


async def test_an_attachment_is_the_containers_own_input_and_output(case: Case) -> None:
    case.listen()
    sandbox, container = await attached(case)
    streams = await case.runtime.attach(container, stdin=True)
    await streams.write(b"hello\n")
    assert await streams.read() == (1, b"hello\n")
    await streams.end_input()  # its own too: that of the first attachment is all that it gets
    assert await said(streams) == {}
    assert await streams.wait() == 0
    await streams.close()
    event = await case.event(RuntimeEventType.EXITED, container)
    assert event.container is not None and event.container.exit_code == 0
    if case.commands is not FAKED:
        assert "hello" in (case.logs / sandbox.uid / "main" / "0.log").read_text()
    await case.deaf()


async def test_an_attachment_that_only_looks_on_leaves_the_container_alone(case: Case) -> None:
    sandbox, container = await attached(case)
    one, two = await case.runtime.attach(container, stdin=False), await case.runtime.attach(container, stdin=True)
    await one.write(b"not for it\n")
    await two.write(b"hello\n")
    assert await two.read() == (1, b"hello\n")
    if case.commands is not FAKED:
        assert await one.read() == (1, b"hello\n")
    await one.close()
    assert (await case.found(sandbox)).containers[0].state is ContainerState.RUNNING
    await two.close()


async def test_a_container_with_a_terminal_echoes_what_is_typed(case: Case) -> None:
    if case.commands is FAKED:
        pytest.skip("nothing in memory has a line discipline")
    _, container = await attached(case, tty=True)
    streams = await case.runtime.attach(container, stdin=True)
    await streams.resize(80, 24)
    await streams.write(b"hello\n")
    found = b""
    while found.count(b"hello\r\n") < 2:
        number, data = await streams.read()
        assert number == 1 and data, found
        found += data
    await streams.close()
