from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.concurrency import Revision
from gateway.worker.metrics import render
from gateway.worker.stats import BOUNDS, FunctionStats, RevisionLoad, Stats


def test_the_average_is_the_integral_over_the_span():
    load = RevisionLoad(100.0)
    load.arrive(100.2)
    load.arrive(100.5)
    load.leave(100.7)
    assert load.take(101.0) == (pytest.approx(0.8 + 0.2), 2)
    assert load.take(102.0) == (pytest.approx(1.0), 0), "one call is still there"
    load.leave(102.5)
    assert load.take(103.0) == (pytest.approx(0.5), 0)
    assert load.take(104.0) == (0.0, 0)


@given(
    calls=st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=20),
    takes=st.lists(st.floats(0.1, 9), max_size=5),
)
def test_averages_agree_with_a_plain_sum(calls, takes):
    events = (
        [(start, 1) for start, _ in calls]
        + [(start + length, 2) for start, length in calls]
        + [(at, 0) for at in takes]
    )
    load, since = RevisionLoad(0.0), 0.0
    for at, what in sorted(events):
        if what == 1:
            load.arrive(at)
        elif what == 2:
            load.leave(at)
        elif at > since:
            average, _ = load.take(at)
            plain = sum(max(min(start + length, at) - max(start, since), 0) for start, length in calls)
            assert average * (at - since) == pytest.approx(plain, abs=1e-6)
            since = at


def test_reports_leave_out_who_had_no_calls():
    stats = Stats(0.0)
    busy, idle = Revision("a/busy-00001", "a", "busy", 0.0), Revision("a/idle-00001", "a", "idle", 0.0)
    busy.load.arrive(1.0)
    report = stats.report([busy, idle], 2.0)
    assert report.seconds == 2.0
    (load,) = report.loads
    assert (load.revision, load.concurrency, load.requests, load.queued) == ("a/busy-00001", 0.5, 1, 0)


def test_metrics_add_up():
    each = FunctionStats("team", "hello")
    for status, seconds in ((200, 0.0005), (200, 0.001), (404, 0.02), (503, 100.0)):
        each.count(status, seconds)
    text = render([each], [Revision("team/hello-00001", "team", "hello", 0.0)], [], 7)
    labels = 'function="hello",namespace="team"'
    lines = text.splitlines()
    assert f'faaslite_function_invocations_total{{{labels},code="2xx"}} 2' in lines
    assert f'faaslite_function_invocations_total{{{labels},code="5xx"}} 1' in lines
    assert f'faaslite_function_duration_seconds_bucket{{{labels},le="0.001"}} 2' in lines
    assert f'faaslite_function_duration_seconds_bucket{{{labels},le="{BOUNDS[-1]}"}} 3' in lines
    assert f'faaslite_function_duration_seconds_bucket{{{labels},le="+Inf"}} 4' in lines
    assert f"faaslite_function_duration_seconds_count{{{labels}}} 4" in lines
    assert "faaslite_gateway_connections 7" in lines
    assert text.endswith("\n")


def test_metrics_are_what_prometheus_reads():
    from prometheus_client.parser import text_string_to_metric_families

    each = FunctionStats("team", "hello")
    each.count(200, 0.1)
    families = {family.name: family for family in text_string_to_metric_families(render([each], [], [], 0))}
    assert families["faaslite_function_duration_seconds"].type == "histogram"
    assert families["faaslite_function_invocations"].samples[0].labels == {
        "function": "hello",
        "namespace": "team",
        "code": "2xx",
    }
