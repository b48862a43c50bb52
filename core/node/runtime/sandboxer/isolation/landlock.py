"""Landlock: an allow-list of folders, held by the kernel, that needs no privileges (landlock(7), Linux 5.13 and newer)."""

from __future__ import annotations

import ctypes
import os
import stat

from .syscalls import syscall

__all__ = ["Ruleset", "landlock_abi"]

_NR_CREATE, _NR_ADD, _NR_RESTRICT = 444, 445, 446
_CREATE_VERSION = 1
_RULE_PATH_BENEATH = 1
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_ACCESS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where it has none."""
    try:
        return syscall(_NR_CREATE, None, 0, _CREATE_VERSION, what="landlock_create_ruleset")
    except OSError:
        return 0


def _handled(abi: int) -> int:
    """Every right that this kernel can refuse: 13 at first, then REFER, TRUNCATE and IOCTL_DEV."""
    return (1 << (13 + (abi >= 2) + (abi >= 3))) - 1 | (_IOCTL_DEV if abi >= 5 else 0)


class Ruleset:
    """Folders that may be used; everything else is refused from `restrict` on. Rules can be added until then.

    With version 6 and newer, signals and abstract sockets of processes outside are out of reach as well.
    """

    def __init__(self) -> None:
        abi = landlock_abi()
        self.access = _handled(abi)
        scope = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL if abi >= 6 else 0
        attributes = (ctypes.c_uint64 * 3)(self.access, 0, scope)
        size = 24 if abi >= 6 else 16 if abi >= 4 else 8
        self.descriptor = syscall(_NR_CREATE, ctypes.byref(attributes), size, 0, what="landlock_create_ruleset")

    def allow(self, path: str, write: bool = False) -> None:
        """Let `path` and what lies below be read and executed, and changed where `write`. A path that isn't there is skipped."""
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            access = self.access if write else self.access & _READ
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                access &= _FILE_ACCESS
            rule = _PathBeneath(access, opened)
            syscall(_NR_ADD, self.descriptor, _RULE_PATH_BENEATH, ctypes.byref(rule), 0, what=f"landlock rule {path}")
        finally:
            os.close(opened)

    def restrict(self) -> None:
        """Hold this process and its children to the rules. Needs no_new_privs."""
        syscall(_NR_RESTRICT, self.descriptor, 0, what="landlock_restrict_self")
        os.close(self.descriptor)
