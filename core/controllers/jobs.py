"""Jobs, the pure part: what has ended, what to start or stop, whether the Job is over, what its status says.

After https://kubernetes.io/docs/concepts/workloads/controllers/job/; times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from core.api.kinds import JOB
from core.api.meta import Document, controller_reference
from core.api.views import Job, Pod
from core.clock import parse_time, timestamp
from core.controllers.jobpolicies import (
    FAILURES,
    failures_before,
    matched,
    parse_ranges,
    restarted_too_often,
    success_rule,
    waits_for_the_end,
)

__all__ = ["FINALIZER", "INDEX", "Decision", "Tally", "decide", "pod_document", "ranges", "same_status", "tally"]

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_BACKOFF = 10.0
_MAX_BACKOFF = 360.0


@dataclass(frozen=True, slots=True)
class Tally:
    """The Pods of a Job, and what became of those that are gone already.

    An end is first written down by its Pod's uid (`uncounted`), then the Pod loses the finalizer, then the number moves
    (`counted`): so that none is lost or counted twice, whenever the controller stops.
    """

    active: list[Pod] = field(default_factory=list)
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    done: frozenset[int] = frozenset()
    ended: list[Pod] = field(default_factory=list)
    newest_failure: float = 0.0
    counted: tuple[int, int] = (0, 0)
    ignored: list[Pod] = field(default_factory=list)
    """Failures that the policy ignores: they only lose the finalizer."""
    ending: frozenset[int] = frozenset()
    """Indexes whose place is kept by a Pod that is being deleted."""
    failed_indexes: frozenset[int] = frozenset()
    failures: dict[int, int] = field(default_factory=dict)
    """How often the Pods of an index have failed, and when the last one did (`last_failures`): of Jobs with a limit per index."""
    last_failures: dict[int, float] = field(default_factory=dict)
    uncounted: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: `finished` is the verdict that the status now has, `indexes` are those of the Pods to create (None each for Jobs without indexes)."""

    indexes: list[int | None] = field(default_factory=list)
    stop: list[Pod] = field(default_factory=list)
    status: Document = field(default_factory=dict)
    again: float | None = None
    failures: dict[int, int] | None = None
    """By index, what the Pods to create are told of those before them; None for Jobs without a limit per index."""
    ignored: list[Pod] = field(default_factory=list)
    finished: str = ""
    reason: str = ""
    message: str = ""


def _index(pod: Pod) -> int | None:
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdigit() else None


def _ended_at(pod: Pod) -> float:
    ends = [
        parse_time(each.state.terminated["finishedAt"])
        for each in pod.status.container_statuses
        if each.state.terminated and each.state.terminated.get("finishedAt")
    ]
    return max(ends, default=0.0)


def ranges(numbers: Iterable[int]) -> str:
    """`1,3-5` of the numbers; "" of none."""
    parts: list[list[int]] = []
    for each in sorted(numbers):
        if parts and parts[-1][1] == each - 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    return ",".join(
        str(low) if low == high else f"{low}-{high}" if high > low + 1 else f"{low},{high}" for low, high in parts
    )


def tally(job: Job, pods: Iterable[Pod]) -> Tally:
    """Count, from the Pods that are there and from what the status has of those that were."""
    active: list[Pod] = []
    ended: list[Pod] = []
    terminating, newest = 0, 0.0
    limit, waits = job.spec.backoff_limit_per_index, waits_for_the_end(job)
    ignored: list[Pod] = []
    ending: set[int] = set()
    failed_indexes = set(parse_ranges(job.status.failed_indexes or ""))
    failures: dict[int, int] = {}
    last: dict[int, float] = {}
    written = job.status.uncounted_terminated_pods or {}
    waiting: tuple[list[str], list[str]] = ([], [])
    held: set[str] = set()
    done = set(parse_ranges(job.status.completed_indexes))
    for pod in pods:
        if not pod.terminal and pod.metadata.deletion_timestamp is None:
            active.append(pod)
            continue
        terminating += not pod.terminal
        index = _index(pod)
        if waits and not pod.terminal:
            ending |= {index} if index is not None else set()
            continue
        rule = matched(job, pod)
        ignore = rule is not None and rule.action == "Ignore"
        if pod.status.phase != "Succeeded" and not ignore:
            newest = max(newest, _ended_at(pod))
        if limit is not None and index is not None and pod.status.phase != "Succeeded":
            before = failures_before(pod)
            failures[index] = max(failures.get(index, 0), before + (not ignore))
            last[index] = max(last.get(index, 0.0), _ended_at(pod))
            if (rule is not None and rule.action == "FailIndex") or (not ignore and before >= limit):
                failed_indexes.add(index)
        if FINALIZER not in pod.metadata.finalizers:
            continue
        if ignore:
            ignored.append(pod)
            continue
        ended.append(pod)
        held.add(pod.metadata.uid)
        # A Pod that is deleted before it has ended will never succeed: it is replaced at once.
        waiting[pod.status.phase != "Succeeded"].append(pod.metadata.uid)
        if pod.status.phase == "Succeeded" and index is not None:
            done.add(index)
    gone = [len([uid for uid in written.get(part) or () if uid not in held]) for part in ("succeeded", "failed")]
    counted = (job.status.succeeded + gone[0], job.status.failed + gone[1])
    succeeded, failed = counted[0] + len(waiting[0]), counted[1] + len(waiting[1])
    if job.spec.completion_mode == "Indexed":
        done = {each for each in done if job.spec.completions is None or each < job.spec.completions}
        succeeded, counted = len(done), (len(done), counted[1])
    return Tally(
        active, terminating, succeeded, failed, frozenset(done), ended, newest, counted, ignored, frozenset(ending),
        frozenset(failed_indexes - done), failures, last, waiting,
    )  # fmt: skip


def _verdict(job: Job, count: Tally, now: float) -> tuple[str, str, str]:
    """(condition, reason, message) where the Job is over."""
    spec = job.spec
    rules = (matched(job, pod) for pod in count.ended)
    if why := next((each.message for each in rules if each is not None and each.action == "FailJob"), ""):
        return "Failed", "PodFailurePolicy", why
    if count.failed > spec.backoff_limit or restarted_too_often(job, count.active):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    started = parse_time(job.status.start_time) if job.status.start_time else now
    if spec.active_deadline_seconds is not None and not spec.suspend and now - started >= spec.active_deadline_seconds:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    if spec.completion_mode == "Indexed" and (why := success_rule(job, count.done)):
        return "Complete", "SuccessPolicy", why
    if spec.max_failed_indexes is not None and len(count.failed_indexes) > spec.max_failed_indexes:
        return "Failed", "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    if count.failed_indexes and len(count.failed_indexes | count.done) >= (spec.completions or 0):
        return "Failed", "FailedIndexes", "Job has failed indexes"
    queue = spec.completions is None
    over = count.succeeded > 0 and not count.active if queue else count.succeeded >= (spec.completions or 0)
    return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if over else ("", "", "")


def _missing(job: Job, count: Tally) -> list[int | None]:
    """The Pods that are to be started."""
    spec = job.spec
    there = len(count.active) + (count.terminating if waits_for_the_end(job) else 0)
    if spec.completion_mode == "Indexed":
        taken = {_index(pod) for pod in count.active} | count.done | count.failed_indexes | count.ending
        free = [each for each in range(spec.completions or 0) if each not in taken]
        return list(free[: max(spec.parallelism - there, 0)])
    if spec.completions is None:
        # A work queue: once one has succeeded no more are started.
        wanted = len(count.active) if count.succeeded else spec.parallelism
    else:
        wanted = min(spec.parallelism, spec.completions - count.succeeded)
    return [None] * max(wanted - there, 0)


def _delay(failures: int) -> float:
    return min(_BACKOFF * 2.0 ** max(failures - 1, 0), _MAX_BACKOFF)


def _backed_off(job: Job, count: Tally, create: list[int | None], now: float) -> tuple[list[int | None], float | None]:
    """Those that may be started now, and the seconds until another may: after failures of the Job, or of the index where it has limits for each."""
    if job.spec.backoff_limit_per_index is None:
        wait = count.newest_failure + _delay(count.failed) - now
        return ([], wait) if count.failed and create and count.newest_failure and wait > 0 else (create, None)
    waits: dict[int | None, float] = {}
    for each in create:
        if each is not None and count.failures.get(each) and count.last_failures.get(each):
            waits[each] = count.last_failures[each] + _delay(count.failures[each]) - now
    late = [wait for wait in waits.values() if wait > 0]
    return [each for each in create if waits.get(each, 0.0) <= 0], min(late, default=None)


def _excess(job: Job, count: Tally) -> list[Pod]:
    spec = job.spec
    wanted = spec.parallelism
    if spec.completions is not None:
        wanted = min(wanted, max(spec.completions - count.succeeded, 0))
    surplus = max(len(count.active) - wanted, 0)
    by_progress = sorted(count.active, key=lambda pod: (bool(pod.spec.node_name), pod.ready, pod.name))
    return by_progress[:surplus]


def decide(job: Job, count: Tally, now: float) -> Decision:
    """What to do next."""
    finished, reason, message = _verdict(job, count, now)
    again: float | None = None
    create: list[int | None] = []
    stop: list[Pod] = []
    if finished or job.spec.suspend:
        stop = list(count.active)
    else:
        stop = _excess(job, count)
        create, again = _backed_off(job, count, _missing(job, count), now)
    if job.spec.active_deadline_seconds is not None and not finished:
        begun = parse_time(job.status.start_time) if job.status.start_time else now
        left = max(begun + job.spec.active_deadline_seconds - now, 0.0) + 0.1
        again = left if again is None else min(again, left)
    status = _status(job, count, now, finished, reason, message)
    settled = finished if not any(count.uncounted) else ""
    failures = count.failures if job.spec.backoff_limit_per_index is not None else None
    return Decision(create, stop, status, again, failures, count.ignored, settled, reason, message)


def _status(job: Job, count: Tally, now: float, finished: str, reason: str, message: str) -> Document:
    was = job.status
    conditions = [_condition(each) for each in was.conditions]
    suspended = job.spec.suspend and not finished
    # The verdict is given once every end is counted.
    settled = finished if not any(count.uncounted) else ""
    found: Document = {
        "active": 0 if finished or suspended else len(count.active),
        "ready": 0 if finished or suspended else sum(pod.ready for pod in count.active),
        "terminating": count.terminating + (len(count.active) if finished or suspended else 0),
        "succeeded": count.counted[0],
        "failed": count.counted[1] + (len(count.active) if settled == "Failed" else 0),
        "uncountedTerminatedPods": {
            part: sorted(uids) for part, uids in zip(("succeeded", "failed"), count.uncounted, strict=True) if uids
        },
    }
    if not suspended:
        found["startTime"] = was.start_time or timestamp(now)
    elif was.start_time:
        found["startTime"] = None
    if job.spec.completion_mode == "Indexed":
        found["completedIndexes"] = ranges(count.done)
    if job.spec.backoff_limit_per_index is not None:
        found["failedIndexes"] = ranges(count.failed_indexes)
    was_suspended = any(each["type"] == "Suspended" and each["status"] == "True" for each in conditions)
    if suspended and not was_suspended:
        _put(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now)
    elif was_suspended and not suspended:
        _put(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
        found["startTime"] = timestamp(now)
    if settled:
        early = "SuccessCriteriaMet" if finished == "Complete" else "FailureTarget"
        for type_ in (early, settled):
            _put(conditions, type_, "True", reason, message, now)
        if settled == "Complete":
            found["completionTime"] = timestamp(now)
    found["conditions"] = conditions
    return found


def same_status(job: Job, status: Document) -> bool:
    """Whether the object has that status already."""
    was = job.status
    before = (
        was.active, was.ready, was.terminating, was.succeeded, was.failed, was.start_time, was.completed_indexes, was.failed_indexes,
        was.uncounted_terminated_pods or {}, [_condition(each) for each in was.conditions],
    )  # fmt: skip
    after = (
        status["active"], status["ready"], status["terminating"], status["succeeded"], status["failed"], status.get("startTime"),
        status.get("completedIndexes", ""), status.get("failedIndexes"), status["uncountedTerminatedPods"], status["conditions"],
    )  # fmt: skip
    return before == after


def _condition(condition: Any) -> Document:
    found = {
        "type": condition.type, "status": condition.status, "lastTransitionTime": condition.last_transition_time,
        "reason": condition.reason, "message": condition.message,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def _put(conditions: list[Document], type_: str, status: str, reason: str, message: str, now: float) -> None:
    at = timestamp(now)
    new = {
        "type": type_, "status": status, "lastProbeTime": at, "lastTransitionTime": at, "reason": reason, "message": message,
    }  # fmt: skip
    conditions[:] = [each for each in conditions if each["type"] != type_] + [new]


def pod_document(job: Job, index: int | None, failures: dict[int, int] | None = None) -> Document:
    """The Pod to POST; `failures` is by index, where that has a limit. It shares the template's parts: encode it, don't change it."""
    template = job.spec.template
    metadata = template.get("metadata") or {}
    labels, annotations = dict(metadata.get("labels") or {}), dict(metadata.get("annotations") or {})
    spec = template.get("spec") or {}
    name = f"{job.name}-"
    if index is not None:
        annotations[INDEX] = labels[INDEX] = str(index)
        if failures is not None:
            annotations[FAILURES] = str(failures.get(index, 0))
        name = f"{job.name}-{index}-"
        spec = {**spec, "hostname": f"{job.name}-{index}"}
        reference = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": reference}
        for field_ in ("containers", "initContainers"):
            if spec.get(field_):
                spec[field_] = [{**each, "env": [*(each.get("env") or ()), variable]} for each in spec[field_]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": name,
            "namespace": job.namespace,
            "labels": labels,
            **({"annotations": annotations} if annotations else {}),
            "finalizers": [*(metadata.get("finalizers") or ()), FINALIZER],
            "ownerReferences": [controller_reference(JOB, job.name, job.metadata.uid)],
        },
        "spec": spec,
    }
