"""What is read of a trace, what is made by a seed, when calls are made, and how long instances were at work."""

from random import Random

import pytest

from benchmarks.trace import covered, phases, read, schedule, synthetic

CSV = """HashOwner,HashApp,HashFunction,Trigger,1,2,3,4
o,a,f1,http,0,2,0,7
o,a,f2,timer,0,0,0,9
o,a,f3,queue,1,,1,0
o,b,f4,http,5,0,0,0
"""


def test_functions_that_are_called_in_the_first_minutes_are_read():
    lines = CSV.splitlines(keepends=True)
    assert read(lines, 10, 3) == [[0, 2, 0], [1, 0, 1], [5, 0, 0]]
    assert read(lines, 2, 4) == [[0, 2, 0, 7], [0, 0, 0, 9]]


def test_a_seed_makes_the_same_trace_and_every_function_is_called():
    first, again, other = (synthetic(Random(seed), 20, 30) for seed in (1, 1, 2))
    assert first == again != other
    assert [len(row) for row in first] == [30] * 20
    assert all(any(row) for row in first)


def test_calls_come_in_their_minutes_and_in_order():
    found = schedule([[0, 3], [2, 0]], Random(1), 0.5)
    assert [number for _, number in found] == [1, 1, 0, 0, 0]
    assert found == sorted(found)
    assert all(0.5 * (1 - number) <= due < 0.5 * (2 - number) for due, number in found)


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [([], 0), ([(1, 2)], 1), ([(1, 2), (3, 5)], 3), ([(3, 5), (1, 4)], 4), ([(1, 9), (2, 3), (4, 5)], 8), ([(1, 2), (2, 3)], 2)],
)  # fmt: skip
def test_what_overlaps_counts_once(spans, seconds):
    assert covered(spans) == seconds


def test_phases_are_added_up_over_functions():
    text = """# TYPE faaslite_function_cold_start_seconds histogram
faaslite_function_cold_start_seconds_bucket{function="a",namespace="default",phase="starting",le="+Inf"} 2
faaslite_function_cold_start_seconds_sum{function="a",namespace="default",phase="starting"} 0.500000
faaslite_function_cold_start_seconds_count{function="a",namespace="default",phase="starting"} 2
faaslite_function_cold_start_seconds_sum{function="b",namespace="default",phase="starting"} 1.5
faaslite_function_cold_start_seconds_count{function="b",namespace="default",phase="starting"} 1
faaslite_function_cold_start_seconds_sum{function="b",namespace="default",phase="scheduling"} 0.25
faaslite_function_cold_start_seconds_count{function="b",namespace="default",phase="scheduling"} 1
"""
    assert phases(text) == {"starting": (2.0, 3.0), "scheduling": (0.25, 1.0)}
