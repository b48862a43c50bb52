"""Whose turn it is: shares, loans, fairness between flows, bounds of queues. Time is an argument."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver.flow.queues import Limits, Seats


def _seats(total=8, **levels):
    seats = Seats(total)
    seats.configure(levels or {"a": Limits(total, total, total, 4, 16)})
    return seats


def _finish(seats, ticket, now):
    """Those that start instead."""
    seats.finish(ticket, now)
    return seats.start(now, 100)


def _offer(seats, flow, level="a", width=1, now=0.0):
    return seats.offer(level, flow, width, now)[0]


def test_seats_are_taken_then_queues_then_refused():
    seats = _seats(2, a=Limits(2, 2, 2, 3, 100))
    tickets = [_offer(seats, "u") for _ in range(6)]
    assert [each.runs for each in tickets] == [True, True, False, False, False, False]
    assert [each.gone for each in tickets] == [False] * 5 + [True]
    level = seats.levels["a"]
    assert (level.in_use, level.waiting, level.rejected) == (2, 3, 1)
    assert _finish(seats, tickets[0], 1.0) == [tickets[2]] and tickets[2].runs


def test_a_level_without_queues_refuses_at_once():
    seats = _seats(1, a=Limits(1, 1, 1))
    first, second = _offer(seats, "u"), _offer(seats, "u")
    assert first.runs and second.gone and not second.runs


def test_a_flow_with_few_requests_does_not_wait_behind_a_flood():
    seats = _seats(1, a=Limits(1, 1, 1, 100, 1000))
    running = _offer(seats, "flood")
    flood = [_offer(seats, "flood") for _ in range(50)]
    quiet = _offer(seats, "quiet")
    assert not quiet.runs
    (next_one,) = _finish(seats, running, 0.1)
    assert next_one is quiet
    (after,) = _finish(seats, quiet, 0.2)
    assert after is flood[0]


def test_a_flow_does_not_take_all_seats():
    """Those of the flood wait for the disk, say: whoever comes finds a seat at once."""
    seats = _seats(8, a=Limits(8, 8, 8, 100, 1000, 4))
    flood = [_offer(seats, "flood") for _ in range(50)]
    assert [each.runs for each in flood] == [True] * 4 + [False] * 46
    quiet = [_offer(seats, "quiet"), _offer(seats, "wide", width=3)]
    assert all(each.runs for each in quiet)
    assert not _offer(seats, "one more").runs
    assert (
        _finish(seats, flood[0], 1.0)[0].flow.key == "one more"
    )  # the flood may have another seat, the level has no more
    assert _finish(seats, quiet[1], 1.0) == [flood[4]]
    assert seats.levels["a"].flows["flood"].in_use == 4


def test_who_has_had_less_does_not_wait_for_a_flood_to_be_seated():
    """A seat is free, those who may have it haven't been told yet."""
    seats = _seats(2, a=Limits(2, 2, 2, 100, 1000))
    flood = [_offer(seats, "flood") for _ in range(10)]
    seats.finish(flood[0], 1.0)
    assert not _offer(seats, "flood", now=1.0).runs
    assert _offer(seats, "quiet", now=1.0).runs
    assert seats.start(1.0, 100) == []


def test_a_wide_request_of_a_flow_begins_when_nothing_else_of_it_runs():
    seats = _seats(8, a=Limits(8, 8, 8, 10, 10, 4))
    small, wide = _offer(seats, "u"), _offer(seats, "u", width=8)
    assert not wide.runs and _finish(seats, small, 1.0) == [wide]


def test_no_more_of_a_level_begin_than_are_asked_for():
    seats = _seats(8, a=Limits(4, 0, 8, 50, 50), b=Limits(4, 0, 8, 50, 50))
    first = [_offer(seats, "u", level, width=4) for level in "ab"]
    waiting = {level: [_offer(seats, "u", level) for _ in range(3)] for level in "ab"}
    for each in first:
        seats.finish(each, 1.0)
    assert seats.start(1.0, 1) == [waiting["a"][0], waiting["b"][0]]
    assert seats.start(1.0, 2) == [*waiting["a"][1:], *waiting["b"][1:]]


def test_what_a_flow_really_used_counts():
    """Requests of `slow` take a hundred times as long, so `fast` gets about a hundred times as many turns."""
    seats = _seats(1, a=Limits(1, 1, 1, 1000, 10000))
    waiting = [_offer(seats, flow) for _ in range(900) for flow in ("slow", "fast")]
    running, now, turns, time = waiting[0], 0.0, Counter(), Counter()
    for _ in range(600):
        flow = running.flow.key
        took = 1.0 if flow == "slow" else 0.01
        now += took
        turns[flow] += 1
        time[flow] += took
        (running,) = _finish(seats, running, now)
    assert 0.5 < time["slow"] / time["fast"] < 2.0 and turns["fast"] > 50 * turns["slow"]


def test_idleness_is_not_saved_up():
    seats = _seats(1, a=Limits(1, 1, 1, 100, 1000))
    busy = _offer(seats, "busy", now=0.0)
    for second in range(1, 100):
        waiting = _offer(seats, "busy", now=float(second))
        assert _finish(seats, busy, float(second)) == [waiting]
        busy = waiting
    other = [_offer(seats, "late", now=100.0) for _ in range(10)]
    mine = [_offer(seats, "busy", now=100.0) for _ in range(10)]
    order, running, now = [], busy, 100.0
    for _ in range(10):
        now += 1.0
        (running,) = _finish(seats, running, now)
        order.append(running.flow.key)
    assert order.count("busy") >= 4 and other[0].flow.key == "late" and mine


def test_idle_seats_are_lent_and_guaranteed_ones_are_not():
    seats = _seats(10, a=Limits(2, 2, 10, 50, 50), b=Limits(8, 3, 10, 50, 50))
    tickets = [_offer(seats, "u") for _ in range(12)]
    assert sum(each.runs for each in tickets) == 7  # its own 2 and the 5 that b lends
    # b gets its nominal share at once, though some of it is lent: the loan ends with the requests that have it.
    assert all(_offer(seats, "v", "b").runs for _ in range(8))
    waiting = _offer(seats, "v", "b")
    assert not waiting.runs
    for each in tickets[:7]:
        _finish(seats, each, 1.0)
    assert sum(each.runs for each in tickets) == 2


def test_the_borrowing_limit_holds():
    seats = _seats(10, a=Limits(2, 2, 3, 50, 50), b=Limits(8, 0, 10, 50, 50))
    assert sum(_offer(seats, "u").runs for _ in range(9)) == 3


def test_wide_requests_take_more_and_always_fit_an_empty_level():
    seats = _seats(4, a=Limits(4, 4, 4, 10, 10))
    wide = _offer(seats, "u", width=10)
    assert wide.runs and seats.levels["a"].in_use == 4
    small = _offer(seats, "u")
    assert not small.runs and _finish(seats, wide, 1.0) == [small]


def test_a_full_level_makes_room_for_a_shorter_queue():
    seats = _seats(1, a=Limits(1, 1, 1, 10, 10))
    _offer(seats, "x")
    flood = [_offer(seats, "flood") for _ in range(10)]
    ticket, victim = seats.offer("a", "newcomer", 1, 0.0)
    assert victim is flood[-1] and victim.gone and not ticket.gone
    assert seats.levels["a"].waiting == 10


def test_those_who_wait_too_long_are_taken_out():
    seats = _seats(1, a=Limits(1, 1, 1, 10, 10))
    running = _offer(seats, "u")
    old, young = _offer(seats, "u", now=1.0), _offer(seats, "u", now=2.0)
    assert seats.expire(1.5) == [old] and old.gone and not young.gone
    assert seats.levels["a"].timed_out == 1
    assert _finish(seats, running, 3.0) == [young]


def test_a_level_that_goes_drains():
    seats = _seats(2, a=Limits(1, 1, 1, 10, 10), b=Limits(1, 1, 1))
    running, waiting = _offer(seats, "u"), _offer(seats, "u")
    seats.configure({"b": Limits(2, 2, 2)})
    assert "a" in seats.levels
    assert _finish(seats, running, 1.0) == [waiting]
    _finish(seats, waiting, 2.0)
    seats.configure({"b": Limits(2, 2, 2)})
    assert set(seats.levels) == {"b"}


_STEP = st.tuples(st.sampled_from(["offer", "finish", "quit", "expire"]), st.integers(0, 9), st.integers(1, 4))


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEP, max_size=120))
def test_counts_agree_whatever_happens(steps):
    seats = _seats(6, a=Limits(3, 1, 6, 4, 8, 3), b=Limits(3, 2, 4, 2, 4))
    live, now = [], 0.0
    for action, pick, width in steps:
        now += 1.0
        if action == "offer":
            ticket, victim = seats.offer("ab"[pick % 2], f"f{pick}", width, now)
            live += [] if ticket.gone else [ticket]
            live = [each for each in live if each is not victim]
        elif action == "expire":
            gone = seats.expire(now - 10)
            live = [each for each in live if each not in gone]
        elif live:
            candidates = [each for each in live if each.runs == (action == "finish")]
            if candidates:
                ticket = candidates[pick % len(candidates)]
                _finish(seats, ticket, now)
                live.remove(ticket)
        for name, level in seats.levels.items():
            mine = [each for each in live if each.level is level]
            assert level.in_use == sum(each.width for each in mine if each.runs), name
            assert level.waiting == sum(not each.runs for each in mine) <= level.limits.waiting
            assert level.running == sum(each.runs for each in mine)
            for flow in level.flows.values():
                assert flow.running or flow.waiting
                assert len(flow.waiting) <= level.limits.per_flow
                assert flow.in_use == sum(each.width for each in mine if each.runs and each.flow is flow)
                assert flow.running == 1 or not level.limits.flow_most or flow.in_use <= level.limits.flow_most
            # nobody waits while his level stands empty
            assert level.in_use or not level.waiting
    for each in list(live):
        _finish(seats, each, now)
    assert all(not level.in_use and not level.flows for level in seats.levels.values() if not level.waiting)
