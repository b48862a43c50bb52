"""The profile of Docker nodes' containers: what it must never let through, and what programs can't do without."""

from __future__ import annotations

import json

import pytest

from core.node.runtime.docker_seccomp import ALLOWED, profile, profile_text

NEVER = (
    "add_key", "bpf", "clock_settime", "delete_module", "finit_module", "fsopen", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp",
    "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root",
    "process_vm_readv", "process_vm_writev", "ptrace", "reboot", "request_key", "setns", "swapon", "syslog", "umount2", "unshare", "userfaultfd",
)  # fmt: skip
NEEDED = (
    "accept4",
    "close_range",
    "epoll_pwait",
    "execve",
    "futex",
    "getrandom",
    "memfd_create",
    "openat",
    "prctl",
    "rseq",
    "sched_setaffinity",
    "seccomp",
    "statx",
    "vfork",
)


@pytest.mark.parametrize("name", NEVER)
def test_never(name: str) -> None:
    assert all(name not in each["names"] for each in profile()["syscalls"])


def test_needed() -> None:
    assert set(NEEDED) <= set(ALLOWED)
    assert len(ALLOWED) == len(set(ALLOWED))


def test_processes_but_no_namespaces() -> None:
    found = json.loads(profile_text())
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    clone = next(each for each in found["syscalls"] if each["names"] == ["clone"])
    (flags,) = clone["args"]
    assert (flags["op"], flags["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", 0)
    for flag in (0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000):
        assert flags["value"] & flag
    assert next(each for each in found["syscalls"] if each["names"] == ["clone3"])["errnoRet"] == 38
