"""A system call filter: refuses with EPERM what functions have no use for and kernels have had holes in.

A classic BPF program (seccomp(2), Linux' `linux/filter.h`), as short as it can be, since it runs at every system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .syscalls import prctl

__all__ = ["install_filter", "program", "seccomp_supported"]

_PR_GET_SECCOMP, _PR_SET_SECCOMP = 21, 22
_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENT_0 = 0, 4, 16
_X32 = 0x40000000
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net, mount
_CLONE3 = 435

# Of another process (or thread) than one's own: its nice value and how it is scheduled, where it runs, its limits. Number -> the
# argument that says whose, which must be 0: which others are one's own can't be told here.
_SOMEBODYS = {
    "x86_64": {141: 1, 142: 0, 144: 0, 203: 0, 251: 1, 302: 0, 314: 0},
    "aarch64": {30: 1, 118: 0, 119: 0, 122: 0, 140: 1, 261: 0, 274: 0},
}
# mount and namespaces, modules and kexec, tracing and other processes' memory, keys, clocks, handles, bpf and io_uring
_COMMON = (425, 428, 429, 430, 431, 432, 433, 438, 442)
_MACHINES = {
    "x86_64": (
        0xC000003E,
        56,
        (
            101, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 227, 246, 248, 249, 250, 272, 298,
            303, 304, 305, 308, 310, 311, 312, 313, 320, 321, 323,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (
            39, 40, 41, 51, 60, 89, 97, 104, 105, 106, 112, 117, 142, 161, 162, 170, 171, 217, 218, 219, 224, 225, 241, 264, 265, 266,
            268, 270, 271, 272, 273, 280, 282, 294,
        ),
    ),
}  # fmt: skip


def seccomp_supported() -> bool:
    """Whether this kernel and this machine type can hold the filter."""
    try:
        prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return os.uname().machine in _MACHINES


def program(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, operand)."""
    architecture, clone, refused = _MACHINES[machine]
    refused = tuple(sorted(refused + _COMMON))
    somebodys = sorted(_SOMEBODYS[machine].items())
    # From the first of the refused to the answers: what follows them is looked at by argument.
    count = len(refused) + 5 * len(somebodys)
    rules = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_GREATER_EQUAL, count + 5, 0, _X32),
    ]
    rules += [(_JUMP_EQUAL, count - index + 4, 0, number) for index, number in enumerate(refused)]
    for number, argument in somebodys:
        rules += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _OFFSET_ARGUMENT_0 + 8 * argument),  # its lower half: the kernel takes 32 bits of it too
            (_JUMP_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [
        *rules,
        (_JUMP_EQUAL, 5, 0, _CLONE3),  # its flags are behind a pointer; with ENOSYS, libc takes clone
        (_JUMP_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        (_JUMP_ANY_BIT, 1, 0, _NAMESPACE_FLAGS),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]


def install_filter() -> None:
    """Hold this process and its children to the filter. Needs no_new_privs."""
    rules = program(os.uname().machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in rules))
    header = struct.pack("@HP", len(rules), ctypes.addressof(code))
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(header))
