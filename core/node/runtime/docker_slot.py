"""A started container that waits, and how it is given to a Pod: volumes, names, journal, message. Touches the host alone, not the engine.

Its host folder holds `notify/` (seen at /run/faaslite: the control socket, later the readiness socket), `termination-log`,
and the folders of `docker_fit.ROOTS`, which the container holds as slaves: what is attached there appears in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.clock import wall
from core.node.runtime.base import ContainerSpec, SandboxSpec
from core.node.runtime.docker_fit import ROOTS, Shape, place
from core.node.runtime.docker_journal import Adoption
from core.node.runtime.sandboxer.isolation import attach, detach, mounts_below
from core.node.runtime.sandboxer.isolation.syscalls import libc

__all__ = ["Slot", "control_socket", "prepare_folder", "remove_folder"]

_CLONE_NEWUTS = 0x04000000


@dataclass(slots=True)
class Slot:
    """`etc` are the host paths of the container's `hostname`, `hosts` and `resolv.conf`; `pid` is that of its first process."""

    id: str
    folder: Path
    shape: Shape
    address: str
    container_id: str
    image_id: str
    pid: int
    etc: Mapping[str, str]
    control: socket.socket

    def prepare(self, sandbox: SandboxSpec, spec: ContainerSpec, labels: Mapping[str, str]) -> Adoption:
        """Everything that makes it this Pod's but the word to begin. Raises OSError where a step fails: then it is good for nothing."""
        for each in spec.mounts:
            if each.scratch:  # the container was made with it
                continue
            where = place(each.container_path)
            assert where is not None
            target = self.folder / where
            if os.path.isdir(each.host_path):
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            attach(each.host_path, str(target), each.read_only)
        self._name(sandbox)
        adoption = Adoption(labels, spec.env, wall())
        adoption.save(self.folder)
        return adoption

    def begin(self, spec: ContainerSpec) -> None:
        """The word to begin. Raises OSError where nobody hears it."""
        self.control.send(json.dumps({"env": dict(spec.env), "directory": spec.working_dir}).encode())
        self.control.close()

    def _name(self, sandbox: SandboxSpec) -> None:
        if sandbox.hostname:
            _set_hostname(self.pid, sandbox.hostname)
            _rewrite(self.etc["hostname"], f"{sandbox.hostname}\n")
            _rewrite(self.etc["hosts"], Path(self.etc["hosts"]).read_text().replace(self.id, sandbox.hostname))
        if sandbox.dns_servers:
            lines = [f"nameserver {each}" for each in sandbox.dns_servers]
            lines += [f"search {' '.join(sandbox.dns_searches)}", "options ndots:5"]
            _rewrite(self.etc["resolv.conf"], "\n".join(lines) + "\n")


def _set_hostname(pid: int, name: str) -> None:
    """In the namespace of that process. Only this thread goes there, and comes back before anything else runs in it."""
    with open("/proc/thread-self/ns/uts", "rb") as own, open(f"/proc/{pid}/ns/uts", "rb") as theirs:
        _enter(theirs.fileno())
        try:
            socket.sethostname(name)
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWUTS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _rewrite(path: str, text: str) -> None:
    """In place: the container has this very file mounted."""
    with open(path, "r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()


def prepare_folder(folder: Path) -> None:
    folder.mkdir(mode=0o755, parents=True)
    for name in ("notify", *ROOTS):
        (folder / name).mkdir(mode=0o755)
    termination = folder / "termination-log"
    termination.touch()
    termination.chmod(0o666)


def control_socket(folder: Path) -> socket.socket:
    """Where the container of that folder says that it waits."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # A socket's path has 108 bytes at most, a folder's may have more: go by the folder's descriptor.
        handle = os.open(folder / "notify", os.O_PATH | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{handle}/control")
        finally:
            os.close(handle)
        os.chmod(folder / "notify" / "control", 0o666)  # noqa: S103 - the container's user is anybody; the folder is its own
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def remove_folder(folder: Path) -> None:
    """Take away what was attached below it first: a removal must not reach into a volume."""
    for each in mounts_below(os.path.realpath(folder)):
        with contextlib.suppress(FileNotFoundError):
            detach(each)
    shutil.rmtree(folder, ignore_errors=True)
