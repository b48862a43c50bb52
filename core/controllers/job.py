"""The Job controller. What to do is decided in `core.controllers.jobs`.

A Pod keeps the finalizer `batch.kubernetes.io/job-tracking` until its end is written down in the Job's status, so none is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from core.api.kinds import JOB, POD
from core.api.views import Job, Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import monotonic, parse_time, wall
from core.controllers import jobs
from core.controllers.adoption import Adoption, by_controller, parse_selector
from core.controllers.expectations import Expectations
from core.errors import ApiError, NotFound

__all__ = ["JobController"]

log = logging.getLogger(__name__)

CONTROLLER = "kubernetes.io/job-controller"
"""The value of `spec.managedBy` that is this controller; Jobs with another are somebody else's."""

WORKERS = 5


class JobController:
    """`clock` gives seconds since the epoch."""

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._jobs: Informer[Job] = informers.watch(JOB, Job)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._pods.add_index("owner", by_controller)
        self._adoption: Adoption[Pod] = Adoption(client, JOB, POD)
        self._expected = Expectations()
        self._recorder = Recorder(client, component="job-controller")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("job", self.sync, queue=self.queue, workers=WORKERS)
        self._jobs.add_handler(self.on_job)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._jobs.wait_synced()
        await self._pods.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_job(self, old: Job | None, new: Job | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add(found.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        for key in self._expected.observe(JOB, old, new):
            self.queue.add(key)

    # The work

    async def sync(self, key: str) -> float | None:
        """One reconcile; seconds after which the Job must be looked at again."""
        found = self._jobs.get(key)
        if found is not None and found.spec.managed_by not in (None, CONTROLLER):
            return None
        if found is None:
            self._expected.forget(key)
            await self._let_go_of_orphans(key)
            return None
        uid = found.metadata.uid
        pods = self._pods.by_index("owner", uid)
        if found.metadata.deletion_timestamp is not None:
            await self._release(pods)
            return None
        if found.finished:
            # Every end is counted: what still has the finalizer has it for no reason.
            await self._release([pod for pod in pods if pod.terminal or pod.metadata.deletion_timestamp is not None])
            return await self._expire(found)
        trusted = self._expected.satisfied(key, monotonic())
        orphans = self._pods.by_index("owner", f"{found.namespace}/")
        owned = await self._adoption.claim(found, parse_selector(found.spec.selector), [*pods, *orphans])
        decision = jobs.decide(found, jobs.tally(found, owned), self._clock())
        if trusted and (decision.indexes or decision.stop):
            await self._manage(key, found, decision)
        await self._write_status(found, decision)
        written = found.status.uncounted_terminated_pods or {}
        known = {*(written.get("succeeded") or ()), *(written.get("failed") or ())}
        await self._release([*decision.ignored, *(pod for pod in owned if pod.metadata.uid in known)])
        if decision.finished:
            kind = "Normal" if decision.finished == "Complete" else "Warning"
            reason = "Completed" if decision.finished == "Complete" else decision.reason
            text = "Job completed" if decision.finished == "Complete" else decision.message
            self._recorder.event(reference(JOB, found), kind, reason, text)
        return decision.again

    async def _manage(self, key: str, found: Job, decision: jobs.Decision) -> None:
        if decision.stop:
            self._expected.expect(key, monotonic(), deletions=[pod.metadata.uid for pod in decision.stop])
            await asyncio.gather(*(self._stop(key, pod) for pod in decision.stop))
        if decision.indexes:
            self._expected.expect(key, monotonic(), creations=len(decision.indexes))
            outcomes = await asyncio.gather(
                *(self._create(key, found, index, decision.failures) for index in decision.indexes),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _create(self, key: str, found: Job, index: int | None, failures: dict[int, int] | None) -> None:
        try:
            pod = await self._client.create(POD, jobs.pod_document(found, index, failures), found.namespace)
        except BaseException as error:
            self._expected.created(key)
            if isinstance(error, ApiError):
                message = f"Error creating: {error.message}"
                self._recorder.event(reference(JOB, found), "Warning", "FailedCreate", message)
            raise
        message = f"Created pod: {pod['metadata']['name']}"
        self._recorder.event(reference(JOB, found), "Normal", "SuccessfulCreate", message)

    async def _stop(self, key: str, pod: Pod) -> None:
        try:
            await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except NotFound:
            self._expected.deleted(key, pod.metadata.uid)

    async def _release(self, pods: Sequence[Pod]) -> None:
        """Take the tracking finalizer from Pods."""
        for pod in pods:
            if jobs.FINALIZER not in pod.metadata.finalizers:
                continue
            left = [each for each in pod.metadata.finalizers if each != jobs.FINALIZER]
            patch = {"metadata": {"uid": pod.metadata.uid, "finalizers": left or None}}
            try:
                await self._client.patch(POD, pod.name, pod.namespace, patch)
            except NotFound:
                log.debug("%s is gone already", pod.key)

    async def _let_go_of_orphans(self, key: str) -> None:
        """The Job is gone: its Pods must not be held by what nobody counts any more."""
        namespace, _, name = key.partition("/")
        held = [
            pod
            for pod in self._pods.values()
            if pod.namespace == namespace
            and jobs.FINALIZER in pod.metadata.finalizers
            and pod.metadata.controller is not None
            and (pod.metadata.controller.kind, pod.metadata.controller.name) == (JOB.kind, name)
        ]
        await self._release(held)

    async def _write_status(self, found: Job, decision: jobs.Decision) -> None:
        if jobs.same_status(found, decision.status):
            return
        # Numbers that are added to what the cache shows: where that is out of date the write must fail.
        metadata = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version}
        patch = {"metadata": metadata, "status": decision.status}
        try:
            await self._client.patch(JOB, found.name, found.namespace, patch, subresource="status")
        except NotFound:
            log.debug("%s is gone, its status needn't be written", found.key)

    async def _expire(self, found: Job) -> float | None:
        """Delete a finished Job once its time is over; seconds until then."""
        ttl = found.spec.ttl_seconds_after_finished
        if ttl is None:
            return None
        ends = [each.last_transition_time for each in found.status.conditions if each.type == found.finished]
        left = (parse_time(ends[0]) if ends and ends[0] else self._clock()) + ttl - self._clock()
        if left > 0:
            return left
        try:
            await self._client.delete(
                JOB, found.name, found.namespace, propagation="Background", uid=found.metadata.uid
            )
        except NotFound:
            log.debug("%s is gone already", found.key)
        return None
