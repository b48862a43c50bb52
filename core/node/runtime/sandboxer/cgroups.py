"""Control groups, version 1 and 2: limits of Pods, what they used, and whether the kernel killed them for memory.

(Documentation/admin-guide/cgroup-v1 and cgroup-v2 of the kernel.)
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["Cgroup", "Cgroups", "find_cgroups"]

CPU_PERIOD = 100_000
MAX_PIDS = 512
_CONTROLLERS = ("memory", "pids", "cpu")


class Cgroup:
    """One group, of all hierarchies. The files of a hierarchy are asked for by controller."""

    def __init__(self, folders: dict[str, Path], unified: bool) -> None:
        self._folders = folders
        self._unified = unified

    def _places(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def open_procs(self) -> list[int]:
        """Descriptors of `cgroup.procs`: a process that writes `0` to each of them is in, whoever it is; close them afterwards.

        So a child goes in by itself before it does anything else, and nobody waits for the move.
        """
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self._places()]

    def add(self, pid: int) -> None:
        """Move a process in, which may take the kernel some milliseconds. Raises OSError where the group or the process is no more."""
        for folder in self._places():
            (folder / "cgroup.procs").write_text(str(pid))

    def prepare(self) -> None:
        """What holds for every Pod. For a new group, off the critical path."""
        self._write("pids", "pids.max", str(MAX_PIDS))
        if self._unified:
            self._write("memory", "memory.oom.group", "1")

    def limit(self, cpu: float, memory: int) -> None:
        """Set the limits of a new group: `cpu` in cores, `memory` in bytes; 0 is none."""
        quota = int(cpu * CPU_PERIOD)
        if memory:
            self._write("memory", "memory.max" if self._unified else "memory.limit_in_bytes", str(memory))
        if quota and self._unified:
            self._write("cpu", "cpu.max", f"{quota} {CPU_PERIOD}")
        elif quota:
            self._write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD))
            self._write("cpu", "cpu.cfs_quota_us", str(quota))

    def give_way(self, gives: bool) -> None:
        """Whether the group gets a processor only where nobody else wants it; a new one has its share."""
        if self._unified:
            self._write("cpu", "cpu.weight", "1" if gives else "100")
        else:
            self._write("cpu", "cpu.shares", "2" if gives else "1024")

    def _write(self, controller: str, name: str, text: str) -> None:
        folder = self._folders.get(controller)
        if folder is None:
            return
        try:
            descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # not every kernel has every file
            return
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def oom_kills(self) -> int:
        """How many processes of the group were killed because its memory ran out."""
        return self._field("memory", "memory.events" if self._unified else "memory.oom_control", "oom_kill")

    def forks_refused(self) -> int:
        """How many processes and threads weren't made because there were too many."""
        return self._field("pids", "pids.events", "max")

    def memory(self) -> int | None:
        """Bytes in use, without what is only cache; None where memory isn't counted."""
        if "memory" not in self._folders:
            return None
        used = int(
            (self._folders["memory"] / ("memory.current" if self._unified else "memory.usage_in_bytes")).read_text()
        )
        return max(
            0, used - self._field("memory", "memory.stat", "inactive_file" if self._unified else "total_inactive_file")
        )

    def _field(self, controller: str, name: str, key: str) -> int:
        folder = self._folders.get(controller)
        if folder is None:
            return 0
        try:
            lines = (folder / name).read_text().splitlines()
        except FileNotFoundError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.split()[0] == key), 0)

    def kill(self) -> None:
        """KILL whatever is left in the group."""
        for folder in self._places():
            with contextlib.suppress(FileNotFoundError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)

    def remove(self) -> bool:
        """False where processes are still on their way out; then call it again."""
        gone = True
        for folder in self._places():
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


class Cgroups:
    """The groups of one sandboxer, below its own."""

    def __init__(self, parents: dict[str, Path], unified: bool) -> None:
        self._parents = parents
        self._unified = unified

    def create(self, name: str) -> Cgroup:
        folders = {controller: parent / name for controller, parent in self._parents.items()}
        for folder in dict.fromkeys(folders.values()):
            folder.mkdir(exist_ok=True)
        group = Cgroup(folders, self._unified)
        group.prepare()
        return group

    def leftovers(self) -> list[Cgroup]:
        """Groups that an earlier sandboxer left."""
        names = {
            each.name
            for parent in self._parents.values()
            if parent.is_dir()
            for each in parent.iterdir()
            if each.is_dir()
        }
        return [Cgroup({c: p / name for c, p in self._parents.items()}, self._unified) for name in sorted(names)]

    def remove(self) -> None:
        for parent in dict.fromkeys(self._parents.values()):
            with contextlib.suppress(OSError):
                parent.rmdir()


def find_cgroups(name: str) -> Cgroups | None:
    """Make the parent group `name` below this process's own. None where that isn't permitted or memory isn't among the controllers."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(",") if controllers else ["unified"], path))
    mounts: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            mounts["unified"] = before.split()[4]
        elif kind == "cgroup":
            mounts.update(dict.fromkeys(options.split(" ")[-1].split(","), before.split()[4]))
    try:
        if "memory" in own and "memory" in mounts:
            parents = {
                each: Path(mounts[each] + own[each]) / name for each in _CONTROLLERS if each in own and each in mounts
            }
            for parent in dict.fromkeys(parents.values()):
                parent.mkdir(exist_ok=True)
            hierarchy = parents["memory"] / "memory.use_hierarchy"
            if hierarchy.exists() and hierarchy.read_text().strip() == "0":
                hierarchy.write_text("1")
            return Cgroups(parents, unified=False)
        if "unified" in own and "unified" in mounts:
            return _unified(Path(mounts["unified"] + own["unified"]), name)
    except OSError:
        return None
    return None


def _unified(own: Path, name: str) -> Cgroups | None:
    available = (own / "cgroup.controllers").read_text().split()
    wanted = [each for each in _CONTROLLERS if each in available]
    if "memory" not in wanted:
        return None
    enable = " ".join(f"+{each}" for each in wanted)
    (own / "cgroup.subtree_control").write_text(enable)
    parent = own / name
    parent.mkdir(exist_ok=True)
    (parent / "cgroup.subtree_control").write_text(enable)
    return Cgroups(dict.fromkeys(wanted, parent), unified=True)
