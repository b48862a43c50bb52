"""The CronJob controller: Jobs at the times of a schedule. Which time is due is decided by `due`, a pure function.

After https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/; times in seconds since the epoch.
"""

from __future__ import annotations

import logging
import re
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

from core.api.kinds import CRON_JOB, JOB
from core.api.meta import Document, controller_reference
from core.api.views import CronJob, Job
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import parse_time, timestamp, wall
from core.controllers.adoption import by_controller
from core.errors import AlreadyExists, ApiError, NotFound

__all__ = ["CronJobController", "Due", "due", "job_document"]

log = logging.getLogger(__name__)

_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_MISSED_LIMIT = 100
_SLACK = 0.1
_SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Due:
    """`scheduled` is the newest time that a Job is to be made for, None where none is; `again` when to look again."""

    scheduled: float | None = None
    again: float | None = None
    missed: int = 0


def _zone(name: str | None) -> tzinfo:
    return zoneinfo.ZoneInfo(name) if name else UTC


def _seconds(schedule: str) -> float:
    """Of `@every DURATION`; 0 where the schedule is another one. ValueError where it is less than a second."""
    if not schedule.startswith("@every "):
        return 0.0
    found = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s)", schedule))
    if found < 1:
        raise ValueError(f"can't be followed: {schedule}")
    return found


def _walk(schedule: str, zone: str | None, start: float, *, back: bool = False) -> Iterator[float]:
    """The times after `start`, or before it. ValueError where the schedule can't be read."""
    try:
        at = datetime.fromtimestamp(start, _zone(zone))
        for each in CronSim(_MACROS.get(schedule, schedule), at, reverse=back):
            yield each.timestamp()
    except (CronSimError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError(str(error)) from error


def due(cron: CronJob, now: float) -> Due:
    """What the schedule says at `now`. ValueError where it can't be read.

    Of several times that were missed only the newest counts, and none that is more than `startingDeadlineSeconds` ago.
    """
    spec = cron.spec
    since = parse_time(cron.status.last_schedule_time or cron.metadata.creation_timestamp or timestamp(now))
    if spec.starting_deadline_seconds is not None:
        since = max(since, now - spec.starting_deadline_seconds)
    if step := _seconds(spec.schedule):
        missed = max(int((now - since) // step), 0)
        newest = since + missed * step
        return Due(newest if missed else None, newest + step - now + _SLACK, missed)
    upcoming = next(_walk(spec.schedule, spec.time_zone, now), None)
    again = None if upcoming is None else upcoming - now + _SLACK
    # Looking back starts a second later, so that a time that is just now is seen.
    newest = next(_walk(spec.schedule, spec.time_zone, now + 1, back=True), since)
    if newest <= since or newest > now:
        return Due(None, again)
    missed = 0
    for each in _walk(spec.schedule, spec.time_zone, since):
        if each > now or missed > _MISSED_LIMIT:
            break
        missed += 1
    return Due(newest, again, missed)


def job_document(cron: CronJob, scheduled: float) -> Document:
    """The Job of one time; its name says which, so that a time never has two."""
    template = cron.spec.job_template
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), _SCHEDULED_AT: timestamp(scheduled)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cron.name}-{int(scheduled) // 60}",
            "namespace": cron.namespace,
            "labels": dict(metadata.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [controller_reference(CRON_JOB, cron.name, cron.metadata.uid)],
        },
        "spec": template.get("spec") or {},
    }


class CronJobController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._crons: Informer[CronJob] = informers.watch(CRON_JOB, CronJob)
        self._jobs: Informer[Job] = informers.watch(JOB, Job)
        self._jobs.add_index("owner", by_controller)
        self._recorder = Recorder(client, component="cronjob-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("cronjob", self.sync, queue=self.queue, workers=2)
        self._crons.add_handler(self.on_cron)
        self._jobs.add_handler(self.on_job)

    async def start(self) -> None:
        await self._crons.wait_synced()
        await self._jobs.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_cron(self, old: CronJob | None, new: CronJob | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def on_job(self, old: Job | None, new: Job | None) -> None:
        found = new or old
        controller = found.metadata.controller if found is not None else None
        if found is not None and controller is not None and controller.kind == CRON_JOB.kind:
            self.queue.add(f"{found.namespace}/{controller.name}")

    async def sync(self, key: str) -> float | None:
        """One reconcile; seconds until the next time of the schedule."""
        found = self._crons.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            return None
        mine = self._jobs.by_index("owner", found.metadata.uid)
        await self._forget_old(found, mine)
        active = [each for each in mine if not each.finished and each.metadata.deletion_timestamp is None]
        started: float | None = None
        again: float | None = None
        if not found.spec.suspend:
            try:
                plan = due(found, self._clock())
            except ValueError as error:
                never = isinstance(error.__cause__, CronSimError)
                reason = "InvalidSchedule" if never else "UnparseableSchedule"
                text = f"{'invalid' if never else 'unparseable'} schedule: {found.spec.schedule} : {error}"
                self._recorder.event(reference(CRON_JOB, found), "Warning", reason, text)
                plan = Due()
            again = plan.again
            if plan.missed > _MISSED_LIMIT:
                text = f"too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew: {plan.missed}"
                self._recorder.event(reference(CRON_JOB, found), "Warning", "TooManyMissedTimes", text)
            if plan.scheduled is not None and await self._may_start(found, active):
                active += await self._start(found, plan.scheduled)
                started = plan.scheduled
        await self._write_status(found, active, mine, started)
        return again

    async def _may_start(self, found: CronJob, active: list[Job]) -> bool:
        policy = found.spec.concurrency_policy
        if policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._recorder.event(reference(CRON_JOB, found), "Normal", "JobAlreadyActive", text)
            return False
        if policy == "Replace":
            for each in active:
                await self._delete(found, each)
            active.clear()
        return True

    async def _start(self, found: CronJob, scheduled: float) -> list[Job]:
        document = job_document(found, scheduled)
        try:
            made = await self._client.create(JOB, document, found.namespace, as_=Job)
        except AlreadyExists:
            return []
        except ApiError as error:
            text = f"Error creating job: {error.message}"
            self._recorder.event(reference(CRON_JOB, found), "Warning", "FailedCreate", text)
            raise
        self._recorder.event(reference(CRON_JOB, found), "Normal", "SuccessfulCreate", f"Created job {made.name}")
        return [made]

    async def _forget_old(self, found: CronJob, mine: Sequence[Job]) -> None:
        for end, limit in (
            ("Complete", found.spec.successful_jobs_history_limit),
            ("Failed", found.spec.failed_jobs_history_limit),
        ):
            ended = sorted(
                (each for each in mine if each.finished == end), key=lambda each: each.metadata.creation_timestamp or ""
            )
            for each in ended[: max(len(ended) - limit, 0)]:
                await self._delete(found, each)

    async def _delete(self, found: CronJob, job: Job) -> None:
        try:
            await self._client.delete(JOB, job.name, job.namespace, propagation="Background", uid=job.metadata.uid)
        except NotFound:
            return
        self._recorder.event(reference(CRON_JOB, found), "Normal", "SuccessfulDelete", f"Deleted job {job.name}")

    async def _write_status(
        self, found: CronJob, active: Sequence[Job], mine: Sequence[Job], started: float | None
    ) -> None:
        references = [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": each.name,
                "namespace": each.namespace,
                "uid": each.metadata.uid,
            }
            for each in sorted(active, key=lambda each: each.name)
        ]
        last = timestamp(started) if started is not None else found.status.last_schedule_time
        ends = [
            each.status.completion_time for each in mine if each.finished == "Complete" and each.status.completion_time
        ]
        success = max(
            [*ends, *([found.status.last_successful_time] if found.status.last_successful_time else [])], default=None
        )
        was = found.status
        known = [each.get("uid") for each in was.active]
        if ([each["uid"] for each in references], last, success) == (
            known,
            was.last_schedule_time,
            was.last_successful_time,
        ):
            return
        status = {"active": references or None, "lastScheduleTime": last, "lastSuccessfulTime": success}
        try:
            await self._client.patch(CRON_JOB, found.name, found.namespace, {"status": status}, subresource="status")
        except NotFound:
            log.debug("%s is gone, its status needn't be written", found.key)
