"""What becomes of a call, by its answer."""

from __future__ import annotations

import pytest

from gateway.jobs.calls.base import DEAD_LETTER, EXPIRED, FAILED, SUCCEEDED, Claimed, Options, Request
from gateway.jobs.calls.retry import LONGEST_DELAY, REFUSED_AGE, Answer, after

NOW = 1_800_000_000.0


def call(**given) -> Claimed:
    values = {"id": "c", "namespace": "d", "function": "f", "trigger": "async", "cron": "", "scheduled_at": 0.0, "accepted_at": NOW,
              "attempts": 1, "refusals": 0, "retries": 3, "max_age": 0.0, "fence": 1, "request": Request(), "since": NOW}  # fmt: skip
    return Claimed(**{**values, **given})


@pytest.mark.parametrize(
    ("answer", "attempts", "status", "executed"),
    [
        (Answer(200), 1, SUCCEEDED, True),
        (Answer(302), 1, SUCCEEDED, True),
        (Answer(400), 1, FAILED, True),
        (Answer(404, "", "FunctionNotFound: gone"), 1, FAILED, True),
        (Answer(408), 1, "", True),
        (Answer(429), 1, "", True),
        (Answer(500), 1, "", True),
        (Answer(500), 3, "", True),
        (Answer(500), 4, FAILED, True),
        (Answer(502), 4, FAILED, True),
        (Answer(504), 1, "", True),
        (Answer(0, "", "the connection broke"), 1, "", True),
        (Answer(0, "", "the connection broke"), 4, FAILED, True),
        (Answer(503, "FunctionNotReady"), 9, "", False),
        (Answer(503, "QueueFull"), 4, "", False),
        (Answer(429, "QuotaExceeded"), 4, "", False),
        (Answer(503, "ActivationTimeout"), 4, "", False),
        (Answer(503, "Overloaded"), 4, FAILED, True),
        (Answer(0, "GatewayUnreachable"), 4, "", False),
    ],
)
def test_rows(answer, attempts, status, executed):
    found = after(call(attempts=attempts), answer, NOW, 0.5)
    assert (found.status, found.executed) == (status, executed)
    assert (found.delay > 0) == (status == "")


def test_the_delay_doubles_with_half_of_it_jitter_up_to_a_bound():
    delays = [after(call(attempts=n, retries=100), Answer(500), NOW, 1.0).delay for n in range(1, 12)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == LONGEST_DELAY
    assert after(call(attempts=3), Answer(500), NOW, 0.0).delay == 2.0
    assert after(call(attempts=90, retries=100), Answer(500), NOW, 0.0).delay == LONGEST_DELAY / 2


def test_retry_after_makes_it_longer_never_shorter():
    assert after(call(), Answer(429, retry_after=20.0), NOW, 0.5).delay == 20.0
    assert after(call(attempts=3), Answer(429, retry_after=0.0), NOW, 1.0).delay == 4.0
    assert after(call(), Answer(429, retry_after=1e9), NOW, 0.5).delay == LONGEST_DELAY


def test_refusals_end_with_the_calls_age():
    refused = Answer(503, "FunctionNotReady")
    assert after(call(max_age=60.0), refused, NOW + 50, 0.5).status == ""
    assert after(call(max_age=60.0), refused, NOW + 60, 0.5).status == EXPIRED
    assert after(call(max_age=60.0), refused, NOW + 61, 0.5).status == FAILED
    assert after(call(), refused, NOW + REFUSED_AGE + 1, 0.5).status == FAILED


def test_failures_of_a_function_that_keeps_them_are_dead_letters():
    kept = Options(dead_letter=True)
    assert after(call(attempts=4, options=kept), Answer(500), NOW, 0.5).status == DEAD_LETTER
    assert after(call(options=kept), Answer(400), NOW, 0.5).status == DEAD_LETTER
    assert after(call(options=kept), Answer(200), NOW, 0.5).status == SUCCEEDED


def test_a_redriven_call_has_its_retries_anew():
    assert after(call(attempts=5, spent=4), Answer(500), NOW, 1.0) == ("", 1.0, True)
    assert after(call(attempts=8, spent=4), Answer(500), NOW, 1.0).status == FAILED


def test_a_call_that_would_be_too_old_by_then_is_not_kept_waiting():
    assert after(call(max_age=5.0, attempts=3), Answer(500), NOW + 2, 1.0).status == EXPIRED
    assert (
        after(call(max_age=5.0, attempts=3, options=Options(dead_letter=True)), Answer(500), NOW + 2, 1.0).status
        == DEAD_LETTER
    )
    assert after(call(max_age=9.0, attempts=3), Answer(500), NOW + 2, 1.0).status == ""
