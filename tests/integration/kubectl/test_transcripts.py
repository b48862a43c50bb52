"""What kubectl users type, and line by line what a real cluster prints. The transcripts are in `cases/`."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
pytestmark = [pytest.mark.kubectl, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", sorted(each.stem for each in CASES.glob("*.txt")))
def test_transcript(mismatches, name):
    found = mismatches(name)
    assert not found, f"{len(found)} commands differ:\n" + "\n".join(found)


def test_there_are_at_least_200_commands():
    count = sum(line.startswith("$ ") for each in CASES.glob("*.txt") for line in each.read_text().splitlines())
    assert count >= 200


def test_a_comparison_can_fail(transcript):
    assert transcript.agree(["a <age>", "...", "z"], ["a   5m10s", "b", "c", "z"])
    assert not transcript.agree(["a <age>"], ["a x"])
    assert not transcript.agree(["a"], ["a", "b"])
    assert not transcript.agree(["a", "..."], [])
