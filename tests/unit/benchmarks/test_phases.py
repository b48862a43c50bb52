"""Phases of cold starts add up to the whole, whatever marks there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.phases import CHAIN, Call, breakdown, phases, read

MS = 1_000_000


def test_each_phase_is_the_time_since_the_mark_before() -> None:
    marks = [("held", 11 * MS), ("poked", 13 * MS), ("dispatched", 18 * MS)]
    found = phases(Call("default/a-00001", 10 * MS, 20 * MS), marks)
    assert found["held"] == 1 and found["poked"] == 2 and found["dispatched"] == 5 and found["done"] == 2
    assert sum(found.values()) == 10


def test_marks_out_of_order_and_of_other_calls_change_no_sum() -> None:
    marks = [("held", 5 * MS), ("scaled", 14 * MS), ("created", 13 * MS), ("replied", 30 * MS)]
    found = phases(Call("default/a-00001", 10 * MS, 20 * MS), marks)
    assert found["held"] == 0 and found["scaled"] == 4 and found["created"] == 0 and found["replied"] == 0
    assert sum(found.values()) == 10


def test_marks_of_pods_count_for_their_revision(tmp_path: Path) -> None:
    (tmp_path / "1").write_text(f"{11 * MS} held default/a-00001\n{16 * MS} dispatched default/a-00001\n")
    (tmp_path / "2").write_text(f"{12 * MS} bound default/a-00001-x7k2p\n")
    found = breakdown([Call("default/a-00001", 10 * MS, 20 * MS)], read(tmp_path))
    assert found["bound"] == (1.0, 1.0, 1.0) and found["dispatched"] == (4.0, 4.0, 4.0)


def test_means_add_up_to_the_mean_of_the_whole() -> None:
    calls = [Call("default/a-00001", 0, 10 * MS), Call("default/b-00001", 0, 30 * MS)]
    found = breakdown(calls, {"default/a-00001": [("held", 4 * MS)], "default/b-00001": [("ready", 20 * MS)]})
    assert sum(mean for mean, _, _ in found.values()) == pytest.approx(20)
    assert set(found) == {event for event, _ in CHAIN}
