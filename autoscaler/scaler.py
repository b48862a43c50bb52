"""The autoscaler: what gateways report and which revisions there are, in; `replicas` of ReplicaSets, out.

It writes nothing but `replicas`, through the scale subresource, and only where it changes. A poke is decided on in the loop iteration
in which it arrives, and so is a changed policy; everything else each second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from autoscaler import metrics
from autoscaler.collector import Collector
from autoscaler.decider import Decision, Observation, State, decide, initial_state
from autoscaler.floors import Minimum, minimum
from autoscaler.windows import Loads
from core import clock as clocks
from core import trace
from core.api.kinds import REPLICA_SET
from core.api.views import ReplicaSet
from core.client.events import Recorder, reference
from core.client.informer import Informers
from core.client.rest import Client
from core.errors import ApiError, NotFound
from core.lull import LULL
from faaslite.api.names import ANNOTATION_SCALE, LABEL_FUNCTION
from faaslite.api.wire import Notice, Poke, Report, ScalePolicy

__all__ = ["Autoscaler", "Scaled"]

log = logging.getLogger(__name__)

TICK = 1.0
REMEMBERED = 50
"""Decisions kept per revision."""
REFUSED = 5.0
"""Seconds until a write that the API refused is tried again."""
SCALED = "Scaled"
"""The reason of the Events that tell of decisions, on the ReplicaSets: `faas why scaled` and `kubectl describe` show them."""
RECONNECT = 3.0
"""Seconds after the start in which gateways may still be connecting: nothing counts as idle before, however short its `idle`."""


class Scaled(NamedTuple):
    """One change of `replicas`. `at` is in seconds since the epoch."""

    at: float
    before: int
    after: int
    reason: str


class _Revision:
    """What is known of one ReplicaSet, and the write to it that is under way."""

    __slots__ = ("about", "annotation", "because", "floor", "known", "latest", "name", "namespace", "policy", "ready", "refused", "refused_until", "replicas", "ring", "since", "state",
                 "wanted", "writing")  # fmt: skip

    def __init__(self, found: ReplicaSet, since: float) -> None:
        self.name, self.namespace = found.metadata.name, found.metadata.namespace
        self.about = reference(REPLICA_SET, found)
        self.annotation = ""
        self.policy = ScalePolicy()
        self.floor = Minimum(0, 0.0)
        self.replicas, self.ready = found.spec.replicas, found.status.ready_replicas
        self.known = self.ready > 0 or self.replicas == 0
        """Whether it was seen ready, or was scaled to zero before: its first start is over."""
        self.since = since
        self.state = State()
        self.ring: deque[Scaled] = deque(maxlen=REMEMBERED)
        self.latest = self.because = ""
        self.refused: ApiError | None = None
        self.refused_until = 0.0
        self.wanted = self.replicas
        self.writing: asyncio.Task[None] | None = None


class Autoscaler:
    """Scales every ReplicaSet that has the label `faaslite.dev/function` and the annotation `faaslite.dev/scale`.

    `clock` gives monotonic seconds. The informers are started by their owner.
    """

    def __init__(
        self, client: Client, informers: Informers, socket_path: Path, *, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._collector = Collector(socket_path, self, self._render)
        self._recorder = Recorder(client, "autoscaler")
        self._counts = metrics.Counts()
        self._loads = Loads()
        self._revisions: dict[str, _Revision] = {}
        self._pokers: dict[str, set[str]] = {}
        self._started = clock()
        self._ticker: asyncio.Task[None] | None = None
        self._informer = informers.watch(REPLICA_SET, ReplicaSet, labels=LABEL_FUNCTION)
        self._informer.add_handler(self._changed)

    async def start(self) -> None:
        """Returns when gateways can connect."""
        self._started = self._clock()
        await self._collector.start()
        self._ticker = asyncio.create_task(self._run(), name="autoscaler")

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
            self._ticker = None
        await self._collector.stop()
        writes = [each.writing for each in self._revisions.values() if each.writing is not None]
        for write in writes:
            write.cancel()
        if writes:
            await asyncio.wait(writes)
        await self._recorder.stop()

    def decisions(self, revision: str) -> list[Scaled]:
        """The latest changes of `revision` (`namespace/name`), oldest first."""
        found = self._revisions.get(revision)
        return list(found.ring) if found else []

    def why(self, revision: str) -> str:
        """The reason of the latest decision, changed or not; "" for a revision that isn't known."""
        found = self._revisions.get(revision)
        return found.latest if found else ""

    def tick(self, now: float) -> None:
        """Decide on every revision. Writes go on in tasks; `settled` waits for them."""
        self._loads.prune(now)
        busy = self._loads.revisions
        for key, revision in list(self._revisions.items()):
            if revision.replicas or revision.policy.min or revision.policy.floors or key in busy:
                self._consider(key, revision, now)

    def _render(self) -> bytes:
        """What `GET /metrics` on the socket answers."""
        rows = [
            (
                key,
                each.wanted,
                each.ready,
                self._loads.observe(key, self._clock(), each.policy.stable, each.policy.metric),
            )
            for key, each in self._revisions.items()
        ]
        return metrics.render(self._counts, rows, self._loads.gateways, self._collector.garbage)

    async def settled(self) -> None:
        """Waits until no write is under way."""
        while writes := [each.writing for each in self._revisions.values() if each.writing is not None]:
            await asyncio.wait(writes)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self.tick(self._clock())
            except Exception:
                log.exception("a tick failed")

    # What gateways say

    def poked(self, source: str, message: Poke) -> None:
        if trace.ON:
            trace.mark("poked", message.revision)
        LULL.disturb()
        now = self._clock()
        self._loads.poke(source, now, message.revision, message.queued)
        revision = self._revisions.get(message.revision)
        if revision is None:
            if self._informer.synced:
                text = f"there is no revision {message.revision} to scale"
                self._collector.notify(source, Notice(message.revision, "RevisionNotFound", text))
            return
        self._pokers.setdefault(message.revision, set()).add(source)
        self._consider(message.revision, revision, now)

    def reported(self, source: str, message: Report) -> None:
        self._loads.report(source, self._clock(), message.seconds, message.loads)

    def disconnected(self, source: str) -> None:
        self._loads.drop(source)
        for sources in self._pokers.values():
            sources.discard(source)

    # What the cluster says

    def _changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        found = new or old
        assert found is not None
        text = found.metadata.annotations.get(ANNOTATION_SCALE)
        if new is None or text is None or new.metadata.deletion_timestamp:
            self._forget(found.key)
            return
        now = self._clock()
        revision = self._revisions.get(new.key)
        first = revision is None
        if revision is None:
            revision = self._revisions[new.key] = _Revision(new, now)
        wishes = first or text != revision.annotation
        if wishes:
            self._read_policy(new.key, revision, text)
        if first:
            revision.since = max(now, self._started + RECONNECT - revision.policy.idle)
            revision.state = initial_state(revision.replicas, now)
        if revision.writing is None:
            revision.replicas = revision.wanted = new.spec.replicas
        revision.ready = new.status.ready_replicas
        if revision.ready and not revision.known:
            revision.known, revision.since = True, now
        if new.key in self._loads.revisions if first else wishes:
            # A poke came before the ReplicaSet did, or somebody asks for more or fewer and need not wait for a tick.
            self._consider(new.key, revision, now)

    def _read_policy(self, key: str, revision: _Revision, text: str) -> None:
        revision.annotation = text
        try:
            policy = msgspec.json.decode(text, type=ScalePolicy)
            if policy.target <= 0 or policy.stable <= 0:
                raise msgspec.ValidationError("target and stable must be over 0")
        except msgspec.DecodeError as error:
            log.warning(
                "%s: the annotation %s can't be read, keeping the last policy: %s", key, ANNOTATION_SCALE, error
            )
            return
        revision.policy = policy
        revision.floor = Minimum(policy.min, 0.0)
        self._loads.keep(key, policy.stable)

    def _forget(self, key: str) -> None:
        revision = self._revisions.pop(key, None)
        self._pokers.pop(key, None)
        self._loads.forget(key)
        if revision is not None and revision.writing is not None:
            revision.writing.cancel()

    # Deciding and writing

    def _consider(self, key: str, revision: _Revision, now: float) -> None:
        policy = revision.policy
        if policy.floors:
            wall = clocks.wall()
            if wall >= revision.floor.until:
                revision.floor = minimum(policy, wall)
            policy = msgspec.structs.replace(policy, min=revision.floor.replicas)
        seen = self._loads.observe(key, now, policy.stable, policy.metric)
        active = revision.since if seen.last_active is None else max(seen.last_active, revision.since)
        observation = Observation(
            seen.stable, seen.panic, seen.in_flight, seen.waiting, revision.wanted, revision.ready, active, not revision.known
        )  # fmt: skip
        decision = decide(policy, observation, revision.state, now)
        if revision.floor.why and decision.replicas == revision.floor.replicas:
            decision = decision._replace(reason=f"{decision.reason} ({revision.floor.why})")
        self._counts.decided(decision.state.panic_since is not None)
        revision.state, revision.latest = decision.state, decision.reason
        if decision.capped and seen.waiting and revision.ready >= decision.replicas:
            self._notify(key, "MaximumReached", decision.reason)
        if decision.replicas != revision.wanted:
            self._scale(key, revision, decision)

    def _scale(self, key: str, revision: _Revision, decision: Decision) -> None:
        if revision.refused is not None and self._clock() < revision.refused_until:
            self._notify(key, revision.refused.status_reason, revision.refused.message)
            return
        revision.wanted, revision.because = decision.replicas, decision.reason
        if revision.writing is None:
            revision.writing = asyncio.create_task(self._write(key, revision), name=f"scale {key}")

    async def _write(self, key: str, revision: _Revision) -> None:
        """One writer a revision: it writes until what is written is what is wanted."""
        try:
            while revision.replicas != revision.wanted:
                before, wanted, because = revision.replicas, revision.wanted, revision.because
                await self._client.scale(REPLICA_SET, revision.name, revision.namespace, wanted)
                if trace.ON:
                    trace.mark("scaled", key)
                log.info("%s: %d -> %d, %s", key, before, wanted, because)
                self._counts.scaled(wanted > before)
                self._recorder.event(revision.about, "Normal", SCALED, f"from {before} to {wanted}: {because}")
                revision.ring.append(Scaled(clocks.wall(), before, wanted, because))
                revision.replicas, revision.refused = wanted, None
                if wanted == 0:
                    revision.known = True
                self._pokers.pop(key, None)
        except NotFound:
            log.info("%s is gone", key)  # the informer will say so too
        except ApiError as error:
            log.warning("%s can't be scaled to %d: %s", key, revision.wanted, error)
            self._counts.refused += 1
            self._recorder.event(
                revision.about, "Warning", SCALED, f"could not be scaled to {revision.wanted}: {error.message}"
            )
            self._notify(key, error.status_reason, error.message)
            revision.refused, revision.refused_until = error, self._clock() + REFUSED
            revision.wanted = revision.replicas  # a later tick tries again
        finally:
            revision.writing = None

    def _notify(self, key: str, reason: str, message: str) -> None:
        for source in self._pokers.pop(key, ()):
            self._collector.notify(source, Notice(key, reason, message))
