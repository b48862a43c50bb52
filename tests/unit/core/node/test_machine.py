"""What a machine says of itself, and when a shortage becomes a condition."""

import os

import pytest

from core.node.machine import MEMORY_BYTES, TRANSITION, Observed, machine, observe, pressures

PLENTY = Observed(memory=8 * MEMORY_BYTES, disk=0.5, inodes=0.5, pids=0.5)


def statuses(found):
    return {each.type: each.status for each in found}


def test_plenty_of_everything():
    found = pressures(PLENTY, {}, 1000.0)
    assert [(each.type, each.status, each.reason, each.message) for each in found] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ]


@pytest.mark.parametrize(
    ("short", "type_", "reason"),
    [
        ({"memory": MEMORY_BYTES - 1}, "MemoryPressure", "KubeletHasInsufficientMemory"),
        ({"disk": 0.049}, "DiskPressure", "KubeletHasDiskPressure"),
        ({"inodes": 0.049}, "DiskPressure", "KubeletHasDiskPressure"),
        ({"pids": 0.049}, "PIDPressure", "KubeletHasInsufficientPID"),
    ],
)
def test_a_shortage_is_one_condition(short, type_, reason):
    found = pressures(PLENTY._replace(**short), {}, 1000.0)
    assert [(each.type, each.reason) for each in found if each.status == "True"] == [(type_, reason)]


def test_a_condition_outlasts_its_shortage_and_ends():
    before = {each.type: each.since for each in pressures(PLENTY._replace(disk=0.01), {}, 1000.0)}
    later = pressures(PLENTY, before, 1000.0 + TRANSITION - 1)
    assert statuses(later)["DiskPressure"] == "True"
    over = pressures(PLENTY, {each.type: each.since for each in later}, 1000.0 + TRANSITION)
    assert statuses(over) == {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}


def test_a_shortage_that_comes_again_begins_anew():
    before = {"DiskPressure": 1000.0}
    again = pressures(PLENTY._replace(disk=0.01), before, 1000.0 + TRANSITION - 1)
    assert {each.type: each.since for each in again}["DiskPressure"] == 1000.0 + TRANSITION - 1


def test_this_machine(tmp_path):
    seen = observe(tmp_path)
    assert 0 < seen.memory < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 <= seen.disk <= 1 and 0 <= seen.inodes <= 1 and 0 < seen.pids < 1
    assert machine().kernel == os.uname().release and machine().os_image and len(machine().boot_id) == 36


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        observe(tmp_path / "gone")
