"""A Pod's folder: its tmp, its termination message, and a tree in which its volumes lie at their container paths.

Processes of a node share the kernel's idea of paths with others of their zygote, so a volume is not at `/var/faaslite/package` itself but
below the slot (`SLOT/fs/var/faaslite/package`), and environment values that name such paths are rewritten. The volumes are attached
read-only where this node can mount, and are symbolic links to the host's folders where it can't.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.node.runtime.base import Mount

from .isolation import attach, detach, scratch

__all__ = ["Slot", "make_slot", "rewrite", "rewrite_environment"]

MESSAGE_BYTES = 4096
TMP_BYTES = 512 << 20
"""What fits into a Pod's own tmp, where this node can mount: a Pod that fills it harms nobody else."""


def rewrite(value: str, paths: Iterable[str], tree: str) -> str:
    """`value` where it names one of the container `paths`, something below one, or a folder (not one of the root) that holds one: its
    place in `tree`."""
    if not value.startswith("/"):
        return value
    for path in paths:
        holds = value.count("/") > 1 and path.startswith(f"{value.rstrip('/')}/")
        if value == path or value.startswith(f"{path}/") or holds:
            return tree + value
    return value


def rewrite_environment(
    env: Mapping[str, str], mounts: Sequence[Mount], tree: str, exact: Mapping[str, str]
) -> dict[str, str]:
    """`env` for a process that sees `mounts` below `tree`; `exact` names container paths that are elsewhere."""
    paths = [each.container_path.rstrip("/") for each in mounts if each.container_path.rstrip("/")]
    return {name: exact[value] if value in exact else rewrite(value, paths, tree) for name, value in env.items()}


@dataclass(slots=True)
class Slot:
    """`host` is the folder as the sandboxer sees it, `seen` as the Pod does."""

    id: str
    host: Path
    seen: str
    mounted: bool
    attached: list[str] = field(default_factory=list)

    @property
    def tree(self) -> str:
        return f"{self.seen}/fs"

    @property
    def tmp(self) -> str:
        return f"{self.seen}/tmp"  # noqa: S108 - a folder of the Pod's own

    @property
    def message_path(self) -> str:
        return f"{self.seen}/message"

    def place(self, mounts: Sequence[Mount]) -> tuple[list[str], list[str]]:
        """Put volumes where the Pod looks for them: the paths that it may read, and those that it may write. Raises OSError."""
        readable: list[str] = []
        writable: list[str] = []
        for mount in sorted(mounts, key=lambda each: each.container_path):
            path = mount.container_path.rstrip("/")
            target = f"{self.host}/fs{path}"
            if self.mounted:
                if os.path.isdir(mount.host_path):
                    _make(target)
                else:
                    _make(os.path.dirname(target))
                    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
                attach(mount.host_path, target, mount.read_only)
                self.attached.append(target)
            elif not os.path.lexists(target):
                _make(os.path.dirname(target))
                os.symlink(mount.host_path, target)
            (readable if mount.read_only else writable).append(self.tree + path if self.mounted else mount.host_path)
        return readable, writable

    def message(self) -> str:
        """What the container left as its termination message; empty afterwards."""
        try:
            # The folder is ours, the file the Pod's: it must not lead us anywhere else.
            descriptor = os.open(self.host / "message", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            text = os.read(descriptor, MESSAGE_BYTES).decode("utf-8", "replace").rstrip("\n")
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return text

    def remove(self) -> None:
        """Detach the volumes first: what is removed afterwards is ours alone."""
        for target in reversed(self.attached):
            with contextlib.suppress(OSError):
                detach(target)
        self.attached.clear()
        shutil.rmtree(self.host, ignore_errors=True)


def _make(folder: str) -> None:
    """As `os.makedirs` where it may be there, with one call into the system where its parent is, as nearly always."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)


def make_slot(folder: Path, name: str, seen: str, uid: int | None, mounted: bool) -> Slot:
    """A new slot in `folder`, which its processes see at `seen`; `uid` owns what the Pod may write."""
    host = folder / name
    host.mkdir(mode=0o755)
    host.chmod(0o711)
    tmp, message = host / "tmp", host / "message"
    tmp.mkdir(mode=0o700)
    os.close(os.open(message, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    # Where packages and layers go, off the way of a start: what can't be mounted is a link there instead.
    for each in ("fs", "fs/var", "fs/var/faaslite", *(["fs/var/faaslite/package"] if mounted else [])):
        os.mkdir(f"{host}/{each}", mode=0o755)
    if uid is not None:
        os.chown(tmp, uid, uid)
        os.chown(message, uid, uid)
    slot = Slot(name, host, f"{seen}/{name}", mounted)
    if mounted:
        scratch(str(tmp), TMP_BYTES, os.geteuid() if uid is None else uid)
        slot.attached.append(str(tmp))
    return slot
