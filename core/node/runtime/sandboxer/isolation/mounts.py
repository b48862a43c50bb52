"""Mounts: the file system of a zygote, and the volumes that appear in it while its Pods run.

The sandboxer has a mount namespace of its own, with one shared folder per zygote. What it attaches there shows up in the
zygote's namespace, which is a slave of it; so a Pod that gave up all privileges can still be given its volumes, read-only.
(mount_namespaces(7), open_tree(2), mount_setattr(2); Linux 5.12 and newer.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Sequence

from .syscalls import libc, syscall

__all__ = ["attach", "detach", "enter_root", "make_private", "make_shared", "mounts_below", "scratch", "shared_scratch"]

_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC = 1, 2, 4, 32, 4096, 16384
_SLAVE, _SHARED = 1 << 19, 1 << 20
_DETACH = 2
_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_MOUNT_SETATTR = 428, 429, 442
_NR_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_FROM_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_ETC = (
    "alternatives", "ca-certificates", "fonts", "gai.conf", "group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "protocols", "resolv.conf", "services", "ssl", "timezone",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    passed = [each.encode() if each is not None else None for each in (source, target, kind)]
    if libc.mount(*passed, ctypes.c_ulong(flags), data.encode() if data else None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {target}: {os.strerror(error)}")


def make_private() -> None:
    """No mount that we make is seen outside our namespace; those made outside still appear."""
    _mount("none", "/", None, _REC | _SLAVE)


def make_shared(folder: str) -> None:
    """Let what is attached below `folder` appear in namespaces that hold a slave of it."""
    _mount(folder, folder, None, _BIND)
    _mount("none", folder, None, _SHARED)


def shared_scratch(folder: str, size: int) -> None:
    """As `make_shared`, with a file system in memory of `size` bytes at `folder`: to make and remove folders costs next to nothing there."""
    _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"mode=711,size={size}")
    _mount("none", folder, None, _SHARED)


def attach(source: str, target: str, read_only: bool) -> None:
    """Show `source` at `target`, which is of the same sort (folder or file), without set-user-id files and devices."""
    tree = syscall(_NR_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE, what=f"open_tree {source}")  # fmt: skip
    try:
        attributes = (ctypes.c_uint64 * 4)(_ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0), 0, 0, 0)
        syscall(_NR_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, ctypes.byref(attributes), 32, what=f"mount_setattr {source}")  # fmt: skip
        syscall(_NR_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_FROM_EMPTY_PATH, what=f"move_mount {target}")  # fmt: skip
    finally:
        os.close(tree)


def scratch(target: str, size: int, uid: int) -> None:
    """A file system of its own at the folder `target`, for `uid` alone, that takes `size` bytes; they count as its writers' memory."""
    _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, f"mode=700,size={size},uid={uid},gid={uid}")


def detach(target: str) -> None:
    """Take away what was attached at `target`, from every namespace; in use, it goes with its last user."""
    if libc.umount2(os.fsencode(target), _DETACH) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"umount {target}: {os.strerror(error)}")


def mounts_below(folder: str) -> list[str]:
    """What is mounted at or below a folder in this mount namespace, innermost first (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", encoding="latin-1") as table:
        escaped = [line.split()[4] for line in table]
    places = [os.fsdecode(each.encode("latin-1").decode("unicode_escape").encode("latin-1")) for each in escaped]
    return [each for each in reversed(places) if each == folder or each.startswith(folder + "/")]


def enter_root(root: str, folders: Sequence[str], binds: Sequence[tuple[str, str]]) -> None:
    """Make a small file system at the folder `root`, in this mount namespace, and go into it for good.

    It holds `/usr` and its like, some of `/etc`, a few devices, `/proc` with no one else's processes, `folders` at their own
    paths, and `binds` (from, to), the last ones writable as far as their owner says; nothing else of this machine.
    """
    make_private()
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            os.symlink(os.readlink(folder), root + folder)
        elif os.path.isdir(folder):
            _bind(folder, root + folder)
    for path in (*(f"/etc/{name}" for name in _ETC), *folders):
        if os.path.exists(path) and not os.path.exists(root + path):
            _bind(os.path.realpath(path), root + path)
    for name in _DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    os.mkdir(f"{root}/proc")
    try:
        _mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV, "hidepid=2")
    except OSError:  # in a user namespace only the PID namespace's owner may
        _mount("/proc", f"{root}/proc", None, _BIND | _REC)
    for source, target in binds:
        _bind(source, root + target, read_only=False)
        _mount("none", root + target, None, _SLAVE | _REC)
    _mount("none", root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    os.chdir(root)
    syscall(_NR_PIVOT_ROOT[os.uname().machine], b".", b".", what="pivot_root")
    detach(".")
    os.chdir("/")


def _bind(source: str, target: str, read_only: bool = True) -> None:
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError), open(target, "x"):
            pass
    _mount(source, target, None, _BIND | _REC)
    if read_only:
        # Flags that the mount already has may be locked, as in a user namespace: keep them.
        kept = _flags(target)
        _mount("none", target, None, _REMOUNT | _BIND | _RDONLY | kept)


def _flags(path: str) -> int:
    found = os.statvfs(path).f_flag
    noexec, noatime, nodiratime, relatime = 8, 1024, 2048, 1 << 21
    kept = found & (_NOSUID | _NODEV | noexec | noatime | nodiratime)
    return kept | (relatime if found & 4096 else 0)
