"""Jobs, as rows: Pods and status in, what to start, stop and say out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cronsim import CronSimError

from core.api.views import Condition, CronJob, Job, Pod
from core.clock import timestamp
from core.controllers import jobpolicies, jobs
from core.controllers.cronjob import due, job_document

NOW = 1_000_000.0


def job(status: Any = None, **spec: Any) -> Job:
    meta = {"name": "j", "namespace": "n", "uid": "u", "generation": 1}
    spec = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "template": {"spec": {"containers": [{"name": "c"}]}},
        **spec,
    }
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status or {}}, Job)


def pod(
    name: str,
    phase: str = "Running",
    *,
    index: int | None = None,
    held: bool = True,
    code: int = 1,
    going: bool = False,
) -> Pod:
    meta: dict[str, Any] = {"name": name, "namespace": "n", "uid": name, "finalizers": [jobs.FINALIZER] if held else []}
    if index is not None:
        meta["annotations"] = {jobs.INDEX: str(index)}
    if going:
        meta["deletionTimestamp"] = timestamp(NOW)
    ended = {"terminated": {"exitCode": code if phase == "Failed" else 0, "finishedAt": timestamp(NOW)}}
    status = {
        "phase": phase,
        "containerStatuses": [{"name": "c", "state": ended if phase in ("Failed", "Succeeded") else {}}],
    }
    return msgspec.convert({"metadata": meta, "status": status}, Pod)


def decide(found: Job, *pods: Pod, now: float = NOW) -> jobs.Decision:
    return jobs.decide(found, jobs.tally(found, pods), now)


@pytest.mark.parametrize(
    ("spec", "status", "pods", "create", "stop"),
    [
        pytest.param({}, {}, [], 1, [], id="the first Pod"),
        pytest.param({"completions": 5, "parallelism": 2}, {}, [], 2, [], id="as many as may run at once"),
        pytest.param({"completions": 5, "parallelism": 3}, {"succeeded": 4}, [], 1, [], id="no more than are missing"),
        pytest.param({"parallelism": 1, "completions": 3}, {}, [pod("a"), pod("b")], 0, ["a"], id="parallelism was lowered"),
        pytest.param({"suspend": True}, {}, [pod("a")], 0, ["a"], id="suspended"),
        pytest.param({"completions": None, "parallelism": 2}, {"succeeded": 1}, [pod("a")], 0, [], id="a queue that is nearly empty"),
        pytest.param({"activeDeadlineSeconds": 5}, {"startTime": timestamp(NOW - 9)}, [pod("a")], 0, ["a"], id="too late"),
    ],
)  # fmt: skip
def test_what_to_start_and_stop(spec, status, pods, create, stop):
    found = decide(job(status, **spec), *pods)
    assert (len(found.indexes), [each.name for each in found.stop]) == (create, stop)


def test_an_end_is_written_down_then_released_then_counted():
    first = decide(job(), pod("a", "Succeeded"))
    assert first.status["uncountedTerminatedPods"] == {"succeeded": ["a"]} and first.status["succeeded"] == 0
    assert not first.finished and not first.indexes, "it is known to have succeeded"
    again = decide(job(first.status), pod("a", "Succeeded"))
    assert again.status["uncountedTerminatedPods"] == {"succeeded": ["a"]} and again.status["succeeded"] == 0, (
        "not counted twice"
    )
    for left in ([pod("a", "Succeeded", held=False)], []):
        last = decide(job(first.status), *left)
        assert last.status["succeeded"] == 1 and last.finished == "Complete"
        assert [each["type"] for each in last.status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
        assert last.status["completionTime"] == timestamp(NOW)


def test_failures_back_off_and_end_the_job():
    once = decide(job(), pod("a", "Failed"), now=NOW + 1)
    assert not once.indexes and once.again == pytest.approx(9.0), "ten seconds after the first failure"
    assert len(decide(job(), pod("a", "Failed"), now=NOW + 11).indexes) == 1
    over = decide(job({"failed": 0, "uncountedTerminatedPods": {"failed": ["a"]}}, backoffLimit=0))
    assert (over.finished, over.reason) == ("Failed", "BackoffLimitExceeded")


def test_indexes():
    spec = {"completions": 4, "parallelism": 2, "completionMode": "Indexed"}
    found = decide(job({"completedIndexes": "0"}, **spec), pod("b", "Succeeded", index=2), pod("c", index=1))
    assert found.indexes == [3] and found.status["completedIndexes"] == "0,2"
    document = jobs.pod_document(job(**spec), 3)
    assert document["metadata"]["generateName"] == "j-3-" and document["spec"]["hostname"] == "j-3"
    assert document["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    assert jobs.FINALIZER in document["metadata"]["finalizers"]


@pytest.mark.parametrize("numbers", [[], [0], [0, 1], [0, 1, 2, 3], [1, 3, 4, 5, 9]])
def test_ranges_round_trip(numbers):
    assert sorted(jobs.parse_ranges(jobs.ranges(numbers))) == numbers


def test_a_failure_policy_ends_it_at_once():
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    found = decide(job(podFailurePolicy={"rules": [rule]}), pod("a", "Failed", code=42))
    assert found.reason == "PodFailurePolicy" and "exit code 42" in found.message
    assert not decide(job(podFailurePolicy={"rules": [rule]}), pod("a", "Failed", code=1)).reason


def test_suspension_is_a_condition():
    status = decide(job(suspend=True)).status
    assert [(each["type"], each["status"]) for each in status["conditions"]] == [
        ("Suspended", "True")
    ] and "startTime" not in status
    resumed = decide(job({"conditions": status["conditions"]})).status
    assert [(each["type"], each["status"]) for each in resumed["conditions"]] == [("Suspended", "False")]


def cron(schedule: str, last: float, **spec: Any) -> CronJob:
    meta = {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": timestamp(last)}
    return msgspec.convert({"metadata": meta, "spec": {"schedule": schedule, **spec}}, CronJob)


HOUR = 3600.0
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("schedule", "last", "now", "spec", "scheduled", "missed"),
    [
        ("0 * * * *", NOON, NOON + 60, {}, None, 0),
        ("0 * * * *", NOON, NOON + HOUR, {}, NOON + HOUR, 1),
        ("0 * * * *", NOON, NOON + HOUR + 5, {}, NOON + HOUR, 1),
        ("0 * * * *", NOON, NOON + 3 * HOUR + 5, {}, NOON + 3 * HOUR, 3),
        ("0 * * * *", NOON, NOON + HOUR + 100, {"startingDeadlineSeconds": 60}, None, 0),
        ("@hourly", NOON, NOON + HOUR, {}, NOON + HOUR, 1),
        ("0 14 * * *", NOON, NOON + HOUR, {"timeZone": "Europe/Berlin"}, NOON + HOUR, 1),
        ("@every 90s", NOON, NOON + 200, {}, NOON + 180, 2),
        ("* * * * *", NOON, NOON + 1000 * 60, {}, NOON + 1000 * 60, 101),
    ],
)
def test_what_is_due(schedule, last, now, spec, scheduled, missed):
    found = due(cron(schedule, last, **spec), now)
    assert (found.scheduled, found.missed) == (scheduled, missed)
    assert found.again is not None and found.again > 0


def test_a_schedule_that_nobody_can_read():
    with pytest.raises(ValueError):
        due(cron("61 * * * *", NOON), NOON + 1)


def test_a_day_that_never_comes_is_said_by_the_controller():
    with pytest.raises(ValueError, match="Bad day-of-month") as found:
        due(cron("59 23 31 2 *", NOON), NOON + 1)
    assert isinstance(found.value.__cause__, CronSimError)


def test_the_name_of_a_job_says_its_time():
    document = job_document(cron("@hourly", NOON, jobTemplate={"spec": {"template": {}}}), NOON)
    assert document["metadata"]["name"] == f"c-{int(NOON) // 60}"
    assert document["metadata"]["annotations"] == {
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T12:00:00Z"
    }


# Limits per index, failure and success policies


def indexed(status: Any = None, **spec: Any) -> Job:
    return job(
        status, **{"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": 1000, **spec}
    )


def failed(name: str, index: int, before: int = 0, code: int = 1, at: float = NOW) -> Pod:
    found = pod(name, "Failed", index=index, code=code)
    found.metadata.annotations[jobpolicies.FAILURES] = str(before)
    found.status.container_statuses[0].state.terminated = {"exitCode": code, "finishedAt": timestamp(at)}
    return found


def test_an_index_is_tried_again_after_its_own_delay_and_told_how_often_it_failed():
    found = indexed(backoffLimitPerIndex=2)
    soon = decide(found, failed("a", 0), pod("b", index=1), pod("c", "Succeeded", index=2))
    assert (soon.indexes, soon.again) == ([], 10.0) and soon.status["failedIndexes"] == ""
    later = decide(found, failed("a", 0, 1), pod("b", index=1), pod("c", "Succeeded", index=2), now=NOW + 20)
    assert later.indexes == [0] and later.failures == {0: 2}
    made = jobs.pod_document(found, 0, later.failures)
    assert made["metadata"]["annotations"][jobpolicies.FAILURES] == "2"
    assert jobpolicies.FAILURES not in jobs.pod_document(indexed(), 0)["metadata"]["annotations"]


def test_an_index_that_failed_too_often_lets_the_others_end_and_fails_the_job_then():
    found = indexed(backoffLimitPerIndex=1)
    running = decide(found, failed("a", 0, 1), pod("b", index=1), pod("c", "Succeeded", index=2), now=NOW + 99)
    assert (running.indexes, running.finished) == ([], "") and running.status["failedIndexes"] == "0"
    over = decide(indexed({**running.status, "uncountedTerminatedPods": {}}, backoffLimitPerIndex=1), pod("b", "Succeeded", index=1, held=False), pod("c", "Succeeded", index=2, held=False))  # fmt: skip
    assert over.reason == "" and not over.stop, "index 1 isn't counted without its finalizer, nor started again"
    status = {**running.status, "uncountedTerminatedPods": {}, "completedIndexes": "1,2"}
    last = decide(indexed(status, backoffLimitPerIndex=1))
    assert (last.finished, last.reason, last.message) == ("Failed", "FailedIndexes", "Job has failed indexes")


def test_too_many_failed_indexes_end_the_job_at_once():
    status = {"failedIndexes": "0,2"}
    found = decide(indexed(status, backoffLimitPerIndex=0, maxFailedIndexes=1), pod("b", index=1))
    assert (found.finished, found.reason) == ("Failed", "MaxFailedIndexesExceeded")
    assert [each.name for each in found.stop] == ["b"]
    assert not decide(indexed({"failedIndexes": "0"}, backoffLimitPerIndex=0, maxFailedIndexes=1), pod("b", index=1)).finished  # fmt: skip


RULES = [
    {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3]}},
    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [4]}},
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
]


def test_what_a_failure_policy_makes_of_failures():
    found = indexed(backoffLimitPerIndex=5, podFailurePolicy={"rules": RULES})
    index = decide(found, failed("a", 1, code=3))
    assert index.status["failedIndexes"] == "1" and 1 not in index.indexes
    ended = decide(found, failed("a", 1, code=4))
    assert ended.message == "Container c for pod n/a failed with exit code 4 matching FailJob rule at index 1"
    disrupted = failed("a", 1)
    disrupted.status.conditions = [Condition(type="DisruptionTarget", status="True")]
    ignored = decide(found, disrupted, now=NOW + 99)
    assert [each.name for each in ignored.ignored] == ["a"] and ignored.status["uncountedTerminatedPods"] == {}
    assert ignored.indexes == [0, 1, 2] and ignored.failures == {1: 0}
    counted = decide(found, failed("a", 1, code=9), now=NOW + 99)
    assert counted.status["uncountedTerminatedPods"] == {"failed": ["a"]} and counted.failures == {1: 1}


def test_a_pod_that_is_deleted_keeps_its_place_until_its_end_where_that_is_asked_for():
    going = pod("a", index=0, going=True)
    kept = decide(indexed(podReplacementPolicy="Failed"), going)
    assert kept.indexes == [1, 2] and kept.status["uncountedTerminatedPods"] == {} and kept.status["terminating"] == 1
    assert decide(indexed(), going, now=NOW + 99).indexes == [0, 1, 2]


@pytest.mark.parametrize(
    ("rules", "done", "why"),
    [
        ([{"succeededIndexes": "0,2"}], [0], ""),
        ([{"succeededIndexes": "0,2"}], [0, 2], "Matched rules at index 0"),
        ([{"succeededIndexes": "0-2", "succeededCount": 1}], [1], "Matched rules at index 0"),
        ([{"succeededIndexes": "0"}, {"succeededCount": 2}], [1, 2], "Matched rules at index 1"),
    ],
)
def test_indexes_that_are_enough(rules, done, why):
    pods = [pod(f"p{each}", "Succeeded" if each in done else "Running", index=each) for each in range(3)]
    found = decide(indexed(successPolicy={"rules": rules}), *pods)
    assert (found.reason, found.message) == (("SuccessPolicy", why) if why else ("", ""))
    assert bool(found.stop) == bool(why)


def test_restarts_in_place_count_against_the_limit():
    found = job(backoffLimit=2, template={"spec": {"containers": [{"name": "c"}], "restartPolicy": "OnFailure"}})
    running = pod("a")
    running.status.container_statuses[0].restart_count = 1
    assert not decide(found, running).reason
    running.status.container_statuses[0].restart_count = 2
    assert decide(found, running).reason == "BackoffLimitExceeded"
