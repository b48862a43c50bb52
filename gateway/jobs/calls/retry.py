"""What becomes of a call after its request was answered, or wasn't. Pure but for the jitter's random number, an argument too."""

from __future__ import annotations

from typing import NamedTuple

from gateway.jobs.calls.base import DEAD_LETTER, EXPIRED, FAILED, SUCCEEDED, Claimed

__all__ = ["Answer", "Next", "after"]

REFUSALS = frozenset({"FunctionNotReady", "QueueFull", "ActivationTimeout", "QuotaExceeded", "GatewayUnreachable"})
"""Reasons for which no instance saw the call: such an attempt doesn't count, and is repeated for as long as `max_age` allows."""
RETRIED = frozenset({408, 425, 429})
"""Answers under 500 that invite to try again."""
FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
REFUSED_AGE = 6 * 3600.0
"""Seconds that refusals are repeated where the call itself has no `max_age`."""


class Answer(NamedTuple):
    """What came back. `status` 0: nothing did, and `error` says why. `reason` is the gateway's, "" where the function answered.

    `cold_start` is the seconds that the call waited for an instance, None where it didn't.
    """

    status: int
    reason: str = ""
    error: str = ""
    retry_after: float | None = None
    cold_start: float | None = None


class Next(NamedTuple):
    """`status` is the end of the call; empty where it goes back into the queue for `delay` seconds."""

    status: str
    delay: float = 0.0
    executed: bool = True


def after(call: Claimed, answer: Answer, now: float, chance: float) -> Next:
    """`chance` is a random number in [0, 1).

    The delay doubles with each attempt from 1 s to 5 min, and half of it is jitter; `Retry-After` makes it longer, never shorter.
    A call that fails for good, or would be older than it may be before it could run again, is a dead letter where its function keeps those.
    """
    if 200 <= answer.status < 400:
        return Next(SUCCEEDED)
    refused = answer.reason in REFUSALS
    if refused:
        tries = call.refusals
        if now - call.since > (call.max_age or REFUSED_AGE):
            return Next(_failed(call))
    else:
        tries = call.attempts - call.spent - 1
        passing = answer.status == 0 or answer.status >= 500 or answer.status in RETRIED
        if not passing or tries >= call.retries:
            return Next(_failed(call))
    delay = min(FIRST_DELAY * 2.0 ** min(tries, 16), LONGEST_DELAY) * (0.5 + chance / 2)
    delay = max(delay, min(answer.retry_after or 0.0, LONGEST_DELAY))
    if call.max_age and now + delay > call.since + call.max_age:
        return Next(DEAD_LETTER if call.options.dead_letter else EXPIRED)
    return Next("", delay, not refused)


def _failed(call: Claimed) -> str:
    return DEAD_LETTER if call.options.dead_letter else FAILED
