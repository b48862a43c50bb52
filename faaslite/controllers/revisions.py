"""Decisions about the revisions of one Function: which is the newest, what takes the calls, what is wrong, what may go. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.api.meta import Document
from core.api.views import ContainerStatus, Pod, ReplicaSet
from faaslite.api.function import Function
from faaslite.api.names import ANNOTATION_REVISION_HASH, CONTAINER_NAME, revision_name
from faaslite.controllers.resources import limits_of

__all__ = [
    "KEEP",
    "REPLACE_RESET",
    "Failure",
    "RouteError",
    "crashed",
    "diagnose",
    "number_of",
    "replace_delay",
    "resolve_traffic",
    "to_prune",
]

KEEP = 10
"""Revisions that stay for a rollback."""
MESSAGE = 1024
REPLACE_LONGEST = 60.0
REPLACE_RESET = 300.0
"""Seconds without a crash after which the delays start over."""
_NUMBER = re.compile(r"-(\d{5,})$")
_WAITING = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why instances don't become ready: `reason` for programs, `message` for people."""

    reason: str
    message: str


class RouteError(Exception):
    """`spec.traffic` can't be followed; the text says why, with the path."""


def number_of(name: str) -> int:
    """The number in a revision's name, 0 where there is none."""
    matched = _NUMBER.search(name)
    return int(matched[1]) if matched else 0


def hash_of(revision: ReplicaSet) -> str:
    return revision.metadata.annotations.get(ANNOTATION_REVISION_HASH, "")


def resolve_traffic(function: Function, revisions: Mapping[str, ReplicaSet], latest_ready: str) -> list[Document]:
    """`status.traffic`: what gateways route by. Empty while `latest` is asked for and nothing is ready.

    Raises `RouteError` for a revision that doesn't exist.
    """
    asked = [(each.revision, each.percent, each.tag) for each in function.spec.traffic] or [("latest", 100, "")]
    shares: dict[str, int] = {}
    tags: dict[str, list[str]] = {}
    for at, (revision, percent, tag) in enumerate(asked):
        name = _resolve(function.name, revision, latest_ready)
        if not name:
            return []
        if name not in revisions:
            raise RouteError(f"spec.traffic[{at}].revision: there is no revision {name}")
        shares[name] = shares.get(name, 0) + percent
        if tag:
            tags.setdefault(name, []).append(tag)
    found = []
    for name, percent in shares.items():
        if percent or name in tags:
            concurrency, timeout = limits_of(revisions[name].spec.template)
            row: Document = {"revision": name, "percent": percent, "concurrency": concurrency, "timeout": timeout}
            if name in tags:
                row["tags"] = tags[name]
            found.append(row)
    return found


def _resolve(function: str, revision: str, latest_ready: str) -> str:
    if revision == "latest":
        return latest_ready
    return revision_name(function, int(revision)) if revision.isdigit() else revision


def to_prune(revisions: Iterable[ReplicaSet], keep: Iterable[str]) -> list[ReplicaSet]:
    """Beyond the newest ten, revisions that aren't among `keep`, the oldest first."""
    kept = set(keep)
    by_age = sorted(revisions, key=lambda each: number_of(each.name))
    return [each for each in by_age[:-KEEP] if each.name not in kept and each.metadata.deletion_timestamp is None]


def crashed(pods: Iterable[Pod]) -> list[Pod]:
    """Pods whose node waits before it starts their container again."""
    return [
        pod
        for pod in pods
        if pod.metadata.deletion_timestamp is None
        and any(
            (each.state.waiting or {}).get("reason") == "CrashLoopBackOff" for each in pod.status.container_statuses
        )
    ]


def replace_delay(count: int) -> float:
    """Seconds until the next crashed Pod is replaced, after `count` in a row: 0.5, 1, 2 ... 60."""
    return min(0.5 * 2.0 ** min(count, 10), REPLACE_LONGEST)


def _of_container(status: ContainerStatus) -> Failure | None:
    waiting, ended = status.state.waiting or {}, status.state.terminated
    last = status.last_state.terminated
    reason = str(waiting.get("reason") or "")
    if reason == "CrashLoopBackOff" or (ended is None and reason in _WAITING and last is not None and not status.ready):
        ended = last or {"message": waiting.get("message")}
    elif reason not in _WAITING:
        return Failure(reason, _text(waiting.get("message")) or f"the container is waiting: {reason}")
    if ended is None:
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure("OOMKilled", "the container ran out of memory: raise spec.resources.limits.memory")
    code = ended.get("exitCode")
    message = (
        _text(ended.get("message")) or f"the container ended with exit code {code if code is not None else 'unknown'}"
    )
    return Failure("StartFailed", message)


def _text(value: object) -> str:
    return str(value or "").strip()[:MESSAGE]


def diagnose(pods: Sequence[Pod], revision: ReplicaSet | None) -> Failure | None:
    """What keeps a revision's Pods from being ready, from the Pod that knows most; None where nothing is known to be wrong."""
    found: list[Failure] = []
    for pod in pods:
        if pod.ready or pod.metadata.deletion_timestamp is not None:
            continue
        statuses = [*pod.status.init_container_statuses, *pod.status.container_statuses]
        statuses.sort(key=lambda each: each.name != CONTAINER_NAME)
        found += [each for each in map(_of_container, statuses) if each is not None]
        if pod.status.phase == "Failed":
            found.append(Failure(pod.status.reason or "StartFailed", _text(pod.status.message) or "the Pod failed"))
        scheduled = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
        if scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable":
            found.append(Failure("Unschedulable", _text(scheduled.message)))
    if found:
        return found[0]
    for each in revision.status.conditions if revision is not None else ():
        if each.type == "ReplicaFailure" and each.status == "True":
            return Failure(each.reason, _text(each.message))
    return None
