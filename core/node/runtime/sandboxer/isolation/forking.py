"""A fork whose child is not ours but our parent's: clone(2) with CLONE_PARENT, where it takes a fork of a fork otherwise.

It is what the C library's fork does, for a process of one thread, but for handlers of `pthread_atfork`: not for a process with libraries that may
have some. Python's own handlers (`os.register_at_fork`) run.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from .syscalls import prctl

__all__ = ["forker_beside"]

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
_PR_GET_TID_ADDRESS = 40


def forker_beside() -> Callable[[], int] | None:
    """A function as `os.fork`, whose child is a sibling of this process and ends with the same signal to the parent; it raises OSError. None where there is no such thing here."""
    machine = os.uname().machine
    if machine not in _CLONE:
        return None
    # Where the C library keeps the thread's id, which the kernel is to write: as its own fork has it.
    where = ctypes.c_void_p()
    try:
        prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(where))
    except OSError:
        return None
    if not where.value:
        return None
    python = ctypes.pythonapi  # calls by which keep the interpreter's lock
    library = ctypes.PyDLL(None, use_errno=True)
    clone = library.syscall
    clone.restype = ctypes.c_long
    flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    address, nothing = ctypes.c_void_p(where.value), ctypes.c_void_p(None)
    # x86_64: flags, stack, parent's tid, child's tid, tls; aarch64 has the last two the other way round.
    last = (address, nothing) if machine == "x86_64" else (nothing, address)
    arguments = (ctypes.c_long(_CLONE[machine]), ctypes.c_ulong(flags), nothing, nothing, *last)

    def fork() -> int:
        python.PyOS_BeforeFork()
        pid = int(clone(*arguments))
        if pid == 0:
            python.PyOS_AfterFork_Child()
            return 0
        error = ctypes.get_errno()
        python.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(error, f"clone: {os.strerror(error)}")
        return pid

    return fork
