"""What a Job says of Pods that fail and of indexes that are enough, the pure part: failure policy, limits per index, success policy.

After https://kubernetes.io/docs/concepts/workloads/controllers/job/ and k8s.io/kubernetes/pkg/controller/job (pod_failure_policy.go, success_policy.go).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from core.api.meta import Document
from core.api.views import Job, Pod

__all__ = [
    "FAILURES",
    "Matched",
    "failures_before",
    "matched",
    "parse_ranges",
    "restarted_too_often",
    "success_rule",
    "waits_for_the_end",
]

FAILURES = "batch.kubernetes.io/job-index-failure-count"
"""Annotation of a Pod: how often Pods of its index have failed before it."""


class Matched(NamedTuple):
    """The rule that a failed Pod matches: `action` is Count, FailIndex, FailJob or Ignore."""

    action: str
    message: str


def parse_ranges(text: str) -> frozenset[int]:
    """The numbers of `1,3-5`."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        found.update(range(int(low), int(high if dash else low) + 1))
    return frozenset(found)


def matched(job: Job, pod: Pod) -> Matched | None:
    """The first rule of the failure policy that the Pod matches; None where none does, or it hasn't failed."""
    if pod.status.phase != "Failed":
        return None
    for rule in (job.spec.pod_failure_policy or {}).get("rules") or ():
        action = str(rule.get("action", ""))
        if action == "FailIndex" and job.spec.backoff_limit_per_index is None:
            continue
        if why := _matches(rule, pod):
            return Matched(action, f"{why} matching {action} rule at index {_index_of(job, rule)}")
    return None


def _index_of(job: Job, rule: Any) -> int:
    return list((job.spec.pod_failure_policy or {}).get("rules") or ()).index(rule)


def _matches(rule: Document, pod: Pod) -> str:
    codes = rule.get("onExitCodes")
    if codes is not None:
        for container in (*pod.status.container_statuses, *pod.status.init_container_statuses):
            code = (container.state.terminated or {}).get("exitCode")
            named = codes.get("containerName") in (None, "", container.name)
            inside = code in (codes.get("values") or ())
            if named and code and inside == (codes.get("operator") == "In"):
                return f"Container {container.name} for pod {pod.key} failed with exit code {code}"
        return ""
    for wanted in rule.get("onPodConditions") or ():
        for each in pod.status.conditions:
            if each.type == wanted.get("type") and each.status == wanted.get("status", "True"):
                return f"Pod {pod.key} has condition {each.type}"
    return ""


def failures_before(pod: Pod) -> int:
    """How often Pods of its index had failed when this one was made."""
    text = pod.metadata.annotations.get(FAILURES, "")
    return int(text) if text.isdigit() else 0


def waits_for_the_end(job: Job) -> bool:
    """Whether a Pod that is being deleted keeps its place, and counts as failed only once it has ended."""
    return job.spec.pod_failure_policy is not None or job.spec.pod_replacement_policy == "Failed"


def restarted_too_often(job: Job, pods: Collection[Pod]) -> bool:
    """Whether containers that are started again in their Pods have used up the Job's limit."""
    if (job.spec.template.get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        each.restart_count
        for pod in pods
        for each in (*pod.status.container_statuses, *pod.status.init_container_statuses)
    )
    return restarts > 0 if job.spec.backoff_limit == 0 else restarts >= job.spec.backoff_limit


def success_rule(job: Job, done: Collection[int]) -> str:
    """What the success policy says once the indexes `done` have succeeded: the message of the verdict; "" where they aren't enough."""
    for number, rule in enumerate((job.spec.success_policy or {}).get("rules") or ()):
        named, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        wanted = parse_ranges(named) if named is not None else None
        reached = len(done if wanted is None else wanted & set(done))
        if reached >= (count if count is not None else len(wanted or ())):
            return f"Matched rules at index {number}"
    return ""
