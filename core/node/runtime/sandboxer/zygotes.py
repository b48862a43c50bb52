"""The sandboxer's end of bases, zygotes and parked children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.clock import monotonic
from core.node.runtime.base import RuntimeFailure

from . import isolation
from .cgroups import Cgroup
from .images import RuntimeImage
from .node import Node
from .slots import Slot, make_slot

__all__ = ["Base", "Channel", "Child", "Zygote", "parked_target"]

log = logging.getLogger(__name__)
MAX_MESSAGE = 1 << 20
REFILL_SECONDS = 0.015
SLOT_BYTES = 64 << 20
"""Of a zygote's slots where this node can mount: there is nothing in them but folders, links and termination messages."""
MOST_PROCESSES = 4096
"""Of a zygote with all its Pods together, where control groups can't bound each but the zygote has a user namespace of its own."""
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc")
_ETC = ("ssl", "hosts", "resolv.conf", "nsswitch.conf", "passwd", "group", "localtime", "ld.so.cache", "mime.types", "services", "protocols",
        "alternatives", "ca-certificates", "pki", "gai.conf", "host.conf", "timezone", "fonts")  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def parked_target(adoptions: Sequence[float], now: float, window: float, least: int, most: int) -> int:
    """How many children to keep parked: as many as were adopted in the last `window` seconds, within bounds."""
    recent = sum(1 for each in adoptions if each > now - window)
    return max(least, min(most, recent))


class Channel:
    """Our end of a SOCK_SEQPACKET pair. `on_message` gets raw messages, b"" once the other side has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._on_message = on_message
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self._ours, self.theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        self._ours.setblocking(False)
        loop.add_reader(self._ours, self._readable)

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._ours, [json.dumps(message).encode()], list(descriptors))

    def handed_over(self) -> None:
        """The other end is in its process: close ours of it."""
        self.theirs.close()

    def close(self) -> None:
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours)
            self._ours.close()
        self.theirs.close()

    def _readable(self) -> None:
        try:
            data = self._ours.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError as error:
            log.info("a channel broke: %s", error)
            data = b""
        if not data:
            self.close()
        self._on_message(data)


class Base:
    """One per runtime image: started with the sandboxer, so that the first zygote is a fork away."""

    def __init__(self, node: Node, image: RuntimeImage) -> None:
        self.image = image
        self._node = node
        self._born: asyncio.Future[None] = node.loop.create_future()
        self.channel = Channel(node.loop, self._message)
        theirs = self.channel.theirs
        os.set_inheritable(theirs.fileno(), True)
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        # The event loop reaps; Popen only knows how to fork and exec.
        self._process = subprocess.Popen([*image.command, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, cwd="/")  # fmt: skip
        self._process.returncode = 0
        self.channel.handed_over()
        node.watch(self._process.pid, self._exited)
        self.channel.send({
            "sandboxer": node.pid,
            "isolation": str(Path(isolation.__file__).parent),
            "shim": str(image.folder),
            "libraries": list(image.libraries),
        })  # fmt: skip

    async def ready(self) -> None:
        await asyncio.shield(self._born)

    @property
    def alive(self) -> bool:
        return not self._born.done() or self._born.exception() is None

    def _message(self, data: bytes) -> None:
        if data and not self._born.done():
            self._born.set_result(None)

    def _exited(self, code: int) -> None:
        log.warning("the base of %s ended with %d", self.image.name, code)
        failure = RuntimeFailure(f"the base process of {self.image.name} ended with {code}")
        if self._born.done():
            self._born = self._node.loop.create_future()
        self._born.set_exception(failure)
        self._born.exception()  # seen: whoever waits is told, and nobody need wait

    def close(self) -> None:
        self.channel.close()


class Child:
    """A parked child, later the process of a container."""

    def __init__(self, zygote: Zygote, slot: Slot, cgroup: Cgroup | None) -> None:
        self.zygote = zygote
        self.slot = slot
        self.cgroup = cgroup
        self._gives_way = False
        self.pid = 0
        self.on_ready: Callable[[], None] | None = None
        self.on_exit: Callable[[int], None] | None = None
        self.channel = Channel(zygote.node.loop, self._message)

    def _message(self, data: bytes) -> None:
        if self.pid == 0:
            if data:
                self.pid = int(json.loads(data)["born"])
                self.zygote.child_born(self)
            else:
                self.zygote.child_lost(self)
        elif data == b"R" and self.on_ready is not None:
            self.on_ready()
        if not data and self.on_exit is None:
            self.channel.close()

    def exited(self, code: int) -> None:
        """The process is gone, with whatever it started."""
        self.channel.close()
        if self.cgroup is not None:
            self.cgroup.kill()
        if self.on_exit is not None:
            self.on_exit(code)
        else:
            self.zygote.child_lost(self)
            self.discard()

    def give_way(self) -> None:
        """Get ready when nobody else wants the processor: nobody waits for it yet."""
        if self.cgroup is not None:
            self.cgroup.give_way(True)
            self._gives_way = True

    def hurry(self) -> None:
        """Somebody waits for it now."""
        if self._gives_way and self.cgroup is not None:
            self.cgroup.give_way(False)
            self._gives_way = False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def discard(self) -> None:
        """Give back the slot and the control group."""
        self.slot.remove()
        if self.cgroup is not None:
            node = self.zygote.node
            node.helpers.submit(_remove_group, self.cgroup)
            self.cgroup = None


def _remove_group(group: Cgroup) -> None:
    group.kill()
    for _ in range(50):
        if group.remove():
            return
        os.sched_yield()


class Zygote:
    """One per (namespace, image, layer)."""

    def __init__(self, node: Node, base: Base, image: RuntimeImage, namespace: str, layer: str) -> None:
        self.node = node
        self._parks = image.parks
        self.namespace = namespace
        self.pid = 0
        self.alive = True
        self.parked: deque[Child] = deque()
        self.members: set[Child] = set()
        self.loading = 0
        self.used_at = monotonic()
        self._births: set[Child] = set()
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._adoptions: deque[float] = deque(maxlen=256)
        self._packages: set[str] = set()
        self._refilling: asyncio.TimerHandle | None = None
        self._imports: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._born: asyncio.Future[None] = node.loop.create_future()
        name = os.urandom(6).hex()
        self._folder = node.folder / "zygotes" / name
        self._root = node.folder / "roots" / name
        uid = node.user_ids.of(namespace) if "uid" in node.isolation else None
        self.uid = uid
        self._folder.mkdir(mode=0o711)
        self._folder.chmod(0o711)
        self._seen = "/pods" if node.mounts else str(self._folder)
        self.layer = ""
        if layer:
            if not node.mounts:
                (self._folder / "layer").symlink_to(layer)
            self.layer = f"{self._seen}/layer"
        if node.mounts:
            self._root.mkdir()
            isolation.shared_scratch(str(self._folder), SLOT_BYTES)
            if layer:
                (self._folder / "layer").mkdir()
                isolation.attach(layer, str(self._folder / "layer"), read_only=True)
        readable = [*_SYSTEM, *(f"/etc/{each}" for each in _ETC), *image.folders]
        self.channel = Channel(node.loop, self._message)
        spec = {
            "isolation": node.isolation,
            "uid": uid,
            "processes": MOST_PROCESSES,
            "root": str(self._root),
            "folders": list(image.folders),
            "binds": [[str(self._folder), "/pods"]],
            "readable": [*readable, *([self.layer, layer] if layer else [])],
            "writable": list(_DEVICES),
        }
        base.channel.send(spec, [self.channel.theirs.fileno()])
        self.channel.handed_over()

    async def ready(self) -> None:
        """Raises `RuntimeFailure` where the zygote couldn't be made."""
        await asyncio.shield(self._born)

    def _message(self, data: bytes) -> None:
        if not data:
            self._dead("the zygote's process ended")
            return
        message = json.loads(data)
        if self.pid == 0 and "failed" in message:
            self._dead(f"the zygote of namespace {self.namespace} can't be confined: {message['failed']}")
        elif self.pid == 0:
            self.pid = int(message["born"])
            self.node.watch(self.pid, lambda code: self._dead(f"the zygote ended with {code}"))
            self._born.set_result(None)
        else:
            future = self._imports.popleft()
            if not future.done():
                future.set_result(message)

    def _dead(self, why: str) -> None:
        if not self.alive:
            return
        self.alive = False
        if self._refilling is not None:
            self._refilling.cancel()
        failure = RuntimeFailure(why)
        self.channel.close()
        futures: list[asyncio.Future[Any]] = [self._born, *self._imports, *self._waiting]
        for future in futures:
            if not future.done():
                future.set_exception(failure)
                future.exception()  # seen
        self._imports.clear()
        self._waiting.clear()

    # Children

    def knows(self, package: str) -> bool:
        """Whether the imports of `package` were looked at."""
        return package in self._packages or not package

    async def preload(self, package: str) -> None:
        """Import in the zygote what `package` (a host folder) imports of the layer and the standard library."""
        if self.knows(package) or not self.alive:
            return
        self._packages.add(package)
        name = f"scan-{os.urandom(4).hex()}"
        place = self._folder / name
        if self.node.mounts:
            place.mkdir()
            isolation.attach(package, str(place), read_only=True)
        else:
            place.symlink_to(package)
        future: asyncio.Future[dict[str, Any]] = self.node.loop.create_future()
        self._imports.append(future)
        try:
            self.channel.send({"op": "import", "package": f"{self._seen}/{name}", "layer": self.layer})
            found = await future
            log.info("zygote %d of %s imported %s", self.pid, self.namespace, ", ".join(found["imported"]) or "nothing")
            if found["failed"]:
                log.info("zygote %d could not import %s", self.pid, found["failed"])
            if found["threads"] > 1:
                log.warning(
                    "zygote %d has %d threads after importing %s", self.pid, found["threads"], found["imported"]
                )
            if found["imported"]:
                self._retire_parked()
        finally:
            if self.node.mounts:
                isolation.detach(str(place))
                place.rmdir()
            else:
                place.unlink()

    def _retire_parked(self) -> None:
        """Those that were forked before the imports are of less use than those to come."""
        while self.parked:
            self.parked.popleft().channel.close()
        self.refill()

    def take(self) -> Child | None:
        """A parked child, if there is one."""
        now = monotonic()
        self.used_at = now
        self._adoptions.append(now)
        return self.parked.popleft() if self.parked else None

    async def fork(self) -> Child:
        """A child forked on demand. Raises `RuntimeFailure`."""
        future: asyncio.Future[Child] = self.node.loop.create_future()
        self._waiting.append(future)
        if not self.alive:
            self._waiting.remove(future)
            raise RuntimeFailure("the zygote's process ended")
        for each in self._births:
            each.hurry()
        if len(self._births) < min(len(self._waiting), self.node.settings.births_at_once):
            self._bear(waits=False)
        return await future

    def refill_soon(self) -> None:
        """Once what was just started has answered: until then it has better use for the processor."""
        if self._refilling is None and self.alive:
            self._refilling = self.node.loop.call_later(REFILL_SECONDS, self.refill)

    def refill(self) -> None:
        """Fork children until enough are parked; not while functions are loading, which have better use for the processor."""
        if self._refilling is not None:
            self._refilling.cancel()
            self._refilling = None
        if not self.alive or self.loading or self.pid == 0 or not self._parks:
            return
        settings = self.node.settings
        target = parked_target(
            self._adoptions, monotonic(), settings.parked_window, settings.parked, settings.parked_max
        )
        for _ in range(target - len(self.parked) - len(self._births)):
            self._bear(waits=True)

    def _bear(self, waits: bool) -> None:
        name = os.urandom(8).hex()
        slot = make_slot(self._folder, name, self._seen, self.uid, self.node.mounts)
        cgroup = self.node.cgroups.create(name) if self.node.cgroups is not None else None
        child = Child(self, slot, cgroup)
        if waits:
            child.give_way()
        self._births.add(child)
        self.members.add(child)
        places = cgroup.open_procs() if cgroup is not None else []
        try:
            self.channel.send(
                {"op": "fork", "waits": waits, "slot": [slot.seen, slot.tmp, slot.message_path]},
                [child.channel.theirs.fileno(), *places],
            )
        finally:
            for each in places:
                os.close(each)
        child.channel.handed_over()

    def child_born(self, child: Child) -> None:
        self._births.discard(child)
        waiting = None
        while self._waiting and waiting is None:
            waiting = self._waiting.popleft()
            if waiting.done():
                waiting = None
        if waiting is not None:
            waiting.set_result(child)
        else:
            self.parked.append(child)
        self.node.watch(child.pid, child.exited)
        if len(self._births) < min(len(self._waiting), self.node.settings.births_at_once):
            self._bear(waits=False)

    def child_lost(self, child: Child) -> None:
        """A child ended without ever being adopted."""
        with contextlib.suppress(ValueError):
            self.parked.remove(child)
        self.members.discard(child)
        if child in self._births:
            self._births.discard(child)
            child.discard()
            if self._waiting:
                failed = self._waiting.popleft()
                if not failed.done():
                    failed.set_exception(RuntimeFailure("a forked child ended before it could be used"))

    def loaded(self) -> None:
        """A function that was loading is ready, or has ended."""
        self.loading -= 1
        if not self.loading:
            self.refill_soon()

    @property
    def idle(self) -> bool:
        """Whether nothing but parked children is left of it."""
        return not self.loading and not self._births and len(self.members) == len(self.parked)

    def close(self) -> None:
        """Let the process end, and its parked children; Pods go on."""
        for child in (*self.parked, *self._births):
            child.channel.close()
        self.parked.clear()
        self._dead("the zygote was let go")

    def remove_folders(self) -> None:
        """Once no Pod is left."""
        if self.node.mounts:
            for place in (self._folder / "layer", self._folder):
                with contextlib.suppress(OSError):
                    isolation.detach(str(place))
        for each in ("layer",):
            with contextlib.suppress(OSError):
                (self._folder / each).unlink() if (self._folder / each).is_symlink() else (self._folder / each).rmdir()
        for folder in (self._folder, self._root):
            with contextlib.suppress(OSError):
                folder.rmdir()
