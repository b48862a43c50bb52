"""A container on a process node: one adopted child, its pipes, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core import trace
from core.clock import wall
from core.node.runtime.base import (
    AddressInUse,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    RuntimeEventType,
    RuntimeFailure,
    SandboxInfo,
    SandboxSpec,
    Stats,
)

from .builders import COMMAND
from .logfile import LogFile
from .node import Node
from .protocol import Call, Reply
from .slots import rewrite_environment
from .strain import Strain, look
from .streams import Attachment, Driver
from .zygotes import Child

__all__ = ["Container", "Sandbox", "defaults", "listen"]

log = logging.getLogger(__name__)
READ_SIZE = 64 << 10
BACKLOG = 1024
LOG_SECONDS = 0.01
"""From a start to the making of its log: by then its first call has been answered. Until then what it says waits in the pipes."""
PACKAGE, LAYER, SECRETS = "/var/faaslite/package", "/var/faaslite/layer", "/var/run/secrets/faaslite"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def defaults(spec: ContainerSpec) -> dict[str, str]:
    """The container's environment with what the protocol takes for granted filled in, in container paths."""
    env = {"PATH": os.defpath, "LANG": "C.UTF-8", "FAASLITE_PACKAGE": PACKAGE, "FAASLITE_SECRETS": SECRETS, **spec.env}
    env.setdefault("FAASLITE_TERMINATION_LOG", spec.termination_message_path)
    return env


def host_path(spec: ContainerSpec, container_path: str) -> str:
    """The host's folder that is mounted at exactly `container_path`; "" where none is."""
    return next(
        (each.host_path for each in spec.mounts if each.container_path.rstrip("/") == container_path.rstrip("/")), ""
    )


def listen(address: str, port: int) -> socket.socket:
    """A listening socket. Raises `AddressInUse`, `RuntimeFailure`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        failure = AddressInUse if error.errno == errno.EADDRINUSE else RuntimeFailure
        raise failure(f"can't listen on {address}:{port}: {error.strerror}") from error
    return listener


@dataclass(slots=True)
class Sandbox:
    """A Pod's shared part; its id is the Pod's uid."""

    spec: SandboxSpec
    created_at: float
    containers: dict[str, Container] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.spec.uid

    def info(self) -> SandboxInfo:
        spec = self.spec
        containers = [each.info() for each in self.containers.values()]
        return SandboxInfo(self.id, spec.uid, spec.name, spec.namespace, spec.address, self.created_at, containers)


class Container:
    """Created, then running, then exited; `push` is told of each step."""

    def __init__(self, node: Node, sandbox: Sandbox, spec: ContainerSpec, image: str, push: Callable[[RuntimeEventType, Container], None]) -> None:  # fmt: skip
        self.id = f"{sandbox.id}-{spec.name}-{spec.attempt}"
        self.node = node
        self.sandbox = sandbox
        self.spec = spec
        self.builds = spec.command[:1] == [COMMAND]
        self.image = node.builders[image] if self.builds else node.images[image]
        self.entrypoint = self.image.entrypoint
        self.child: Child | None = None
        self.starting = False
        self.exited = asyncio.Event()
        self._push = push
        self._info = ContainerInfo(
            self.id, spec.name, sandbox.id, ContainerState.CREATED, spec.image, image, spec.attempt, wall()
        )
        self._log: LogFile | None = None
        self._pipes: dict[int, str] = {}
        self._input = -1
        """Where its standard input is written to; of a terminal that is also where its output is read."""
        self._attachments: set[Attachment] = set()
        self.beside: set[Child] = set()
        """Commands that run beside it, and end with it."""
        self._loading = False
        self._hearing: asyncio.TimerHandle | None = None
        self._strain = Strain()
        self.adopted: dict[str, Any] = {}

    def info(self) -> ContainerInfo:
        return self._info

    @property
    def running(self) -> bool:
        return self._info.state is ContainerState.RUNNING

    @property
    def key(self) -> str:
        """`namespace/name` of the Pod."""
        return f"{self.sandbox.spec.namespace}/{self.sandbox.spec.name}"

    @property
    def package(self) -> str:
        """The host's folder with the function's package, "" where there is none."""
        return host_path(self.spec, self.spec.env.get("FAASLITE_PACKAGE", PACKAGE))

    @property
    def scanned(self) -> str:
        """The host's folder whose imports a zygote may look at, "" where the package isn't Python."""
        return "" if self.entrypoint else self.package

    @property
    def layer(self) -> str:
        """The host's folder with the dependencies that a zygote imports, "" where there are none."""
        if self.entrypoint:
            return ""
        path = self.spec.env.get("FAASLITE_LAYER", "")
        return host_path(self.spec, path) if path else ""

    # Start

    def adopt(self, child: Child) -> None:
        """Become what `child` runs. Raises `RuntimeFailure`; the child is then ended."""
        try:
            self._adopt(child)
        except (OSError, RuntimeFailure) as error:
            child.kill()
            raise (
                error if isinstance(error, RuntimeFailure) else RuntimeFailure(f"can't start {self.spec.name}: {error}")
            ) from error

    def _adopt(self, child: Child) -> None:
        spec, sandbox = self.spec, self.sandbox
        port = spec.ports[0] if spec.ports else 0
        own = [] if self.builds else [*spec.command, *spec.args]
        argv = own or list(self.entrypoint)
        listener = listen(sandbox.spec.address, port) if port and not own and sandbox.spec.address else None
        try:
            self.adopted = self.description(child, argv, listener is not None)
            child.hurry()
            if child.cgroup is not None:
                child.cgroup.limit(spec.cpu or sandbox.spec.cpu, spec.memory or sandbox.spec.memory)
            outputs, more = self._open_streams(child)
            child.on_ready = self._ready
            child.on_exit = self._ended
            try:
                listening = [listener.fileno()] if listener else []
                child.channel.send({**self.adopted, **more}, [*outputs[:2], *listening, *outputs[2:]])
            finally:
                for each in set(outputs):
                    os.close(each)
            self._hearing = self.node.loop.call_later(LOG_SECONDS, self._hear)
        except BaseException:
            self._close_pipes()
            child.on_ready = child.on_exit = None
            raise
        finally:
            if listener is not None:
                listener.close()
        if trace.ON:
            trace.mark("adopted", self.key)
        self.child = child
        self._loading = True
        child.zygote.loading += 1
        announces = self.adopted["announces"]
        self._change(RuntimeEventType.STARTED, state=ContainerState.RUNNING, started_at=wall(), announces=announces)

    def _open_streams(self, child: Child) -> tuple[list[int], dict[str, bool]]:
        """Pipes or a terminal: the child's ends (output, errors, and input where it has one), and what it is to be told of them."""
        if self.spec.tty:
            master, slave = os.openpty()
            if child.zygote.uid is not None:
                os.fchown(slave, child.zygote.uid, -1)
            self._pipes[master] = "stdout"
            self._input = master
            return [slave, slave, slave], {"stdin": True, "terminal": True}
        outputs = []
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._pipes[reader] = stream
            outputs.append(writer)
        if self.spec.stdin:
            reader, self._input = os.pipe2(os.O_CLOEXEC)
            return [*outputs, reader], {"stdin": True}
        return outputs, {}

    def description(self, child: Child, argv: list[str], listens: bool) -> dict[str, Any]:
        """What the child is to become. Places the volumes."""
        spec, slot, layer = self.spec, child.slot, self.layer
        mounts = [each for each in spec.mounts if not each.scratch and (not layer or each.host_path != layer)]
        readable, writable = slot.place(mounts)
        env = {**self.image.environment, **defaults(spec)}
        exact = {spec.termination_message_path: slot.message_path}
        # What is in memory, and bounded, is the slot's own tmp, which was there before the Pod came.
        exact |= {each.container_path: slot.tmp for each in spec.mounts if each.scratch}
        if layer:
            exact[env["FAASLITE_LAYER"]] = child.zygote.layer
        env = rewrite_environment(env, mounts, slot.tree, exact)
        env["TMPDIR"] = slot.tmp
        env.setdefault("HOME", slot.tmp)
        if spec.tty:
            env.setdefault("TERM", "xterm")
        env.setdefault("HOSTNAME", self.sandbox.spec.hostname or self.sandbox.spec.name)
        if listens:
            env["LISTEN_FDS"] = "1"
        directory = rewrite_environment({"": spec.working_dir}, mounts, slot.tree, {})[""] if spec.working_dir else ""
        return {
            "argv": argv,
            "announces": listens,
            "env": env,
            "directory": directory or (env["FAASLITE_PACKAGE"] if self.package else slot.tmp),
            # The slot, its tmp and its message are the child's from birth, and so is what is mounted in the slot to be read.
            "readable": [] if slot.mounted else readable,
            "writable": writable,
        }

    def _hear(self) -> None:
        """Make the log, and read what the container says. Nothing where that was done."""
        if self._hearing is None:
            return
        self._hearing.cancel()
        self._hearing = None
        spec = self.spec
        try:
            self._log = LogFile(str(Path(self.sandbox.spec.log_dir) / spec.name / f"{spec.attempt}.log"))
        except OSError as error:
            log.warning("the log of %s can't be written: %s", self.id, error)
        for each in self._pipes:
            os.set_blocking(each, False)
            self.node.loop.add_reader(each, self._readable, each)

    # While it runs

    def _ready(self) -> None:
        if trace.ON:
            trace.mark("ready", self.key)
        self._loaded()
        if self.running and not self._info.announced_ready:
            self._change(RuntimeEventType.READY, announced_ready=True)

    def _loaded(self) -> None:
        if self._loading and self.child is not None:
            self._loading = False
            self.child.zygote.loaded()

    def _readable(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # a terminal that nobody has open
            data = b""
        if data:
            self._said(self._pipes[descriptor], data)
            if any(each.blocked for each in self._attachments):
                for each in self._pipes:
                    self.node.loop.remove_reader(each)
        else:
            self._close_pipe(descriptor)

    def _said(self, stream: str, data: bytes) -> None:
        if self._log is not None:
            self._log.feed(stream, data, wall())
        for each in self._attachments:
            each.feed(stream, data)

    def _room(self) -> None:
        if not any(each.blocked for each in self._attachments):
            for each in self._pipes:
                self.node.loop.add_reader(each, self._readable, each)

    # Attachments

    def attach(self, call: Call, driver: Driver) -> None:
        """Give the driver what is said from now on, and the input where it wants it and there is one. Raises `RuntimeFailure`."""
        if not self.running:
            raise RuntimeFailure(f"container {self.id} isn't running")
        self._hear()
        streams = list(dict.fromkeys(self._pipes.values()))
        pipes = {stream: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for stream in streams}
        names, given = list(pipes), [each[0] for each in pipes.values()]
        writes = call.stdin and self.spec.stdin and self._input >= 0
        if writes or (self.spec.tty and self._input >= 0):
            names.append("terminal" if self.spec.tty else "stdin")
            given.append(self._input)
        attachment = Attachment(self.node.loop, {stream: each[1] for stream, each in pipes.items()}, self._room)
        try:
            driver.give(Reply(call.id, text=" ".join(names)), given)
        except OSError as error:
            attachment.close()
            raise RuntimeFailure(f"the driver has gone: {error}") from error
        finally:
            for reader, _ in pipes.values():
                os.close(reader)
        self._attachments.add(attachment)

        def lost() -> None:
            self._attachments.discard(attachment)
            attachment.close()
            end_input()

        def end_input() -> None:
            if writes and self.spec.stdin_once and not self.spec.tty:
                self._close_input()

        driver.on_lost, driver.on_end_input = lost, end_input

    def _close_input(self) -> None:
        if self._input >= 0 and not self.spec.tty:
            os.close(self._input)
        self._input = -1

    def signal(self, number: int) -> None:
        """To the main process; nothing where it has ended."""
        if self.running and self.child is not None:
            try:
                os.kill(self.child.pid, number)
            except ProcessLookupError:
                return

    async def stop(self, grace: float) -> None:
        """TERM or the stop signal of the container, KILL `grace` seconds later; returns once it has ended."""
        if not self.running or self.child is None:
            return
        name = self.spec.stop_signal or "SIGTERM"
        self.signal(
            signal.Signals[name if name.startswith("SIG") else f"SIG{name}"] if not name.isdigit() else int(name)
        )
        try:
            await asyncio.wait_for(self.exited.wait(), max(0.0, grace))
        except TimeoutError:
            self.child.kill()
            await self.exited.wait()

    def stats(self) -> Stats:
        """Raises `RuntimeFailure` where nothing runs."""
        if not self.running or self.child is None:
            raise RuntimeFailure(f"container {self.id} isn't running")
        try:
            fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
            resident = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError) as error:
            raise RuntimeFailure(f"container {self.id} has just ended") from error
        counted = self.child.cgroup.memory() if self.child.cgroup is not None else None
        ticks = sum(int(each) for each in fields[11:15])
        exact = _scheduled(self.child.pid)  # of the threads that live; ticks count ended ones and children as well
        return Stats(cpu_ns=max(exact, ticks * 1_000_000_000 // _TICKS), memory=max(resident, counted or 0))

    def look(self, now: float) -> None:
        """See which limits it has run into (`now` of the monotonic clock), and say so where that has changed."""
        if self.running and self.child is not None:
            over = self._strain.take(look(self.child), now)
            if over != self._info.over:
                self._change(RuntimeEventType.STRAINED, over=over)

    # End

    def _ended(self, code: int) -> None:
        assert self.child is not None
        child = self.child
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # what it left behind
        for each in self.beside:
            each.kill()
        self._loaded()
        self._hear()
        self._close_pipes()
        killed = child.cgroup is not None and child.cgroup.oom_kills() > 0
        message = child.slot.message()
        child.discard()
        child.zygote.members.discard(child)
        self._change(
            RuntimeEventType.EXITED,
            state=ContainerState.EXITED,
            finished_at=wall(),
            exit_code=code,
            oom_killed=killed,
            message=message,
        )
        self.exited.set()

    def _close_pipes(self) -> None:
        for descriptor in list(self._pipes):
            while descriptor in self._pipes:  # what was written until the end
                try:
                    data = os.read(descriptor, READ_SIZE)
                except OSError:
                    data = b""
                if data:
                    self._said(self._pipes[descriptor], data)
                else:
                    self._close_pipe(descriptor)
        self._close_input()
        for each in self._attachments:
            each.finish()
        self._attachments.clear()
        if self._log is not None:
            self._log.close(wall())
            self._log = None

    def _close_pipe(self, descriptor: int) -> None:
        if descriptor == self._input:
            self._input = -1
        self.node.loop.remove_reader(descriptor)
        os.close(descriptor)
        del self._pipes[descriptor]

    def _change(self, event: RuntimeEventType, **fields: Any) -> None:
        self._info = replace(self._info, **fields)
        self._push(event, self)


def _scheduled(pid: int) -> int:
    """Nanoseconds on a processor of a process's threads; 0 where the kernel doesn't count them."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(path.read_text().split()[0])
    return total
