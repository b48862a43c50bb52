"""Trouble of instances that calls go to: what it is, and the condition Healthy that remembers it. Pure.

A Function has the condition from its first trouble on. It is False from then until ten minutes have passed without another one, or until no
revision that takes calls is the one that had it; then True, and says what there was.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.api.strain import LOST, STRAINS, WITHIN_LIMITS
from core.api.views import Pod
from core.clock import parse_time
from faaslite.api.names import CONTAINER_NAME, LABEL_REVISION
from faaslite.controllers.status import Verdict

__all__ = ["HEALTHY_AFTER", "Trouble", "fresh", "healthy_condition", "remembered", "trouble_of"]

HEALTHY_AFTER = 600.0
"""Seconds without trouble after which a function counts as healthy again."""
_MESSAGE = 512


@dataclass(frozen=True, slots=True)
class Trouble:
    """`mark` tells one occurrence from others; `at` is when it happened (seconds since the epoch), `lasts` whether it still does."""

    revision: str
    reason: str
    message: str
    mark: str = ""
    at: float = 0.0
    lasts: bool = False


def trouble_of(pod: Pod) -> Trouble | None:
    """What is wrong with an instance now, or how it ended last; None where nothing is known to be.

    That an instance which is to go ends with an error is none, unless it ran out of memory, and neither is what its node did to it.
    """
    revision = pod.metadata.labels.get(LABEL_REVISION, "")
    for each in pod.status.conditions:
        if each.type == WITHIN_LIMITS and each.status == "False":
            reason = each.reason if each.reason in STRAINS else "OverLimits"
            message = _advice(pod.name, reason, each.message)
            since = each.last_transition_time or ""
            return Trouble(revision, reason, message, f"{pod.name} {reason} {since}", _seconds(since), True)
    status = next((each for each in pod.status.container_statuses if each.name == CONTAINER_NAME), None)
    if status is None:
        return None
    ended = status.state.terminated or status.last_state.terminated
    if ended is None:
        return None
    mark, at = str(ended.get("containerID") or ""), _seconds(ended.get("finishedAt"))
    if ended.get("reason") == "OOMKilled":
        return Trouble(revision, "OOMKilled", _out_of_memory(pod.name), mark, at)
    said = _gist(str(ended.get("message") or ""))
    if pod.metadata.deletion_timestamp is not None or said == LOST:
        return None
    code = ended.get("exitCode")
    message = f"Instance {pod.name} ended with exit code {code}{_signal(code)}{': ' + said if said else ''}"
    return Trouble(revision, "InstanceDied", message, mark, at)


def _out_of_memory(name: str) -> str:
    return f"Instance {name} ran out of memory and was started again: raise spec.resources.limits.memory"


def _advice(name: str, reason: str, otherwise: str) -> str:
    match reason:
        case "OOMKilled":
            return f"A process of instance {name} was killed because memory ran out: raise spec.resources.limits.memory"
        case "TooManyProcesses":
            return f"Instance {name} reached the limit of processes and threads: end those that a call has started"
        case "DiskFull":
            return f"The temporary files of instance {name} take all the room there is: remove them when a call is done"
    return f"Instance {name}: {otherwise}"


def _gist(text: str) -> str:
    """One line of what a container said last, which may be the end of its log: the last that tells of an error, where one does."""
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    telling = [each for each in lines if re.search(r"error|exception|panic|fatal", each, re.IGNORECASE)]
    return ["", *lines, *telling][-1][:_MESSAGE]


def _signal(code: object) -> str:
    if not isinstance(code, int) or code <= 128:
        return ""
    try:
        return f" ({signal.Signals(code - 128).name})"
    except ValueError:
        return ""


def _seconds(text: object) -> float:
    return parse_time(str(text)) if text else 0.0


def fresh(old: Pod | None, new: Pod | None, now: float) -> Trouble | None:
    """The trouble of an instance that its earlier state (None: unknown) didn't tell of; ends of instances that weren't ready are none."""
    found = trouble_of(new) if new is not None else None
    if found is None or (not found.lasts and found.at and now - found.at > HEALTHY_AFTER):
        return None
    if found.reason == "InstanceDied" and not (old.ready if old is not None else new is not None and new.ready):
        return None  # it never came to serve: the condition Ready says why
    before = trouble_of(old) if old is not None else None
    return None if before is not None and before.mark == found.mark else found


def remembered(conditions: Iterable[Mapping[str, Any]], revision: str) -> Trouble | None:
    """The trouble that a Function's status tells of, for who has come after it; `revision` is what serves."""
    for each in conditions:
        if each.get("type") == "Healthy" and each.get("status") == "False":
            return Trouble(revision, str(each.get("reason")), str(each.get("message") or ""))
    return None


def healthy_condition(
    conditions: Iterable[Mapping[str, Any]], trouble: Trouble | None, last: float, serving: Collection[str], now: float
) -> Verdict | None:
    """The condition Healthy; None where it stays as it is. `last` is when `trouble` was there last."""
    known = next((each for each in conditions if each.get("type") == "Healthy"), None)
    if trouble is not None and trouble.revision in serving and now - last < HEALTHY_AFTER:
        return Verdict("False", trouble.reason, trouble.message)
    if known is None or known.get("status") == "True":
        return None
    gone = trouble is not None and trouble.revision not in serving
    why = (
        f"{trouble.revision} takes no calls any more"
        if trouble is not None and gone
        else f"no trouble for {HEALTHY_AFTER / 60:.0f} minutes"
    )
    return Verdict("True", "NoTrouble", f"{why}; the last was {known.get('reason')}: {known.get('message')}")
