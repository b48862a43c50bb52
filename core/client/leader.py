"""Leader election by a Lease: of several candidates one leads, and knows when it no longer may.

After k8s.io/client-go/tools/leaderelection. A candidate trusts no other machine's clock: another's lease has run out
when the candidate itself has seen no change of it for its duration. A leader that couldn't renew for `renew_deadline`
seconds stops leading before anybody else may begin (`renew_deadline < duration`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from core.api.kinds import LEASE
from core.api.meta import Document
from core.api.views import Lease
from core.client.backoff import Backoff
from core.client.rest import Client
from core.clock import micro_time, monotonic, wall
from core.errors import AlreadyExists, ApiError, Conflict, NotFound

__all__ = ["Action", "Decision", "Fence", "LeaderElector", "Observed", "decide"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fence:
    """Which leadership this is: `term` grows with every change of leader of the Lease whose uid is `lease`.

    What a leader writes elsewhere can carry it, so that a writer of an older term is refused.
    """

    lease: str
    term: int


@dataclass(frozen=True, slots=True)
class Observed:
    """The Lease as last read, and when its version was first seen (monotonic seconds)."""

    lease: Lease
    since: float


class Action(Enum):
    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now; for WAIT, in how many seconds the Lease runs out if nothing changes."""

    action: Action
    seconds: float = 0.0


def decide(observed: Observed | None, identity: str, fence: Fence | None, now: float) -> Decision:
    """What a candidate does with the Lease it sees (None: there is none). `fence` is its own leadership, if it leads.

    A Lease that bears our identity without our having a fence is one of an earlier life: it is taken anew, so that the
    term grows.
    """
    if observed is None:
        return Decision(Action.CREATE)
    spec = observed.lease.spec
    if not spec.holder_identity or spec.holder_identity == identity:
        mine = spec.holder_identity == identity and fence is not None and fence.term == (spec.lease_transitions or 0)
        return Decision(Action.RENEW if mine else Action.TAKE)
    left = observed.since + (spec.lease_duration_seconds or 0) - now
    return Decision(Action.WAIT, left) if left > 0 else Decision(Action.TAKE)


class LeaderElector:
    """A candidate named `identity` (unique among the candidates) for the Lease `namespace/name`.

    `on_started(fence)` and `on_stopped()` are called on the event loop and must not block. Times in seconds; the Lease
    keeps whole seconds, so `duration` is one.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        namespace: str,
        identity: str,
        *,
        duration: int = 15,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        on_started: Callable[[Fence], None] | None = None,
        on_stopped: Callable[[], None] | None = None,
    ) -> None:
        if not 0 < retry < renew_deadline < duration:
            raise ValueError("leader election needs 0 < retry < renew_deadline < duration")
        self._client = client
        self._name, self._namespace, self._identity = name, namespace, identity
        self._duration, self._renew_deadline, self._retry = duration, renew_deadline, retry
        self._on_started, self._on_stopped = on_started, on_stopped
        self._observed: Observed | None = None
        self._fence: Fence | None = None
        self._renewed = 0.0
        self._leading = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(retry / 4, retry)

    @property
    def fence(self) -> Fence | None:
        """The leadership held, None where another leads or nobody."""
        return self._fence

    async def wait_leading(self) -> Fence:
        """Return once this candidate leads."""
        while self._fence is None:
            await self._leading.wait()
        return self._fence

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"leader-{self._name}")

    async def stop(self) -> None:
        """Stop being a candidate; a Lease that is held is released, so that another needn't wait for it to run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._fence is not None:
            self._lose("stopped")
            await self._release()

    async def step(self) -> float:
        """One round: look, decide, write. Returns the seconds until the next is due."""
        await self._look()
        decision = decide(self._observed, self._identity, self._fence, monotonic())
        if decision.action is Action.WAIT:
            if self._fence is not None:
                self._lose("another took the lease")
            return decision.seconds
        await self._write(decision.action)
        return self._retry

    async def _run(self) -> None:
        while True:
            try:
                # A leader whose write hangs must have stepped down by its deadline all the same.
                limit = self._renewed + self._renew_deadline - monotonic() if self._fence is not None else None
                async with asyncio.timeout(limit):
                    seconds = await self.step()
                self._backoff.reset()
            except (ApiError, TimeoutError) as error:
                log.info("lease %s/%s: %s", self._namespace, self._name, error or "no answer in time")
                seconds = self._backoff.next()
            except Exception:
                log.exception("lease %s/%s: the round failed", self._namespace, self._name)
                seconds = self._backoff.next()
            if self._fence is not None:
                left = self._renewed + self._renew_deadline - monotonic()
                if left <= 0:
                    self._lose("it could not be renewed in time")
                seconds = max(0.0, min(seconds, left))
                await asyncio.sleep(seconds)
            else:
                await self._wait_for_change(seconds)

    async def _look(self) -> None:
        try:
            lease = await self._client.get(LEASE, self._name, self._namespace, as_=Lease)
        except NotFound:
            self._observed = None
            return
        seen = self._observed
        if seen is None or seen.lease.metadata.resource_version != lease.metadata.resource_version:
            self._observed = Observed(lease, monotonic())

    async def _wait_for_change(self, seconds: float) -> None:
        """Until the Lease changes, at most `seconds`: a release is seen at once."""
        if self._observed is None:
            await asyncio.sleep(seconds)
            return
        version = self._observed.lease.metadata.resource_version
        events = self._client.watch(
            LEASE, self._namespace, version=version, fields=f"metadata.name={self._name}", seconds=int(seconds) + 1
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout_at(until), contextlib.aclosing(events):
                async for batch in events:
                    if any(event.type != "BOOKMARK" for event in batch):
                        return
        except TimeoutError:
            return
        except ApiError as error:
            log.debug("lease %s/%s: watch: %s", self._namespace, self._name, error.message)
        # The watch ended early: what remains is waited out, but no longer than a retry takes.
        await asyncio.sleep(max(0.0, min(self._retry, until - loop.time())))

    async def _write(self, action: Action) -> None:
        began = monotonic()
        document = self._lease(action, wall())
        try:
            if action is Action.CREATE:
                lease = await self._client.create(LEASE, document, self._namespace, as_=Lease)
            else:
                lease = await self._client.update(LEASE, document, as_=Lease)
        except (AlreadyExists, Conflict):
            # Another wrote first; what it wrote decides the next round.
            await self._look()
            raise
        self._observed = Observed(lease, monotonic())
        # Counted from before the write: the others count from after it.
        self._renewed = began
        if action is not Action.RENEW:
            if self._fence is not None:
                self._lose("the lease was made anew")
            self._win(Fence(lease.metadata.uid, lease.spec.lease_transitions or 0))

    def _lease(self, action: Action, now: float) -> Document:
        seen = self._observed.lease if self._observed is not None else None
        metadata: Document = {"name": self._name, "namespace": self._namespace}
        spec: Document = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": micro_time(now),
            "renewTime": micro_time(now),
            "leaseTransitions": 0,
        }
        if seen is not None and action is not Action.CREATE:
            metadata["resourceVersion"] = seen.metadata.resource_version
            spec["leaseTransitions"] = (seen.spec.lease_transitions or 0) + (action is Action.TAKE)
            if action is Action.RENEW:
                spec["acquireTime"] = seen.spec.acquire_time
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        if self._observed is None:
            return
        document = self._lease(Action.RENEW, wall())
        document["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(self._retry):
                await self._client.update(LEASE, document)
        except (ApiError, TimeoutError) as error:
            log.info("lease %s/%s was not released: %s", self._namespace, self._name, error or "no answer in time")

    def _win(self, fence: Fence) -> None:
        self._fence = fence
        self._leading.set()
        log.info("%s leads %s/%s, term %d", self._identity, self._namespace, self._name, fence.term)
        if self._on_started is not None:
            self._on_started(fence)

    def _lose(self, reason: str) -> None:
        self._fence = None
        self._leading.clear()
        log.info("%s no longer leads %s/%s: %s", self._identity, self._namespace, self._name, reason)
        if self._on_stopped is not None:
            self._on_stopped()
