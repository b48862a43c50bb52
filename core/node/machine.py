"""The machine that a node is: who it is, and what it runs short of.

What is short is decided by `pressures` from one observation and the conditions of before, as the kubelet does it (signals
`memory.available`, `nodefs.available`, `nodefs.inodesFree`, `pid.available`); reading the machine stands apart.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["TRANSITION", "Machine", "Observed", "Pressure", "machine", "observe", "pressures"]

MIB: Final = 1024 * 1024
MEMORY_BYTES: Final = 100 * MIB
"""The kubelet's default of `memory.available`."""
DISK_SHARE: Final = 0.05
"""Of the bytes and of the inodes; the kubelet's default for the bytes, a tenth, is much on a laptop's disk."""
PID_SHARE: Final = 0.05
TRANSITION: Final = 300.0
"""Seconds that a shortage must be over before its condition is withdrawn (`eviction-pressure-transition-period`)."""


_WORDS: Final = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}
"""Reason and message without and with the pressure."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What `status.nodeInfo` says of it; "" where the machine doesn't say."""

    machine_id: str
    system_uuid: str
    boot_id: str
    os_image: str
    kernel: str
    architecture: str


class Observed(NamedTuple):
    """What there is left: bytes of memory and, as shares of the whole from 0 to 1, the rest."""

    memory: int
    disk: float
    inodes: float
    pids: float


class Pressure(NamedTuple):
    """A condition of the Node; `since` is when the shortage was last seen (epoch seconds), 0 for never."""

    type: str
    status: str
    reason: str
    message: str
    since: float


def pressures(seen: Observed, before: Mapping[str, float], now: float) -> list[Pressure]:
    """The pressure conditions. `before` has, by type, the `since` of the last call.

    A machine that hovers at a limit would have its taint come and go: a condition stays for `TRANSITION` after the last shortage.
    """
    short = {
        "MemoryPressure": seen.memory < MEMORY_BYTES,
        "DiskPressure": seen.disk < DISK_SHARE or seen.inodes < DISK_SHARE,
        "PIDPressure": seen.pids < PID_SHARE,
    }
    found = []
    for type_, is_short in short.items():
        since = now if is_short else before.get(type_, 0.0)
        lasting = bool(since) and now - since < TRANSITION
        reason, message = _WORDS[type_][lasting]
        found.append(Pressure(type_, "True" if lasting else "False", reason, message, since if lasting else 0.0))
    return found


def observe(folder: Path) -> Observed:
    """How much is left now; the disk is the one that `folder` is on. Raises OSError."""
    disk = os.statvfs(folder)
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    return Observed(
        memory=_available(Path("/proc/meminfo").read_text()),
        disk=disk.f_bavail / disk.f_blocks if disk.f_blocks else 1.0,
        inodes=disk.f_favail / disk.f_files if disk.f_files else 1.0,
        pids=max(limit - running, 0) / limit,
    )


def _available(meminfo: str) -> int:
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


@functools.cache
def machine() -> Machine:
    """This machine, read once."""
    uname = platform.uname()
    return Machine(
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        os_image=_os_image(),
        kernel=uname.release,
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(uname.machine, uname.machine),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
