"""How call records look to users: JSON documents, with times in RFC 3339 and absent ones null. Pure."""

from __future__ import annotations

from typing import Any

from core.clock import micro_time
from gateway.jobs.calls.base import CallRecord, Try
from gateway.jobs.calls.trace import context_of

__all__ = ["call_document", "phases"]


def call_document(call: CallRecord) -> dict[str, Any]:
    return {
        "id": call.id,
        "namespace": call.namespace,
        "function": call.function,
        "trigger": call.trigger,
        "cron": call.cron,
        "scheduledAt": _time(call.scheduled_at),
        "acceptedAt": _time(call.accepted_at),
        "startedAt": _time(call.started_at),
        "finishedAt": _time(call.finished_at),
        "status": call.status,
        "attempts": call.attempts,
        "httpStatus": call.http_status,
        "result": call.result,
        "error": call.error,
        "nextAttemptAt": _time(call.due),
        "phases": phases(call),
        "tries": [_try(each) for each in call.tries],
        "revision": call.options.revision,
        "replayOf": call.options.replay_of,
        "idempotencyKey": call.options.key,
        "callback": {"url": call.options.callback, "state": call.callback} if call.options.callback else None,
        "traceId": context_of(call.id, call.options).trace,
    }


def phases(call: CallRecord) -> dict[str, float | None]:
    """Seconds that the call spent waiting to be run, waiting for an instance, and running; None for what hasn't been.

    `queued` is all that is neither of the others: before the first try, and between tries.
    """
    known = [(each.began, each.ended, each.cold_start or 0.0) for each in call.tries if each.ended is not None]
    cold = sum(each[2] for each in known)
    run = sum((ended or began) - began - waited for began, ended, waited in known)
    end = call.finished_at if call.finished_at is not None else (known[-1][1] if known else None)
    queued = None if end is None else max(end - call.accepted_at - cold - run, 0.0)
    return {
        "queued": _seconds(queued),
        "coldStart": _seconds(cold if any(each.cold_start is not None for each in call.tries) else None),
        "run": _seconds(max(run, 0.0) if known else None),
    }


def _try(found: Try) -> dict[str, Any]:
    return {
        "startedAt": _time(found.began or None),
        "finishedAt": _time(found.ended),
        "httpStatus": found.http_status or None,
        "coldStart": _seconds(found.cold_start),
        "error": found.error,
        "executed": found.executed,
        "by": found.owner,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _time(value: float | None) -> str | None:
    return None if value is None else micro_time(value)
