"""The table of `faas usage`."""

from __future__ import annotations

from typing import Any

from cli.usage import rows


def item(day: str, function: str, namespace: str = "team", **calls: dict[str, int]) -> dict[str, Any]:
    return {
        "day": day, "namespace": namespace, "function": function, "calls": {"http": {}, "async": {}, "cron": {}, **calls},
        "runSeconds": 30.0, "coldStarts": 1, "instanceSeconds": 1800.0, "memoryGiBSeconds": 900.0,
    }  # fmt: skip


def test_days_of_a_function_are_one_row():
    items = [
        item("2027-01-01", "f", http={"2xx": 5, "5xx": 1}, cron={"Succeeded": 2, "Skipped": 1}),
        item("2027-01-02", "f", **{"async": {"Succeeded": 7, "DeadLetter": 2}}),
        item("2027-01-01", "f", "a"),
    ]
    assert rows(items, named=True) == [
        ("f.a", 0, 0, 0, 0, "30s", 1, "0.50 h", "0.25 GiB h"),
        ("f.team", 6, 9, 3, 3, "60s", 2, "1.00 h", "0.50 GiB h"),
    ]
    assert [each[0] for each in rows(items[:2], named=False)] == ["f"]
