"""Which limits a container has run into, from what the kernel counts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.api.strain import STRAINS
from core.node.runtime.sandboxer import strain
from core.node.runtime.sandboxer.cgroups import Cgroup
from core.node.runtime.sandboxer.strain import CALM_SECONDS, Seen, Strain


def test_a_limit_holds_until_a_minute_without_it() -> None:
    found = Strain()
    assert found.take(Seen(), 0) == ()
    assert found.take(Seen(refused=3), 5) == ("TooManyProcesses",)
    assert found.take(Seen(refused=3), 5 + CALM_SECONDS) == ("TooManyProcesses",)
    assert found.take(Seen(refused=4), 70) == ("TooManyProcesses",)
    assert found.take(Seen(killed=1, refused=4), 100) == ("OOMKilled", "TooManyProcesses")
    assert found.take(Seen(killed=1, refused=4), 71 + CALM_SECONDS) == ("OOMKilled",)
    assert found.take(Seen(killed=1, refused=4), 101 + CALM_SECONDS) == ()


def test_a_disk_that_stays_full_holds_on() -> None:
    found = Strain()
    for now in range(0, 300, 5):
        assert found.take(Seen(full=True), now) == ("DiskFull",)
    assert found.take(Seen(), 300) == ("DiskFull",)
    assert found.take(Seen(), 296 + CALM_SECONDS) == ()


def test_every_reason_has_words() -> None:
    assert set(Strain().take(Seen(1, 1, True), 0)) == set(STRAINS)


def test_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "pids.events").write_text("max 7\n")
    group = Cgroup({"memory": tmp_path, "pids": tmp_path}, unified=False)
    child: Any = SimpleNamespace(cgroup=group, slot=SimpleNamespace(mounted=True, host=tmp_path))
    (tmp_path / "tmp").mkdir()
    assert strain.look(child) == Seen(2, 7, False)
    real = os.statvfs(tmp_path)
    full = SimpleNamespace(f_bavail=1, f_frsize=4096, f_files=10, f_favail=5)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert strain.look(child).full
    full.f_bavail = real.f_bavail
    assert not strain.look(child).full
    full.f_favail = 0
    assert strain.look(child).full
    child.slot.mounted = False
    child.cgroup = None
    assert strain.look(child) == Seen()
