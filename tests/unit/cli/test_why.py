"""The story of a call, from its record."""

from __future__ import annotations

import pytest

from cli.calls import seconds
from cli.why import story


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:09.6f}Z"


def tried(began: float, ended: float | None, status: int | None = 200, error: str = "", **given) -> dict:
    found = {"startedAt": at(began), "finishedAt": None if ended is None else at(ended), "httpStatus": status, "coldStart": None,
             "error": error, "executed": True, "by": "jobs-1"}  # fmt: skip
    return {**found, **given}


def record(*tries: dict, **given) -> dict:
    found = {"id": "c1", "namespace": "default", "function": "f", "trigger": "async", "cron": "", "scheduledAt": None, "acceptedAt": at(0), "startedAt": None,
             "finishedAt": None, "status": "Queued", "attempts": len(tries), "httpStatus": None, "error": "", "nextAttemptAt": None, "replayOf": "",
             "callback": None, "tries": list(tries)}  # fmt: skip
    return {**found, **given}


def test_each_wait_and_error_has_its_reason():
    refused = tried(1, 1, 503, "QueueFull: too many wait", executed=False)
    lost = tried(0, None, None, "the process that ran it was lost")
    failed, fine = tried(2, 3, 500, "HandlerError: no"), tried(7, 9, coldStart=0.5)
    rows = story(record(refused, lost, failed, fine, status="Succeeded", finishedAt=at(9)))
    assert rows == [
        ("+0us", "accepted"),
        ("+1s", "no instance could take it: QueueFull: too many wait; this doesn't count as an attempt"),
        ("", "a try was lost: the process that ran it was lost; its lease lapsed, and it was tried again"),
        ("+2s", "sent to the gateway, after 1s in the queue"),
        ("+3s", "500: HandlerError: no"),
        ("+7s", "sent to the gateway, after 4s in the queue"),
        ("", "waited 500ms for an instance to start"),
        ("+9s", "200"),
        ("+9s", "Succeeded"),
    ]


def test_what_is_not_over_says_what_it_waits_for():
    assert "waits for its next try, in" in story(record(nextAttemptAt="2999-01-01T00:00:00Z"))[-1][1]
    assert "waits for its turn" in story(record(nextAttemptAt=at(0)))[-1][1]
    assert story(record(status="Running", startedAt=at(2)))[-1] == ("+2s", "runs now")


def test_dead_letters_callbacks_replays_and_cron_are_told_of():
    dead = record(
        status="DeadLetter",
        finishedAt=at(1),
        error="no",
        callback={"url": "http://a", "state": "Delivered"},
        replayOf="c0",
    )
    texts = [text for _, text in story(dead)]
    assert texts[0] == "accepted, a replay of c0"
    assert "`faas calls redrive c1` puts it back into the queue" in texts
    assert texts[-1] == "callback to http://a: Delivered"
    assert story(record(cron="n", scheduledAt=at(0)))[0][1] == f"fired by cron n, for {at(0)}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00085, "850us"), (0.0123, "12.3ms"), (4.213, "4.21s"), (119.6, "120s"), (190.0, "3m10s")],
)
def test_seconds(value, text):
    assert seconds(value) == text
