"""Who gets the next slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.calls.fair import Weights, divide, interleave


def test_namespaces_share_alike_whatever_their_backlogs():
    waiting = {("a", "f"): 1000, ("a", "g"): 1000, ("b", "f"): 1000, ("c", "f"): 2}
    found = divide(waiting, {}, 12)
    assert found == {("a", "f"): 3, ("a", "g"): 2, ("b", "f"): 5, ("c", "f"): 2}


def test_what_is_busy_counts():
    assert divide({("a", "f"): 10, ("b", "f"): 10}, {("a", "f"): 6}, 6) == {("b", "f"): 6}
    assert divide({("a", "f"): 10, ("a", "g"): 10}, {("a", "f"): 4}, 6) == {("a", "g"): 5, ("a", "f"): 1}


def test_weights():
    namespaces = Weights({"a": 2.0}, {})
    assert divide({("a", "f"): 100, ("b", "f"): 100}, {}, 9, weights=namespaces) == {("a", "f"): 6, ("b", "f"): 3}
    functions = Weights({}, {("a", "g"): 0.5, ("b", "f"): 100.0})
    waiting = {("a", "f"): 100, ("a", "g"): 100, ("b", "f"): 100}
    assert divide(waiting, {}, 12, weights=functions) == {("a", "f"): 4, ("a", "g"): 2, ("b", "f"): 6}


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


weight = st.sampled_from([0.01, 0.5, 1.0, 1.5, 3.0, 100.0])


@given(
    st.dictionaries(keys, st.integers(1, 60), min_size=1),
    st.dictionaries(keys, st.integers(0, 20)),
    st.integers(0, 80),
    st.dictionaries(st.sampled_from("abc"), weight),
    st.dictionaries(keys, weight),
)
def test_nobody_gets_more_than_their_share_while_another_waits(waiting, busy, limit, spaces, functions):
    """Weighted max-min fairness: the last slot that anyone was given was due to them, before anyone whose calls still wait."""
    weights = Weights(spaces, functions)
    found = divide(waiting, busy, limit, weights=weights)
    have = {key: busy.get(key, 0) + found.get(key, 0) for key in {*waiting, *busy}}

    def in_space(space: str) -> int:
        return sum(count for (each, _), count in have.items() if each == space)

    for got in found:
        for wants, count in waiting.items():
            if found.get(wants, 0) == count:
                continue  # nothing of it waits any more
            if got[0] == wants[0]:
                mine, other = functions.get(got, 1.0), functions.get(wants, 1.0)
                assert (have[got] - 1) / mine <= have[wants] / other + 1e-9
            else:
                mine, other = spaces.get(got[0], 1.0), spaces.get(wants[0], 1.0)
                assert (in_space(got[0]) - 1) / mine <= in_space(wants[0]) / other + 1e-9


@given(st.integers(1, 40), weight, weight)
def test_a_backlog_delays_another_function_by_no_more_than_its_share(slots, first, second):
    """One function's backlog has all slots when another's begins. The next slot that becomes free goes to the other, and so do all
    that follow until it has its share."""
    weights = Weights({}, {("a", "f"): first, ("a", "g"): second})
    waiting = {("a", "f"): 10**6, ("a", "g"): 10**6}
    f, g = slots, 0
    while f:
        given_now = divide(waiting, {("a", "f"): f - 1, ("a", "g"): g}, 1, weights=weights)
        if given_now == {("a", "f"): 1}:
            break
        assert given_now == {("a", "g"): 1}
        f, g = f - 1, g + 1
    assert g >= min(1, slots - 1) or f == slots == 1
    assert g >= int(slots * second / (first + second)) - 1
    assert (f - 1) / first <= g / second + 1e-9


def test_interleave():
    assert interleave([["a1", "a2", "a3"], ["b1"], []]) == ["a1", "b1", "a2", "a3"]
