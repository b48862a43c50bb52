"""Commands beside a container's own process: probes, hooks, and `exec` with streams.

Each is a fresh child of the container's zygote, so it has its user, its namespaces, its file system and its system call filter; it goes into the
container's control group before it learns what it is to run, and into the container's own Landlock rules with it. It ends with the container.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from core.node.runtime.base import RuntimeFailure

from .containers import Container
from .protocol import Call, Reply, frame
from .streams import Driver
from .zygotes import Child

__all__ = ["open_exec", "run_beside"]

OUTPUT_LIMIT = 4 << 20


async def _child(container: Container) -> Child:
    """A child in the container's bounds that waits for its command. Raises `RuntimeFailure`."""
    main = container.child
    if not container.running or main is None:
        raise RuntimeFailure(f"container {container.id} isn't running")
    child = await main.zygote.fork()
    try:
        if main.cgroup is not None:
            await container.node.loop.run_in_executor(container.node.helpers, main.cgroup.add, child.pid)
    except OSError as error:
        child.kill()
        raise RuntimeFailure(f"container {container.id} has just ended") from error
    if container.exited.is_set():
        child.kill()
        raise RuntimeFailure(f"container {container.id} has just ended")
    container.beside.add(child)
    return child


def _adoption(container: Container, command: list[str]) -> dict[str, Any]:
    """What the child is to become: as the container's process, but that it has no listening socket and tells nobody that it is ready."""
    env = {name: value for name, value in container.adopted["env"].items() if name != "LISTEN_FDS"}
    # The child that becomes the command has a slot of its own; the container's is not its by birth.
    assert container.child is not None
    slot = container.child.slot
    places = {
        "readable": [slot.seen, *container.adopted["readable"]],
        "writable": [slot.tmp, slot.message_path, *container.adopted["writable"]],
    }
    return {**container.adopted, **places, "argv": command, "announces": False, "env": env}


def _over(container: Container, child: Child) -> None:
    container.beside.discard(child)
    child.zygote.members.discard(child)
    child.discard()


async def run_beside(container: Container, command: list[str], seconds: float) -> tuple[int, bytes]:
    """Run a command to its end: exit code and output of both streams. Raises TimeoutError, `RuntimeFailure`."""
    loop = container.node.loop
    child = await _child(container)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ended: asyncio.Future[int] = loop.create_future()
    child.on_exit = lambda code: ended.set_result(code) if not ended.done() else None
    output = bytearray()
    finished = asyncio.Event()

    def readable() -> None:
        data = os.read(reader, 64 << 10)
        output.extend(data[: OUTPUT_LIMIT - len(output)])
        if not data:
            loop.remove_reader(reader)
            finished.set()

    loop.add_reader(reader, readable)
    try:
        child.channel.send(_adoption(container, command), [writer, writer])
        os.close(writer)
        writer = -1
        async with asyncio.timeout(seconds or None):
            code = await ended
            child.kill()
            await finished.wait()
        return code, bytes(output)
    except TimeoutError:
        child.kill()
        await ended
        raise
    finally:
        loop.remove_reader(reader)
        for each in (reader, writer):
            if each >= 0:
                os.close(each)
        _over(container, child)


async def open_exec(container: Container, call: Call, driver: Driver) -> None:
    """Start `call.command` and give its streams to the driver; later, its exit code. Raises `RuntimeFailure`.

    Its streams are pipes, or a terminal of its own whose other end the driver alone holds: when that is closed, the kernel hangs up.
    """
    child = await _child(container)
    adoption = _adoption(container, call.command)
    ours: list[int] = []
    theirs: list[int] = []
    names: list[str] = []
    try:
        if call.tty:
            master, slave = os.openpty()
            if child.zygote.uid is not None:
                os.fchown(slave, child.zygote.uid, -1)
            ours, theirs, names = [slave], [master], ["terminal"]
            adoption |= {"stdin": True, "terminal": True}
            adoption["env"] = {"TERM": "xterm", **adoption["env"]}
            passed = [slave, slave, slave]
        else:
            outputs = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
            ours, theirs, names = [each[1] for each in outputs], [each[0] for each in outputs], ["stdout", "stderr"]
            passed = [*ours]
            if call.stdin:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                adoption["stdin"] = True
                ours, theirs, names = [*ours, reader], [*theirs, writer], [*names, "stdin"]
                passed.append(reader)

        def ended(code: int) -> None:
            if container.node.cgroups is None:
                child.kill()  # what it left behind would outlive the container
            _over(container, child)
            driver.write(frame(Reply(call.id, code=code)))

        child.on_exit = ended
        child.channel.send(adoption, passed)
        driver.give(Reply(call.id, text=" ".join(names)), theirs)
    except OSError as error:
        child.on_exit = None
        child.kill()
        container.beside.discard(child)
        raise RuntimeFailure(f"{' '.join(call.command)} can't be started: {error}") from error
    finally:
        for each in (*ours, *theirs):
            os.close(each)
