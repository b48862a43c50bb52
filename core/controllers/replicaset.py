"""The ReplicaSet controller: as many Pods as a ReplicaSet says. What to do is decided in `core.controllers.replicas`.

`core.controllers.replicationcontroller` is the same for the kind that ReplicaSets came from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from core import trace
from core.api.kinds import POD, REPLICA_SET, Kind
from core.api.meta import Document, controller_reference
from core.api.views import Pod, ReplicaSet
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import monotonic, wall
from core.controllers import replicas
from core.controllers.expectations import Expectations
from core.errors import ApiError, NotFound

__all__ = ["ReplicaSetController"]

log = logging.getLogger(__name__)

WORKERS = 16
STATUS_DELAY = 0.05
"""Seconds in which changes that only the status shows come together to one write of it: who waits for a Pod has better use for the processor."""
STATUS_EACH = 0.0002
"""And so many more for each Pod of the set: a look at it costs as much more."""


class ReplicaSetController:
    """`clock` gives seconds since the epoch; `kind` is read as `view`."""

    kind: Kind = REPLICA_SET
    view: type[ReplicaSet] = ReplicaSet
    component = "replicaset-controller"

    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._sets: Informer[ReplicaSet] = informers.watch(self.kind, self.view)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._pods.add_index("controller", _controller)
        self._sets.add_index("namespace", lambda found: [found.namespace])
        self._expected = Expectations()
        self._untrusted: set[str] = set()
        """Sets that were looked at while the cache didn't show yet what was asked for: they are looked at again once it does."""
        self._recorder = Recorder(client, component=self.component)
        self.queue = WorkQueue()
        self._reconciler = Reconciler(self.kind.singular, self.sync, queue=self.queue, workers=WORKERS)
        self._sets.add_handler(self.on_replica_set)
        self._pods.add_handler(self.on_pod)

    async def start(self) -> None:
        await self._sets.wait_synced()
        await self._pods.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    # Events only add keys.

    def on_replica_set(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._expected.forget(old.key)
        found = new or old
        if old is not None and new is not None and _same_wish(old, new):
            self.queue.add_after(new.key, _delay(new))
        elif found is not None:
            self.queue.add(found.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        before, after = self._owner(old), self._owner(new)
        asked = False
        if before is not None and old is not None and (new is None or new.metadata.deletion_timestamp is not None):
            asked = self._expected.deleted(before, old.metadata.uid) or old.metadata.deletion_timestamp is not None
        if before is not None and before != after:
            self._recount(before, late=asked)
        if new is None:
            return
        if after is None:
            if new.metadata.controller is None:
                self._offer(new)
            return
        if old is None:
            self._expected.created(after)
        # A Pod on its way to readiness, or to an end that was asked for, changes but what the status counts.
        going = new.metadata.deletion_timestamp is not None or new.terminal
        self._recount(after, late=before in (None, after) and (asked or not going))

    def _recount(self, key: str, *, late: bool) -> None:
        """Look at the set again: `late` where only its status is to change."""
        if late and not (key in self._untrusted and self._expected.satisfied(key, monotonic())):
            self.queue.add_after(key, _delay(self._sets.get(key)))
        else:
            self.queue.add(key)

    def _owner(self, pod: Pod | None) -> str | None:
        """The key of the ReplicaSet that controls the Pod, where it is known by that uid."""
        controller = pod.metadata.controller if pod is not None else None
        if pod is None or controller is None or controller.kind != self.kind.kind:
            return None
        key = f"{pod.namespace}/{controller.name}"
        found = self._sets.get(key)
        # A Pod may be seen before the set that made it; its creation must count all the same.
        return key if found is None or found.metadata.uid == controller.uid else None

    def _offer(self, pod: Pod) -> None:
        """An orphan: the sets that it matches may adopt it."""
        for found in self._sets.by_index("namespace", pod.namespace):
            selector = replicas.selector_of(found)
            if selector is not None and selector.matches(pod.metadata.labels):
                self.queue.add(found.key)

    # The work

    async def sync(self, key: str) -> float | None:
        """One reconcile of `namespace/name`; seconds until a Pod becomes available, where that is to come."""
        found = self._sets.get(key)
        self._untrusted.discard(key)
        if found is None:
            self._expected.forget(key)
            return None
        trusted = self._expected.satisfied(key, monotonic())
        if not trusted:
            self._untrusted.add(key)
        uid = found.metadata.uid
        claim = replicas.claim(
            found, [*self._pods.by_index("controller", uid), *self._pods.by_index("controller", f"{found.namespace}/")]
        )
        owned = list(claim.owned)
        failure: ApiError | None = None
        text: str | None = None
        try:
            await self._release(found, claim.release)
            owned += await self._adopt(found, claim.adopt)
            if trusted and await self._manage(key, found, owned):
                return _delay(found)
        except _Failed as error:
            failure, text = error.error, f"{error.reason}: {error.error.message}"
        await self._write_status(found, owned, text)
        if failure is not None:
            raise failure
        now = self._clock()
        wait = [replicas.available_in(pod, found.spec.min_ready_seconds, now) for pod in owned]
        return min((each for each in wait if each), default=None)

    async def _manage(self, key: str, found: ReplicaSet, owned: Sequence[Pod]) -> bool:
        """Create or delete what is to be; whether there was anything."""
        plan = replicas.plan(found, owned)
        if plan.create:
            self._expected.expect(key, monotonic(), creations=plan.create)
            document = replicas.pod_document(found, self.kind)
            await self._create(key, found, document, plan.create)
        elif plan.delete:
            self._expected.expect(key, monotonic(), deletions=[pod.metadata.uid for pod in plan.delete])
            errors = await _together([lambda pod=pod: self._delete(key, found, pod) for pod in plan.delete])  # type: ignore[misc]
            if errors:
                raise _Failed("FailedDelete", errors[0])
        return bool(plan.create or plan.delete)

    async def _create(self, key: str, found: ReplicaSet, document: Document, count: int) -> None:
        """In batches of 1, 2, 4 ...: where the first is refused (quota, admission), the rest isn't tried."""
        done, size = 0, 1
        while done < count:
            batch = min(size, count - done)
            errors = await _together([lambda: self._create_one(key, found, document)] * batch)
            done += batch
            if errors:
                self._expected.created(key, count - done)
                raise _Failed("FailedCreate", errors[0])
            size *= 2

    async def _create_one(self, key: str, found: ReplicaSet, document: Document) -> None:
        try:
            pod = await self._client.create(POD, document, found.namespace)
        except BaseException as error:
            self._expected.created(key)
            if isinstance(error, ApiError):
                message = f"Error creating: {error.message}"
                self._recorder.event(reference(self.kind, found), "Warning", "FailedCreate", message)
            raise
        name = pod["metadata"]["name"]
        if trace.ON:
            trace.mark("created", f"{found.namespace}/{name}")
        self._recorder.event(reference(self.kind, found), "Normal", "SuccessfulCreate", f"Created pod: {name}")

    async def _delete(self, key: str, found: ReplicaSet, pod: Pod) -> None:
        try:
            await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except NotFound:
            self._expected.deleted(key, pod.metadata.uid)
        except BaseException as error:
            self._expected.deleted(key, pod.metadata.uid)
            if isinstance(error, ApiError):
                message = f"Error deleting: {error.message}"
                self._recorder.event(reference(self.kind, found), "Warning", "FailedDelete", message)
            raise
        else:
            message = f"Deleted pod: {pod.name}"
            self._recorder.event(reference(self.kind, found), "Normal", "SuccessfulDelete", message)

    async def _adopt(self, found: ReplicaSet, pods: Sequence[Pod]) -> list[Pod]:
        """Make orphans ours, once the API has confirmed that the set is still there and not on its way out."""
        if not pods:
            return []
        current = await self._client.get(self.kind, found.name, found.namespace, as_=self.view)
        if current.metadata.uid != found.metadata.uid or current.metadata.deletion_timestamp is not None:
            return []
        mine = controller_reference(self.kind, found.name, found.metadata.uid)
        return [pod for pod in pods if await self._write_owners(pod, [*_references(pod), mine])]

    async def _release(self, found: ReplicaSet, pods: Sequence[Pod]) -> None:
        for pod in pods:
            await self._write_owners(pod, [each for each in _references(pod) if each["uid"] != found.metadata.uid])

    async def _write_owners(self, pod: Pod, owners: list[Document]) -> bool:
        meta = pod.metadata
        patch = {
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners or None}
        }
        try:
            await self._client.patch(POD, pod.name, pod.namespace, patch)
        except NotFound:
            return False
        return True

    async def _write_status(self, found: ReplicaSet, owned: Sequence[Pod], failure: str | None) -> None:
        status = replicas.new_status(found, owned, self._clock(), failure)
        if status is None:
            return
        patch = {"metadata": {"uid": found.metadata.uid}, "status": status}
        try:
            await self._client.patch(self.kind, found.name, found.namespace, patch, subresource="status")
        except NotFound:
            log.debug("%s is gone, its status needn't be written", found.key)


class _Failed(Exception):
    def __init__(self, reason: str, error: ApiError) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error


def _delay(found: ReplicaSet | None) -> float:
    return STATUS_DELAY + (STATUS_EACH * found.spec.replicas if found is not None else 0.0)


def _same_wish(old: ReplicaSet, new: ReplicaSet) -> bool:
    """Whether a change left alone what the set asks for: its status changed, or its annotations."""
    was, now = old.metadata, new.metadata
    return (was.uid, was.generation, was.deletion_timestamp) == (now.uid, now.generation, now.deletion_timestamp)


def _controller(pod: Pod) -> list[str]:
    """Index term: the controller's uid, or `namespace/` for orphans."""
    controller = pod.metadata.controller
    return [controller.uid] if controller is not None else [f"{pod.namespace}/"]


def _references(pod: Pod) -> list[Document]:
    found = []
    for each in pod.metadata.owner_references:
        document: Document = {
            "apiVersion": each.api_version,
            "kind": each.kind,
            "name": each.name,
            "uid": each.uid,
        }
        if each.controller is not None:
            document["controller"] = each.controller
        if each.block_owner_deletion is not None:
            document["blockOwnerDeletion"] = each.block_owner_deletion
        found.append(document)
    return found


async def _together(calls: Sequence[Callable[[], Awaitable[None]]]) -> list[ApiError]:
    """Run all; the API errors among their outcomes. One call runs without a task of its own. Other errors are raised."""
    if len(calls) == 1:
        try:
            await calls[0]()
        except ApiError as error:
            return [error]
        return []
    outcomes = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    errors: list[ApiError] = []
    for outcome in outcomes:
        if isinstance(outcome, ApiError):
            errors.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    return errors
