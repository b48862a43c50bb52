"""The shared state against a model that keeps every past state whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.store.base import Compacted, Entry, Event
from core.store.state import State

KEYS = st.sampled_from([f"/{folder}/{name}" for folder in "ab" for name in "pqrstu"])


@given(
    st.lists(st.tuples(KEYS, st.booleans()), max_size=40),
    st.integers(0, 40),
    st.integers(1, 4),
    st.sampled_from(["/", "/a/", "/b/"]),
)
def test_a_listing_of_the_past_is_the_past(writes: list[tuple[str, bool]], back: int, limit: int, prefix: str) -> None:
    events: list[Event] = []
    state = State(events.append)
    past: dict[int, dict[str, Entry]] = {state.revision: {}}
    live: dict[str, Entry] = {}
    for n, (key, delete) in enumerate(writes):
        value = b"%d" % n
        if key not in live:
            live[key] = state.create(key, value)
        elif delete:
            state.delete(key, live.pop(key).revision)
        else:
            live[key] = state.update(key, value, live[key].revision)
        past[state.revision] = dict(live)
    revision = max(1, state.revision - back)
    wanted = [entry for key, entry in sorted(past[revision].items()) if key.startswith(prefix)]
    assert state.list(prefix, 0, "", revision).entries == wanted
    after, seen = "", []
    while True:
        page = state.list(prefix, limit, after, revision)
        seen += page.entries
        assert page.remaining == len(wanted) - len(seen)
        assert page.more == (page.remaining > 0)
        if not page.more:
            break
        after = page.entries[-1].key
    assert seen == wanted
    assert list(state.since(revision, state.revision)) == [event for event in events if event.revision > revision]
    assert list(state.since(revision, revision)) == []


def test_the_log_is_bounded_by_its_events() -> None:
    state = State(lambda event: None, events=100)
    for n in range(1000):
        state.create(f"/a/{n}", b"")
        assert len(state.since(state.floor, state.revision)) <= 100
    with pytest.raises(Compacted):
        state.since(state.floor - 1, state.revision)
    assert len(state.since(state.floor, state.revision)) >= 74
    assert len(state.list("/a/", 0, "", state.floor).entries) == state.floor - 1


def test_the_log_is_bounded_by_its_size() -> None:
    state = State(lambda event: None, size=10_000)
    entry = state.create("/a/x", bytes(1000))
    for _ in range(100):
        entry = state.update("/a/x", bytes(1000), entry.revision)
        assert len(state.since(state.floor, state.revision)) <= 10


def test_a_value_larger_than_the_log_is_still_kept() -> None:
    state = State(lambda event: None, size=10)
    state.create("/a/x", bytes(100))
    assert state.get("/a/x") is not None
    assert state.floor == state.revision


def test_revisions_that_a_crash_left_out_are_compacted() -> None:
    before = Event("/a/x", b"", 5, None)
    state = State(lambda event: None, revision=100, floor=4, entries=[Entry("/a/x", b"", 5, 5)], log=[before])
    assert list(state.since(4, 100)) == [before]
    assert list(state.since(5, 100)) == []
    for lost in (6, 50, 99):
        with pytest.raises(Compacted):
            state.since(lost, 100)
        with pytest.raises(Compacted):
            state.list("/a/", 0, "", lost)
    assert list(state.since(100, 100)) == []
    made = state.create("/a/y", b"")
    assert made.revision == 101
    assert [event.revision for event in state.since(100, 101)] == [101]
    assert [event.revision for event in state.since(5, 101)] == [101]
    with pytest.raises(Compacted):
        state.since(99, 101)
