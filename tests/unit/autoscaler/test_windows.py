"""Averages over gateways' reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.windows import DEFAULT_SPAN, Loads, Window
from faaslite.api.wire import Load

R = "default/hello-00001"


def feed(loads: Loads, gateway: str, start: int, seconds: int, concurrency: float, requests: int = 0) -> int:
    """One report a second from `start` on; returns when the last one came."""
    for at in range(start + 1, start + seconds + 1):
        loads.report(gateway, at, 1.0, [Load(R, concurrency, requests, 0)])
    return start + seconds


def test_a_steady_load_is_its_own_average_from_the_first_report_on():
    loads = Loads()
    for seconds in (1, 5, 60, 300):
        now = feed(loads, "g", 1000, seconds, 4.0, 8)
        seen = loads.observe(R, now, 60)
        assert seen.stable == pytest.approx(4.0)
        assert seen.panic == pytest.approx(4.0)
        assert loads.observe(R, now, 60, "rps").stable == pytest.approx(8.0)
        loads.drop("g")


def test_the_panic_window_is_a_tenth_of_the_stable_one():
    loads = Loads()
    feed(loads, "g", 0, 54, 0.0)
    now = feed(loads, "g", 54, 6, 10.0)
    seen = loads.observe(R, now, 60)
    assert seen.panic == pytest.approx(10.0)
    assert seen.stable == pytest.approx(1.0 * 60 / 60)


def test_a_revision_that_reports_leave_out_had_no_calls():
    loads = Loads()
    now = feed(loads, "g", 0, 30, 6.0)
    for at in range(now + 1, now + 31):
        loads.report("g", at, 1.0, [])
    seen = loads.observe(R, now + 30, 60)
    assert seen.stable == pytest.approx(3.0)
    assert (seen.panic, seen.in_flight, seen.waiting) == (0.0, 0.0, 0)
    assert seen.last_active == now


def test_gateways_add_up_and_one_that_leaves_takes_its_numbers_with_it():
    loads = Loads()
    feed(loads, "a", 0, 10, 2.0)
    now = feed(loads, "b", 0, 10, 3.0)
    loads.poke("b", now, R, 7)
    seen = loads.observe(R, now, 60)
    assert (seen.stable, seen.in_flight, seen.waiting) == (pytest.approx(5.0), 5.0, 7)
    loads.drop("b")
    seen = loads.observe(R, now, 60)
    assert (seen.stable, seen.in_flight, seen.waiting) == (pytest.approx(2.0), 2.0, 0)
    assert seen.last_active == now
    assert loads.gateways == 1


def test_a_poke_stands_until_the_next_report():
    loads = Loads()
    loads.poke("g", 5.0, R, 3)
    assert loads.observe(R, 5.0, 60).waiting == 3
    assert loads.observe(R, 5.0, 60).last_active == 5.0
    loads.report("g", 6.0, 1.0, [])
    assert loads.observe(R, 6.0, 60).waiting == 0


def test_after_an_empty_window_the_average_starts_anew():
    loads = Loads()
    feed(loads, "g", 0, 10, 5.0)
    now = feed(loads, "g", 500, 2, 8.0)
    assert loads.observe(R, now, 60).stable == pytest.approx(8.0)


def test_a_silent_gateway_decays_but_a_late_report_is_not_diluted():
    loads = Loads()
    now = feed(loads, "g", 0, 60, 6.0)
    assert loads.observe(R, now + 0.9, 60).stable == pytest.approx(6.0)
    assert loads.observe(R, now + 30, 60).stable == pytest.approx(3.0)
    assert loads.observe(R, now + 90, 60).stable == 0.0


def test_reports_that_overlap_do_not_count_twice():
    loads = Loads()
    loads.report("g", 10.0, 1.0, [Load(R, 4.0, 0, 0)])
    loads.report("g", 10.2, 1.0, [Load(R, 4.0, 0, 0)])
    assert loads.observe(R, 10.2, 60).stable == pytest.approx(4.0)


def test_nonsense_in_a_report_does_no_harm():
    loads = Loads()
    loads.report("g", 10.0, -5.0, [Load(R, -3.0, -2, -1)])
    loads.report("g", 11.0, 1e9, [Load(R, 2.0, 0, 0)])
    seen = loads.observe(R, 11.0, 60)
    assert 0 <= seen.stable <= 2.0
    assert seen.waiting == 0


def test_what_is_old_is_freed_and_a_longer_window_is_kept():
    loads = Loads()
    loads.keep(R, 300.0)
    now = feed(loads, "g", 0, 200, 3.0)
    assert loads.observe(R, now, 300).stable == pytest.approx(3.0)
    loads.prune(now + 200)
    assert loads.revisions == {R}
    loads.prune(now + 400)
    assert loads.revisions == set()
    feed(loads, "g", 1000, 1, 1.0)
    loads.forget(R)
    assert loads.revisions == set()
    assert loads.observe(R, 1001, 60).last_active is None


@given(st.lists(st.tuples(st.floats(0.2, 3.0), st.floats(0.0, 50.0), st.integers(0, 20)), min_size=1, max_size=60))
def test_the_average_is_the_integral_over_the_time(periods):
    """Against the plain sum, as long as everything fits into the window."""
    window = Window(DEFAULT_SPAN * 10)
    now = 1000.0
    for seconds, concurrency, requests in periods:
        now += seconds
        window.record(now, seconds, concurrency, requests)
    elapsed = sum(each[0] for each in periods)
    load, arrivals = window.averages(now, DEFAULT_SPAN * 10)
    assert load == pytest.approx(sum(s * c for s, c, _ in periods) / max(elapsed, 1.0), abs=1e-6)
    assert arrivals == pytest.approx(sum(r for _, _, r in periods) / max(elapsed, 1.0), abs=1e-6)
