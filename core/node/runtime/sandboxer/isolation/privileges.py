"""User ids, capabilities, namespaces, and the ties between a process and its parent (prctl(2), capabilities(7))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

from .syscalls import libc, prctl, syscall

__all__ = ["CLONE_NEWIPC", "CLONE_NEWNS", "CLONE_NEWUSER", "CLONE_NEWUTS", "bound_processes", "drop", "enter_user_namespace", "no_new_privs", "parent_death_signal", "subreaper", "unshare"]  # fmt: skip

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_NR_CAPSET = {"x86_64": 126, "aarch64": 91}


def unshare(*kinds: str) -> None:
    """Leave the namespaces named (`mount`, `uts`, `ipc`) for new ones."""
    flags = {"mount": CLONE_NEWNS, "uts": CLONE_NEWUTS, "ipc": CLONE_NEWIPC}
    _unshare(sum(flags[each] for each in kinds))


def _unshare(flags: int) -> None:
    if libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def enter_user_namespace() -> None:
    """Become able to mount, without being root outside: a user namespace in which the only user is our own.

    The ids stay the same inside, so nothing that runs takes itself for root. Capabilities are lost at the next exec.
    """
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for path, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{path}", "w") as file:
            file.write(text)


def bound_processes(most: int) -> None:
    """How many processes and threads a user namespace of our own may have at a time: of the namespace's user, ourselves among them."""
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def no_new_privs() -> None:
    """From now on no exec gains privileges (set-user-id files work no more)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def subreaper() -> None:
    """Orphans among our descendants become our children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def parent_death_signal(parent: int, number: int = signal.SIGKILL) -> None:
    """Get signal `number` when process `parent` ends; ends this process where it has ended already.

    Call it after the last change of user ids: the kernel forgets it there. Waits until `parent` is the parent, which it becomes
    when the process in between, of a double fork, ends.
    """
    while os.getppid() != parent:  # before: or the end of the process in between would be taken for the parent's
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
        except PermissionError:
            pass
        os.sched_yield()
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def drop(uid: int | None, gid: int | None) -> None:
    """Take on the ids given (None keeps ours) and give up every capability for good."""
    with contextlib.suppress(OSError):  # an unprivileged process has nothing to take from its bounding set
        for capability in range(_LAST_CAPABILITY + 1):
            prctl(_PR_CAPBSET_DROP, capability)
    if gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)
    with contextlib.suppress(OSError):
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscall(_NR_CAPSET[os.uname().machine], ctypes.byref(header), ctypes.byref(nothing), what="capset")
    prctl(_PR_SET_DUMPABLE, 1)  # a change of ids makes /proc/self root's, and with it /proc/self/fd
