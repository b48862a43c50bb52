"""Which system calls the containers of a Docker node may make. Pure.

The engine's own profile differs from release to release (those before 25 let io_uring through). This one is the same on every engine and
holds to what process nodes refuse (`sandboxer/isolation/seccomp.py`): mounts and namespaces, modules and kexec, tracing and other
processes' memory, keys, clocks, handles, bpf, perf, userfaultfd, io_uring, NUMA policies. What it doesn't name is refused, calls that
kernels will have one day too. It is a profile of the OCI runtime specification (config-linux.md, Seccomp), in the engine's form.
"""

from __future__ import annotations

import errno
import json
from typing import Any

__all__ = ["ALLOWED", "profile", "profile_text"]

_NAMES = """
accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chroot clock_getres clock_gettime
clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod
fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list getcpu getcwd getdents getdents64
getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set
kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listxattr listxattrat
llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2
prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
signalfd4 socket socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
ALLOWED = tuple(_NAMES.split())
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEW*: cgroup, uts, ipc, user, pid, net, mount."""
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, with 32 bits of addresses or a 2.6 version number; and the question which one it is."""


def profile() -> dict[str, Any]:
    allow = "SCMP_ACT_ALLOW"
    asked = {"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        # The machine's own alone: a second numbering of the calls would be a second list to get wrong.
        "archMap": [
            {"architecture": f"SCMP_ARCH_{machine}", "subArchitectures": []} for machine in ("X86_64", "AARCH64")
        ],
        "syscalls": [
            {"names": list(ALLOWED), "action": allow},
            {"names": ["clone"], "action": allow, "args": [asked]},
            # Its flags are behind a pointer; with ENOSYS, libraries take clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            *(
                {"names": ["personality"], "action": allow, "args": [{"index": 0, "value": each, "op": "SCMP_CMP_EQ"}]}
                for each in _PERSONALITIES
            ),
        ],
    }


def profile_text() -> str:
    """As the engine takes it in a container's security options, after `seccomp=`."""
    return _TEXT


_TEXT = json.dumps(profile(), separators=(",", ":"))
