"""Parts of the sandboxer that need no processes: parked children, control groups, log lines, the journal of processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from core.node.logs import LogOptions, read_logs
from core.node.runtime.logbound import KEPT, STEP
from core.node.runtime.sandboxer.cgroups import Cgroup, Cgroups
from core.node.runtime.sandboxer.logfile import MAX_LINE, LogFile
from core.node.runtime.sandboxer.state import Processes
from core.node.runtime.sandboxer.zygotes import parked_target

# How many children wait


@pytest.mark.parametrize(
    ("adoptions", "wanted"),
    [([], 2), ([99.0], 2), ([91.0, 95.0, 99.0], 3), ([10.0, 20.0, 89.9], 2), ([99.0] * 50, 8)],
)
def test_as_many_wait_as_were_wanted_lately(adoptions: list[float], wanted: int) -> None:
    assert parked_target(adoptions, 100.0, 10.0, 2, 8) == wanted


# Control groups, in folders that look like the kernel's


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("0")


def test_limits_of_version_1_go_to_their_hierarchies(tmp_path: Path) -> None:
    folders = {each: tmp_path / each for each in ("memory", "pids", "cpu")}
    for each in folders.values():
        each.mkdir()
        files(each, "cgroup.procs")
    files(folders["memory"], "memory.limit_in_bytes")
    files(folders["pids"], "pids.max")
    files(folders["cpu"], "cpu.cfs_period_us", "cpu.cfs_quota_us")
    group = Cgroup(folders, unified=False)
    group.prepare()
    group.limit(0.5, 64 << 20)
    assert (folders["pids"] / "pids.max").read_text() == "512"
    assert (folders["memory"] / "memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (folders["cpu"] / "cpu.cfs_quota_us").read_text() == "50000"
    opened = group.open_procs()
    for each in opened:
        os.write(each, b"7")
        os.close(each)
    assert [(each / "cgroup.procs").read_text() for each in folders.values()] == ["7"] * 3


def test_limits_of_version_2_are_in_one_folder(tmp_path: Path) -> None:
    names = ("memory.max", "cpu.max", "pids.max", "memory.oom.group", "cgroup.procs")
    files(tmp_path, *names)
    group = Cgroup(dict.fromkeys(("memory", "pids", "cpu"), tmp_path), unified=True)
    group.prepare()
    group.limit(1.5, 0)
    found = {name: (tmp_path / name).read_text() for name in names}
    assert found["cpu.max"] == "150000 100000" and found["pids.max"] == "512" and found["memory.oom.group"] == "1"
    assert found["memory.max"] == "0"  # no limit was asked for: what the kernel has stays
    group.limit(0, 1 << 20)
    assert (tmp_path / "memory.max").read_text() == str(1 << 20)
    opened = group.open_procs()
    assert len(opened) == 1
    os.close(opened[0])


def test_a_group_gives_way_until_somebody_waits_for_it(tmp_path: Path) -> None:
    for unified, name, least, usual in ((False, "cpu.shares", "2", "1024"), (True, "cpu.weight", "1", "100")):
        folder = tmp_path / name
        folder.mkdir()
        group = Cgroup({"cpu": folder}, unified)
        group.give_way(True)  # a kernel without the file
        assert not list(folder.iterdir())
        files(folder, name)
        group.give_way(True)
        assert (folder / name).read_text() == least
        group.give_way(False)
        assert (folder / name).read_text() == usual


def test_kills_for_memory_and_use_are_read(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500\n")
    group = Cgroup({"memory": tmp_path}, unified=True)
    assert (group.oom_kills(), group.memory()) == (2, 3500)
    assert Cgroup({"pids": tmp_path}, unified=True).memory() is None


def test_groups_are_made_and_leftovers_found(tmp_path: Path) -> None:
    parents = {each: tmp_path / each for each in ("memory", "pids")}
    for each in parents.values():
        each.mkdir()
    groups = Cgroups(parents, unified=False)
    groups.create("a")
    assert [each.remove() for each in groups.leftovers()] == [True]
    assert not groups.leftovers()


# Logs


def lines(path: Path) -> list[list[str]]:
    return [line.split(" ", 3)[1:] for line in path.read_text().splitlines()]


def test_lines_come_whole_whatever_the_pieces(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "c" / "0.log"))
    for piece in (b"on", b"e\ntw", b"o\n", b"\n"):
        log.feed("stdout", piece, 1.5)
    log.feed("stderr", b"no end", 2.0)
    log.close(3.0)
    assert lines(tmp_path / "c" / "0.log") == [
        ["stdout", "F", "one"],
        ["stdout", "F", "two"],
        ["stdout", "F", ""],
        ["stderr", "F", "no end"],
    ]
    assert (tmp_path / "c" / "0.log").read_text().startswith("1970-01-01T00:00:01.500000000Z ")


def test_long_lines_go_out_in_parts(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "0.log"))
    log.feed("stdout", b"x" * (MAX_LINE + 10), 0.0)
    log.feed("stdout", b"y\nz\n", 0.0)
    log.close(0.0)
    found = lines(tmp_path / "0.log")
    assert [each[1] for each in found] == ["P", "F", "F"]
    assert "".join(each[2] for each in found[:2]) == "x" * (MAX_LINE + 10) + "y"


def test_a_log_without_end_takes_a_bounded_part_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(str(path))
    text = b"y" * 1000 + b"\n"
    for number in range(40_000):
        log.feed("stdout", b"%d " % number + text, 0.0)
    log.close(0.0)
    used = path.stat().st_blocks * 512
    assert KEPT // 2 < used < KEPT + 2 * STEP

    async def read() -> bytes:
        return b"".join([each async for each in read_logs(path, LogOptions(), asyncio.Event())])

    found = asyncio.run(read()).splitlines()
    numbers = [int(each.split()[0]) for each in found]
    assert numbers[-1] == 39_999 and numbers == list(range(numbers[0], 40_000))
    assert all(len(each.split()[1]) == 1000 for each in found)


# What an earlier sandboxer left


def test_the_journal_ends_what_runs_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "processes.log"
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as left,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as ended,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as reused,
    ):
        journal = Processes(path)
        for each in (left, ended, reused):
            journal.add(each.pid)
        journal.remove(ended.pid)
        journal.close()
        text = path.read_text().splitlines()
        changed = [f"+{reused.pid} 1" if each.startswith(f"+{reused.pid} ") else each for each in text]
        path.write_text("\n".join([*changed, f"+{ended.pid} 12"]))  # the last line was cut short
        after = Processes(path)
        assert after.kill_leftovers() == [left.pid]
        assert left.wait(5) == -9 and ended.poll() is None and reused.poll() is None
        assert Processes(path).kill_leftovers() == []
        after.close()
        for each in (ended, reused):
            each.kill()


def test_the_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "processes.log"
    journal = Processes(path)
    for _ in range(1500):
        journal.add(os.getpid())
        journal.remove(os.getpid())
    journal.add(os.getpid())
    journal.close()
    assert path.stat().st_size < 40_000
    assert path.read_text().splitlines()[-1].startswith(f"+{os.getpid()} ")
