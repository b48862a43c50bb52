"""What becomes of a call after its request was answered, or wasn't. Pure but for the jitter's random number, an argument too."""

from __future__ import annotations

from typing import NamedTuple

from gateway.jobs.calls.base import FAILED, SUCCEEDED, Claimed

__all__ = ["Answer", "Next", "after"]

REFUSALS = frozenset({"FunctionNotReady", "QueueFull", "ActivationTimeout", "GatewayUnreachable"})
"""Reasons for which no instance saw the call: such an attempt doesn't count, and is repeated for as long as `max_age` allows."""
RETRIED = frozenset({408, 425, 429})
"""Answers under 500 that invite to try again."""
FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
REFUSED_AGE = 6 * 3600.0
"""Seconds that refusals are repeated where the call itself has no `max_age`."""


class Answer(NamedTuple):
    """What came back. `status` 0: nothing did, and `error` says why. `reason` is the gateway's, "" where the function answered."""

    status: int
    reason: str = ""
    error: str = ""
    retry_after: float | None = None


class Next(NamedTuple):
    """`status` is the end of the call; empty where it goes back into the queue for `delay` seconds."""

    status: str
    delay: float = 0.0
    executed: bool = True


def after(call: Claimed, answer: Answer, now: float, chance: float) -> Next:
    """`chance` is a random number in [0, 1).

    The delay doubles with each attempt from 1 s to 5 min, and half of it is jitter; `Retry-After` makes it longer, never shorter.
    """
    if 200 <= answer.status < 400:
        return Next(SUCCEEDED)
    refused = answer.reason in REFUSALS
    if refused:
        tries = call.refusals
        if now - call.accepted_at > (call.max_age or REFUSED_AGE):
            return Next(FAILED)
    else:
        tries = call.attempts - 1
        passing = answer.status == 0 or answer.status >= 500 or answer.status in RETRIED
        if not passing or call.attempts > call.retries:
            return Next(FAILED)
    delay = min(FIRST_DELAY * 2.0 ** min(tries, 16), LONGEST_DELAY) * (0.5 + chance / 2)
    return Next("", max(delay, min(answer.retry_after or 0.0, LONGEST_DELAY)), not refused)
