"""Calls of the kernel that the standard library has no name for; each raises OSError as `os` does."""

from __future__ import annotations

import ctypes
import os

__all__ = ["libc", "prctl", "syscall"]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.prctl.restype = ctypes.c_int


def syscall(number: int, *arguments: object, what: str = "syscall") -> int:
    """The result of system call `number`. int arguments are passed as longs, everything else as ctypes knows it."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def prctl(option: int, a: int = 0, b: object = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    second = ctypes.c_ulong(b) if isinstance(b, int) else b
    result = int(libc.prctl(option, ctypes.c_ulong(a), second, ctypes.c_ulong(c), ctypes.c_ulong(d)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
    return result
