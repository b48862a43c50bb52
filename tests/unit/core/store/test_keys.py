"""Sorted keys against a plain sorted list, with chunks small enough to split."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.store import keys
from core.store.keys import SortedKeys, prefix_end

TEXTS = st.text(alphabet="/0ab", min_size=1, max_size=5)


def expected(known: set[str], after: str, end: str, limit: int) -> tuple[list[str], int]:
    found = sorted(key for key in known if after < key < end)
    return (found[:limit], len(found) - limit) if limit and len(found) > limit else (found, 0)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_CHUNK", 3)
        yield


@given(st.sets(TEXTS), st.lists(TEXTS, max_size=60), TEXTS, TEXTS, st.integers(0, 5))
def test_it_is_a_sorted_set(first: set[str], toggled: list[str], after: str, end: str, limit: int) -> None:
    ordered, known = SortedKeys(first), set(first)
    for key in toggled:
        if key in known:
            ordered.remove(key)
        else:
            ordered.add(key)
        known ^= {key}
        assert ordered.between(after, end, limit) == expected(known, after, end, limit)
    assert ordered.between("", "~")[0] == sorted(known)


def test_many_keys_come_and_go() -> None:
    rng = random.Random(1)
    ordered, known = SortedKeys(), set()
    for _ in range(3000):
        key = f"/{rng.randrange(600)}"
        (ordered.remove if key in known else ordered.add)(key)
        known ^= {key}
    assert ordered.between("", "~")[0] == sorted(known)
    for key in list(known):
        ordered.remove(key)
    assert ordered.between("", "~") == ([], 0)


@given(st.text(alphabet="/0ab~\U0010ffff", max_size=4), TEXTS)
def test_the_end_of_a_prefix_is_past_all_that_begin_with_it(rest: str, other: str) -> None:
    assert ("/a/" <= other < prefix_end("/a/")) == other.startswith("/a/")
    assert "/a/" <= "/a/" + rest < prefix_end("/a/")
