"""Who gets the next slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.calls.fair import divide, interleave


def test_namespaces_share_alike_whatever_their_backlogs():
    waiting = {("a", "f"): 1000, ("a", "g"): 1000, ("b", "f"): 1000, ("c", "f"): 2}
    found = divide(waiting, {}, 12)
    assert found == {("a", "f"): 3, ("a", "g"): 2, ("b", "f"): 5, ("c", "f"): 2}


def test_what_is_busy_counts():
    assert divide({("a", "f"): 10, ("b", "f"): 10}, {("a", "f"): 6}, 6) == {("b", "f"): 6}
    assert divide({("a", "f"): 10, ("a", "g"): 10}, {("a", "f"): 4}, 6) == {("a", "g"): 5, ("a", "f"): 1}


def test_weights():
    assert divide({("a", "f"): 100, ("b", "f"): 100}, {}, 9, weights={"a": 2.0}) == {("a", "f"): 6, ("b", "f"): 3}


keys = st.tuples(st.sampled_from("abc"), st.sampled_from("fgh"))


@given(
    st.dictionaries(keys, st.integers(0, 40)),
    st.dictionaries(keys, st.integers(0, 20)),
    st.integers(0, 60),
    st.integers(0, 12),
)
def test_no_slot_is_wasted_and_none_given_twice(waiting, busy, limit, per_function):
    found = divide(waiting, busy, limit, per_function)
    room = {
        key: min(count, max(per_function - busy.get(key, 0), 0)) if per_function else count
        for key, count in waiting.items()
    }
    assert all(0 < count <= room[key] for key, count in found.items())
    assert sum(found.values()) == min(limit, sum(room.values()))
    for key, count in found.items():
        for other, wanted in room.items():
            if other[0] == key[0] and found.get(other, 0) < wanted:
                assert busy.get(key, 0) + count <= busy.get(other, 0) + found.get(other, 0) + 1 or count == 0


def test_interleave():
    assert interleave([["a1", "a2", "a3"], ["b1"], []]) == ["a1", "b1", "a2", "a3"]
