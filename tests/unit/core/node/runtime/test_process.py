"""The process driver with a real sandboxer in a process of its own, as root and as nobody."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core.node.runtime.base import (
    AddressInUse,
    ContainerSpec,
    ContainerState,
    ImagePullError,
    Mount,
    RuntimeEventType,
    SandboxSpec,
)
from core.node.runtime.process import ProcessRuntime

ROOT = Path(__file__).resolve().parents[5]
HELLO = "import os\ndef handle(event, context):\n    print('hello log')\n    return {'uid': os.getuid(), 'pid': os.getpid()}\n"
BREAKER = """
import ctypes, os
def attempt(f):
    try:
        return repr(f())
    except OSError as error:
        return type(error).__name__
libc = ctypes.CDLL(None, use_errno=True)
def handle(event, context):
    secret, other, parent = event.json()
    status = dict(line.split(':', 1) for line in open('/proc/self/status'))
    open(os.environ['TMPDIR'] + '/mine', 'w').write('x')
    return {
        'secret': attempt(lambda: open(secret).read()), 'list': attempt(lambda: os.listdir(os.path.dirname(secret))),
        'other': attempt(lambda: os.listdir(other)), 'package': attempt(lambda: open(os.environ['FAASLITE_PACKAGE'] + '/app.py', 'a').write('x')),
        'signal': attempt(lambda: os.kill(parent, 0)), 'ptrace': libc.ptrace(0, 0, 0, 0), 'unshare': libc.unshare(0x10000000),
        'no_new_privs': status['NoNewPrivs'].strip(), 'seccomp': status['Seccomp'].strip(), 'caps': status['CapEff'].strip(), 'uid': os.getuid(),
    }
"""
LOOK = """
import ctypes, json, os, resource, sys
def attempt(f):
    try:
        return repr(f())
    except OSError as error:
        return type(error).__name__
libc = ctypes.CDLL(None, use_errno=True)
def look(secret, other, parent):
    names = ('Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters')
    status = dict(line.split(':', 1) for line in open('/proc/self/status'))
    return {
        'status': {each: status.get(each, '').split() for each in names}, 'cgroup': open('/proc/self/cgroup').read(),
        'namespaces': {each: os.readlink('/proc/self/ns/' + each) for each in ('mnt', 'uts', 'ipc', 'user', 'pid', 'net')},
        'limits': [resource.getrlimit(each) for each in range(16)], 'umask': os.umask(0o22), 'directory': os.getcwd(),
        'secret': attempt(lambda: open(secret).read()), 'list': attempt(lambda: os.listdir(os.path.dirname(secret))),
        'other': attempt(lambda: os.listdir(other)), 'package': attempt(lambda: open(os.environ['FAASLITE_PACKAGE'] + '/app.py', 'a')),
        'tmp': attempt(lambda: open(os.environ['TMPDIR'] + '/mine', 'w').close()), 'own': attempt(lambda: open(os.environ['FAASLITE_PACKAGE'] + '/app.py').close()),
        'signal': attempt(lambda: os.kill(parent, 0)), 'ptrace': libc.ptrace(0, 0, 0, 0), 'unshare': libc.unshare(0x10000000),
    }
def handle(event, context):
    return look(*event.json())
if __name__ == '__main__':
    print(json.dumps(look(*json.loads(sys.argv[1]))))
"""


class World:
    """A data dir, a sandboxer over it, a driver, and the events that came."""

    def __init__(self, folder: Path, process, runtime) -> None:
        self.folder, self.process, self.runtime = folder, process, runtime
        self.seen: list = []
        self._news = asyncio.Condition()

    async def follow(self) -> None:
        async for event in self.runtime.events():
            async with self._news:
                self.seen.append(event)
                self._news.notify_all()

    async def wait(self, kind, uid: str):
        async with asyncio.timeout(10), self._news:
            while not (found := [each for each in self.seen if each.type is kind and each.uid == uid]):
                await self._news.wait()
        return found[-1].container

    def pod(self, uid: str, source: str, address: str, namespace: str = "default", **changes):
        package = self.folder / "packages" / uid
        package.mkdir(parents=True)
        (package / "app.py").write_text(source)
        logs = self.folder / "logs" / uid
        logs.mkdir(parents=True)
        owner = self.folder.stat().st_uid
        for each in (logs, logs.parent):
            os.chown(each, owner, owner)
        sandbox = SandboxSpec(uid, uid, namespace, str(logs), address=address)
        env = {"FAASLITE_HANDLER": "app:handle", "FAASLITE_PACKAGE": "/var/faaslite/package"}
        mounts = [Mount(str(package), "/var/faaslite/package", True)]
        return sandbox, ContainerSpec(
            **{"name": "function", "image": "faaslite/python", "env": env, "mounts": mounts, "ports": [8080], **changes}
        )

    async def call(self, address: str, body: bytes = b""):
        reader, writer = await asyncio.open_connection(address, 8080)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        return json.loads(answer.partition(b"\r\n\r\n")[2])


@asynccontextmanager
async def sandboxed(*options: str, uid: int = 0):
    base = Path(tempfile.mkdtemp())
    folder = base / "home"
    folder.mkdir(mode=0o700)
    if uid:
        base.chmod(0o755)  # noqa: ASYNC240
        os.chown(folder, uid, uid)
    ready, announce = os.pipe()
    script = (
        "import sys, os\n"
        "from core.node.runtime.sandboxer.__main__ import main\n"
        "import msgspec, httptools\n"
        "uid = int(sys.argv.pop(1))\n"
        "if uid and sys.base_prefix.startswith('/root/'):\n"
        "    from core.node.runtime.sandboxer import isolation as i\n"
        "    from core.node.runtime.sandboxer.isolation import mounts\n"
        "    i.unshare('mount'); i.make_private(); prefix = os.open(sys.base_prefix, os.O_PATH)\n"
        "    mounts._mount('tmpfs', '/root', 'tmpfs', 0, 'mode=755')\n"
        "    os.makedirs(sys.base_prefix); i.attach(f'/proc/self/fd/{prefix}', sys.base_prefix, True); os.close(prefix)\n"
        "if uid: os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid); from core.node.runtime.sandboxer.isolation.syscalls import prctl; prctl(4, 1)\n"
        "main()\n"
    )
    arguments = [
        str(uid),
        "--ready-fd",
        str(announce),
        "--socket",
        str(folder / "s.sock"),
        "--state",
        str(folder / "state"),
        *options,
    ]
    with (base / "log").open("w") as log:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", script, *arguments], cwd=ROOT, pass_fds=[announce], stdout=log, stderr=log
        )
    os.close(announce)
    runtime = ProcessRuntime(folder / "s.sock")
    world = World(folder, process, runtime)
    follower = None
    try:
        started = await asyncio.to_thread(os.read, ready, 1)
        assert started == b"R", (base / "log").read_text()
        await runtime.start()
        follower = asyncio.create_task(world.follow())
        yield world
    finally:
        os.close(ready)
        if follower is not None:
            follower.cancel()
        await world.runtime.close()
        process.terminate()
        try:
            assert await asyncio.to_thread(process.wait, 10) == 0 or process.returncode == -9
        finally:
            process.kill()
            process.wait()
            print((base / "log").read_text())
            shutil.rmtree(base)


async def test_a_pod_from_adoption_to_its_end():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", HELLO, "127.91.0.1")
        assert await world.runtime.run_pod(sandbox, [spec]) is not None
        await world.wait(RuntimeEventType.STARTED, "u1")
        container = await world.wait(RuntimeEventType.READY, "u1")
        assert (await world.call("127.91.0.1"))["uid"] == 2_000_000_000
        assert await world.runtime.exec(container.id, ["/bin/sh", "-c", "echo $FAASLITE_HANDLER; exit 3"], 5) == (
            3,
            b"app:handle\n",
        )
        assert (await world.runtime.stats(container.id)).memory > 0
        await world.runtime.stop_container(container.id, 5)
        ended = await world.wait(RuntimeEventType.EXITED, "u1")
        assert (ended.exit_code, ended.state) == (0, ContainerState.EXITED)
        line = (world.folder / "logs/u1/function/0.log").read_text()
        assert line.split(" ", 2)[1:] and " stdout F " in line and line.endswith("hello log\n")
        await world.runtime.remove_sandbox("u1")
        assert await world.runtime.list() == []


async def test_warmed_up_a_first_pod_finds_what_it_needs():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", "import colorsys\n" + HELLO, "127.91.0.7", namespace="team")
        await world.runtime.warm_up(replace(sandbox, uid="", name="", log_dir=""), spec)
        assert await world.runtime.list() == []
        before = time.monotonic()
        assert await world.runtime.run_pod(sandbox, [spec]) is not None
        await world.wait(RuntimeEventType.READY, "u1")
        assert (await world.call("127.91.0.7"))["uid"] == 2_000_000_000
        log = (world.folder.parent / "log").read_text()
        assert "of team imported colorsys" in log
        assert time.monotonic() - before < 5


@pytest.mark.parametrize(("uid", "without"), [(0, ()), (65534, ("mount",))])
async def test_what_a_package_compiles_to_is_there_before_the_first_start(uid, without):
    options = [each for name in without for each in ("--without", name)]
    async with sandboxed(*options, uid=uid) as world:
        sandbox, spec = world.pod(
            "u1", "import helpers.more\ndef handle(event, context):\n    return [helpers.more.ANSWER]\n", "127.91.0.24"
        )
        package = world.folder / "packages" / "u1"
        (package / "helpers").mkdir()
        (package / "helpers" / "__init__.py").write_text("")
        (package / "helpers" / "more.py").write_text("ANSWER = 'compiled'\n")
        (package / "broken.py").write_text("def (:\n")
        (package / "deep.py").write_text("(" * 5000 + ")" * 5000)
        (package / "secret.py").symlink_to("/etc/shadow")
        for each in (package, *package.rglob("*")):
            os.chown(each, uid, uid, follow_symlinks=False)
        await world.runtime.warm_up(replace(sandbox, uid="", name="", log_dir=""), spec)
        made = sorted(str(each.relative_to(package)) for each in package.rglob("*.pyc"))
        tag = sys.implementation.cache_tag
        assert made == [f"__pycache__/app.{tag}.pyc", f"helpers/__pycache__/more.{tag}.pyc"]
        (package / "helpers" / "more.py").write_text("ANSWER = 'read again'\n")
        assert await world.runtime.run_pod(sandbox, [spec]) is not None
        await world.wait(RuntimeEventType.READY, "u1")
        assert await world.call("127.91.0.24") == ["compiled"]


async def test_forks_of_one_zygote_draw_random_numbers_of_their_own():
    async with sandboxed() as world:
        layer = world.folder / "layer"
        (layer / "numpy").mkdir(parents=True)
        (layer / "numpy" / "__init__.py").touch()
        # What matters of numpy's: one generator in memory, which `seed()` fills from the system's.
        (layer / "numpy" / "random.py").write_text(
            "from random import Random\n_own = Random(1)\nseed, random = _own.seed, _own.random\n"
        )
        source = "import random\nimport numpy.random\ndef handle(event, context):\n    return [random.random(), numpy.random.random()]\n"
        drawn = []
        for number in range(3):
            uid, address = f"u{number}", f"127.91.0.{20 + number}"
            sandbox, spec = world.pod(uid, source, address)
            env = {**spec.env, "FAASLITE_LAYER": "/var/faaslite/layer"}
            mounts = [*spec.mounts, Mount(str(layer), "/var/faaslite/layer", True)]
            spec = replace(spec, env=env, mounts=mounts)
            if not number:
                await world.runtime.warm_up(replace(sandbox, uid="", name="", log_dir=""), spec)
            assert await world.runtime.run_pod(sandbox, [spec]) is not None
            await world.wait(RuntimeEventType.READY, uid)
            drawn.append(await world.call(address))
        assert "numpy.random" in (world.folder.parent / "log").read_text()  # by the zygote that all are forked from
        assert all(len(set(each)) == 3 for each in zip(*drawn, strict=True)), drawn


async def test_what_is_said_before_there_is_a_log_is_in_it():
    async with sandboxed() as world:
        for uid, address, source in (
            ("fine", "127.91.0.26", "print('early', flush=True)\n" + HELLO),
            ("broken", "127.91.0.27", "import sys\nprint('early', flush=True)\nsys.exit(3)"),
        ):
            sandbox, spec = world.pod(uid, source, address)
            shutil.rmtree(sandbox.log_dir)  # the sandboxer makes it
            assert await world.runtime.run_pod(sandbox, [spec]) is not None
        await world.wait(RuntimeEventType.EXITED, "broken")
        assert " stdout F early\n" in (world.folder / "logs/broken/function/0.log").read_text()
        ready = await world.wait(RuntimeEventType.READY, "fine")
        await world.runtime.stop_container(ready.id, 5)
        await world.wait(RuntimeEventType.EXITED, "fine")
        assert " stdout F early\n" in (world.folder / "logs/fine/function/0.log").read_text()


async def test_an_address_that_is_taken_is_said_to_be():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", HELLO, "127.91.0.9")
        with (
            socket.create_server(("127.91.0.9", 8080)),
            pytest.raises(AddressInUse, match=r"127\.91\.0\.9:8080"),
        ):
            await world.runtime.run_pod(sandbox, [spec])
        assert await world.runtime.list() == []
        assert await world.runtime.run_pod(sandbox, [spec]) is not None
        await world.wait(RuntimeEventType.READY, "u1")


async def test_why_a_start_failed_is_the_containers_message():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", "import nothing_like_it", "127.91.0.2")
        await world.runtime.create_sandbox(sandbox)
        await world.runtime.start_container(await world.runtime.create_container("u1", spec))
        ended = await world.wait(RuntimeEventType.EXITED, "u1")
        assert ended.exit_code == 1
        assert (
            ended.message
            == "handler app:handle: ModuleNotFoundError: No module named 'nothing_like_it' (is it in requirements.txt?)"
        )
        with pytest.raises(ImagePullError, match="faaslite/<runtime> images only"):
            await world.runtime.pull_image("nginx")


@pytest.mark.parametrize(("uid", "without"), [(0, ()), (65534, ()), (65534, ("mount",)), (0, ("mount",))])
async def test_a_pod_cannot_reach_beyond_its_own(uid, without):
    options = [each for name in without for each in ("--without", name)]
    async with sandboxed(*options, uid=uid) as world:
        (world.folder / "token").write_text("the crown jewels")
        held = (await world.runtime.info()).isolation
        assert {"no_new_privs", "seccomp", "landlock"} <= set(held)
        assert ("mount" in held) == (not without)
        assert ("uid" in held) == (uid == 0 and not without)
        other, other_spec = world.pod("other", HELLO, "127.91.0.3", "team-b")
        await world.runtime.run_pod(other, [other_spec])
        sandbox, spec = world.pod("u1", BREAKER, "127.91.0.4")
        await world.runtime.run_pod(sandbox, [spec])
        await world.wait(RuntimeEventType.READY, "u1")
        await world.wait(RuntimeEventType.READY, "other")
        question = [str(world.folder / "token"), str(world.folder / "packages" / "other"), world.process.pid]
        found = await world.call("127.91.0.4", json.dumps(question).encode())
        refused = ("PermissionError", "FileNotFoundError")
        assert all(found[each] in (*refused, "OSError") for each in ("secret", "list", "other", "package")), found
        assert found["signal"] == "PermissionError", found
        assert (found["ptrace"], found["unshare"]) == (-1, -1)
        assert (found["no_new_privs"], found["seccomp"], int(found["caps"], 16)) == ("1", "2", 0)
        assert found["uid"] == (uid or (2_000_000_001 if "uid" in held else 0))


async def output_of(streams) -> tuple[int, bytes]:
    found = b""
    async with asyncio.timeout(20):
        while data := (await streams.read())[1]:
            found += data
        code = await streams.wait()
    await streams.close()
    return code, found


@pytest.mark.parametrize(("uid", "without"), [(0, ()), (65534, ()), (65534, ("mount",)), (0, ("mount",))])
async def test_a_command_is_held_by_all_that_holds_its_pod(uid, without):
    options = [each for name in without for each in ("--without", name)]
    async with sandboxed(*options, uid=uid) as world:
        (world.folder / "token").write_text("the crown jewels")
        other, other_spec = world.pod("other", HELLO, "127.91.0.11", "team-b")
        await world.runtime.run_pod(other, [other_spec])
        sandbox, spec = world.pod("u1", LOOK, "127.91.0.12")
        (info,) = (await world.runtime.run_pod(sandbox, [spec])).containers
        await world.wait(RuntimeEventType.READY, "u1")
        question = json.dumps(
            [str(world.folder / "token"), str(world.folder / "packages" / "other"), world.process.pid]
        )
        wanted = await world.call("127.91.0.12", question.encode())
        assert "secret" in wanted, wanted
        assert wanted["secret"] in ("PermissionError", "FileNotFoundError") and wanted["tmp"] == wanted["own"] == "None"
        command = ["sh", "-c", 'exec python3 "$FAASLITE_PACKAGE/app.py" "$0"', question]
        for terminal in (False, True):
            streams = await world.runtime.open_exec(info.id, command, stdin=terminal, tty=terminal)
            code, found = await output_of(streams)
            assert code == 0, found
            assert json.loads(found) == wanted
        code, found = await world.runtime.exec(info.id, command, 20.0)  # probes and hooks likewise
        assert (code, json.loads(found)) == (0, wanted)


async def test_a_command_counts_as_its_pods_memory():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", HELLO, "127.91.0.13", memory=64 << 20)
        (info,) = (await world.runtime.run_pod(sandbox, [spec])).containers
        hog = ["python3", "-c", "len(bytearray(300 << 20))"]
        code, _ = await output_of(await world.runtime.open_exec(info.id, hog, stdin=False, tty=False))
        assert code == 137


async def test_pods_outlive_the_agent_and_die_with_the_sandboxer():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", HELLO, "127.91.0.5")
        await world.runtime.run_pod(sandbox, [spec])
        await world.wait(RuntimeEventType.READY, "u1")
        await world.runtime.close()
        pid = (await world.call("127.91.0.5"))["pid"]
        world.runtime = ProcessRuntime(world.folder / "s.sock")
        await world.runtime.start()
        (found,) = await world.runtime.list()
        assert found.containers[0].announced_ready and found.containers[0].state is ContainerState.RUNNING
        descriptor = os.pidfd_open(pid)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        world.process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(gone.wait(), 5)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_who_will_announce_itself_is_told_apart():
    async with sandboxed() as world:
        sandbox, spec = world.pod("u1", HELLO, "127.91.0.9")
        found = await world.runtime.run_pod(sandbox, [spec])
        assert found.containers[0].announces
        plain, command = world.pod("u2", HELLO, "127.91.0.10")
        found = await world.runtime.run_pod(plain, [replace(command, command=("sleep", "60"))])
        assert not found.containers[0].announces
        assert (await world.wait(RuntimeEventType.READY, "u1")).announces


async def test_memory_beyond_the_limit_is_an_oom_kill():
    async with sandboxed() as world:
        assert "cgroup" in (await world.runtime.info()).isolation
        hog = "def handle(event, context):\n    return len(bytearray(300 << 20))\n"
        sandbox, spec = world.pod("u1", hog, "127.91.0.6", memory=64 << 20)
        await world.runtime.run_pod(sandbox, [spec])
        await world.wait(RuntimeEventType.READY, "u1")
        with pytest.raises((json.JSONDecodeError, ConnectionError)):
            await world.call("127.91.0.6")
        ended = await world.wait(RuntimeEventType.EXITED, "u1")
        assert (ended.exit_code, ended.oom_killed) == (137, True)
