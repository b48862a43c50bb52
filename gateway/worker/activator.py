"""Who gets an instance, who waits for one, and what becomes of a call whose instance failed it.

The queue of a revision is bounded in length and time. While calls wait, the autoscaler is asked for instances: at once, again
when more wait than it was asked for, and with every report. A slot or an instance that becomes free takes the longest
waiter in the same callback.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable
from time import monotonic

from core import trace
from faaslite.api.wire import Notice, Poke
from gateway.worker.call import Call
from gateway.worker.concurrency import Instance, Revision
from gateway.worker.errors import (
    ACTIVATION_TIMEOUT,
    BAD_REPLY,
    CANCELLED,
    DEADLINE_EXCEEDED,
    FUNCTION_NOT_FOUND,
    INSTANCE_BUSY,
    INSTANCE_DIED,
    JOBS_UNAVAILABLE,
    QUEUE_FULL,
    Failure,
)
from gateway.worker.settings import Settings
from gateway.worker.stats import BOUNDS, FIRST_BOUND
from gateway.worker.tracing import Tracing

__all__ = ["Activator"]

log = logging.getLogger(__name__)


class Activator:
    """`poke` sends to the autoscaler; `on_busy` is told of an instance that other workers have filled. It is the `Outcomes` of every connection to an instance or to `jobs`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        poke: Callable[[Poke], None],
        on_busy: Callable[[Instance, Revision], None] = lambda instance, revision: None,
    ) -> None:
        self._on_busy = on_busy
        self._loop = loop
        self._settings = settings
        self._poke = poke
        self._asking: set[Revision] = set()
        self.tracing: Tracing | None = None
        """Where spans are exported: it is told of each call's end."""

    # The way in

    def admit(self, call: Call, revision: Revision) -> None:
        """Send `call` to an instance of `revision`, or let it wait."""
        load = revision.load  # as `arrive`
        load.active += 1
        load.requests += 1
        load.weight -= call.started
        if not revision.waiting:
            instance = revision.acquire()
            if instance is not None:
                call.instance = instance
                instance.pool.send(call)
                return
        self._wait(call, revision)

    def _wait(self, call: Call, revision: Revision) -> None:
        if len(revision.waiting) >= self._settings.queue_length:
            self._fail(call, QUEUE_FULL, f"{self._settings.queue_length} calls wait for this function already")
            return
        if not revision.instances and call.stats is not None:
            call.stats.cold_starts += 1
            revision.hold(call.started)
        if trace.ON:
            trace.mark("held", revision.key)
        revision.waiting[call] = None
        call.client.wait_until(min(call.deadline, self._loop.time() + self._settings.queue_timeout))
        if len(revision.waiting) > revision.coming():
            self._ask(revision)

    def _wait_first(self, call: Call, revision: Revision) -> None:
        """It had its turn once: it goes before all others, and can't find the queue full."""
        revision.waiting[call] = None
        revision.waiting.move_to_end(call, last=False)
        call.client.wait_until(min(call.deadline, self._loop.time() + self._settings.queue_timeout))
        self.dispatch(revision)
        if len(revision.waiting) > revision.coming():
            self._ask(revision)

    def dispatch(self, revision: Revision) -> None:
        """Give free slots to those who wait longest."""
        waiting = revision.waiting
        while waiting:
            instance = revision.acquire()
            if instance is None:
                return
            call, _ = waiting.popitem(last=False)
            call.instance = instance
            call.waited = monotonic() - call.started
            call.usual = False
            if trace.ON:
                trace.mark("dispatched", revision.key)
            call.client.wait_until(call.deadline)
            instance.pool.send(call)
        revision.asked = 0

    # The autoscaler

    def _ask(self, revision: Revision) -> None:
        """Calls that arrive in the same turn of the loop are asked for together."""
        revision.asked = len(revision.waiting)
        if not self._asking:
            self._loop.call_soon(self._send_pokes)
        self._asking.add(revision)

    def _send_pokes(self) -> None:
        asking, self._asking = self._asking, set()
        self.ask_again(asking)

    def ask_again(self, revisions: Iterable[Revision]) -> None:
        """Ask for instances for those of `revisions` that calls wait for."""
        for revision in revisions:
            if revision.waiting:
                revision.asked = len(revision.waiting)
                self._poke(Poke(revision.key, revision.asked))

    def notice(self, notice: Notice, revision: Revision | None) -> None:
        """There will be no (more) instances. Who waits where there are none, or none that starts, waits in vain."""
        if revision is None or revision.instances or revision.starting:
            return
        failure = Failure(503, notice.reason, retry_after=1)
        while revision.waiting:
            call, _ = revision.waiting.popitem(last=False)
            self._fail(call, failure, notice.message)
        revision.asked = 0

    def on_deleted(self, revision: Revision) -> None:
        """Its function is gone: who waits, waits in vain."""
        while revision.waiting:
            call, _ = revision.waiting.popitem(last=False)
            self._fail(call, FUNCTION_NOT_FOUND, "the function was deleted while the call waited for it")
        revision.asked = 0

    # The way out (Outcomes)

    def finish(self, call: Call, now: float) -> None:
        call.done = True
        revision = call.revision
        if revision is None:
            return
        stats = call.stats
        if stats is not None:  # as `count`
            seconds = now - call.started
            stats.codes[call.status // 100] += 1
            stats.buckets[bisect_left(BOUNDS, seconds) if seconds > FIRST_BOUND else 0] += 1
            stats.seconds += seconds
            stats.sent += call.sent
            if call.body_size:
                stats.received += call.body_size
        if call.quota is not None:
            call.quota.leave()
        if trace.ON:
            trace.mark("replied", revision.key)
        if self.tracing is not None:
            self.tracing.ended(call, now)
        load = revision.load  # as `leave`
        load.active -= 1
        load.weight += now
        instance = call.instance
        if instance is not None:  # as `_free`
            instance.in_flight -= 1
            if instance.busy:
                self._freed(instance, revision)
            if revision.waiting:
                self.dispatch(revision)

    def _free(self, instance: Instance, revision: Revision) -> None:
        instance.in_flight -= 1
        if instance.busy:
            self._freed(instance, revision)
        if revision.waiting:
            self.dispatch(revision)

    @staticmethod
    def _freed(instance: Instance, revision: Revision) -> None:
        """A slot of an instance that was at its limit is free: for a worker that waits for it, else for us."""
        if instance.watchers:
            instance.watchers.pop(0)()
            instance.busy = bool(instance.watchers)
        revision.restore(instance)

    def refused(self, call: Call, why: str) -> None:
        instance, revision = self._give_up(call)
        if revision is None or instance is None:
            self._fail(call, JOBS_UNAVAILABLE, f"jobs can't be reached: {why}")
            return
        self._set_aside(instance, revision, self._settings.aside, busy=False)
        self._free(instance, revision)
        if call.done:
            return
        call.attempts += 1
        if call.attempts <= self._settings.attempts:
            self._wait_first(call, revision)
        else:
            self._fail(call, INSTANCE_DIED, f"the instances can't be reached: {why}")

    def lost(self, call: Call, reused: bool) -> None:
        """Sent again only where nothing can have come of it: an instance closes an idle connection just as a call is sent.
        A call that kills its instance must not go on to kill the next one."""
        call.attempts += 1
        again = reused and call.idempotent and call.replayable and call.attempts <= self._settings.attempts
        pool = call.pool if call.instance is None else call.instance.pool
        instance, revision = self._give_up(call)
        if pool is not None:
            pool.flush()
        if revision is not None and instance is not None:
            self._free(instance, revision)
            if again:
                self._wait_first(call, revision)
                return
        elif again and pool is not None:
            call.pool = pool
            pool.send(call)
            return
        self._fail(call, INSTANCE_DIED, "the connection ended before the reply did")

    def busy(self, call: Call) -> None:
        call.attempts += 1
        instance, revision = self._give_up(call)
        if revision is None or instance is None:
            return
        self._set_aside(instance, revision, self._settings.busy_pause, busy=True)
        instance.in_flight -= 1
        self._on_busy(instance, revision)
        if call.replayable:
            self._wait_first(call, revision)
        else:
            self._fail(call, INSTANCE_BUSY, "the instance is at its limit, and the body is too long to be sent again")

    def garbled(self, call: Call, why: str) -> None:
        instance, revision = self._give_up(call)
        if revision is not None and instance is not None:
            self._free(instance, revision)
        self._fail(call, BAD_REPLY, f"the reply is not HTTP/1.1: {why}")

    # Ends that come from this side

    def expire(self, call: Call) -> None:
        """Its time to wait, or its deadline, is over."""
        waiting = call.revision is not None and call in call.revision.waiting
        late = self._loop.time() >= call.deadline
        self._withdraw(call)
        if waiting and not late:
            seconds = self._settings.queue_timeout
            self._fail(call, ACTIVATION_TIMEOUT, f"no instance became free within {seconds:g} s")
        else:
            self._fail(call, DEADLINE_EXCEEDED, "the call took longer than the function's timeout")

    def cancel(self, call: Call) -> None:
        """Its client is gone."""
        self._withdraw(call)
        self._count(call, CANCELLED)

    def reject(self, call: Call, failure: Failure, message: str) -> None:
        """The listener found something wrong with it on its way."""
        self._withdraw(call)
        self._fail(call, failure, message)

    def _withdraw(self, call: Call) -> None:
        """Take it from wherever it is."""
        revision = call.revision
        if revision is not None:
            revision.waiting.pop(call, None)
        if call.pool is not None:
            call.pool.forget(call)
        if call.connection is not None:
            call.connection.abort()
        instance, _ = self._give_up(call)
        if instance is not None and revision is not None:
            self._free(instance, revision)

    def _give_up(self, call: Call) -> tuple[Instance | None, Revision | None]:
        """Part `call` from its instance, whose slot is still to be freed."""
        instance = call.instance
        call.instance = call.pool = call.connection = None
        return instance, call.revision

    def _fail(self, call: Call, failure: Failure, message: str) -> None:
        if call.done:
            return
        self._count(call, failure.status)
        if call.reply_begun:
            call.client.abort()  # half a reply can't be taken back; the client must not take it for a whole one
        else:
            call.client.fail(call, failure, message)

    def _count(self, call: Call, status: int) -> None:
        if not call.done:
            call.status = status
            self.finish(call, monotonic())

    # Instances that are left alone for a moment

    def _set_aside(self, instance: Instance, revision: Revision, seconds: float, *, busy: bool) -> None:
        if revision.set_aside(instance):
            instance.busy = busy
            if not busy:
                instance.pool.flush()
                log.info("instance %s refuses connections, set aside for %g s", instance.key, seconds)
            self._loop.call_later(seconds, self.restore, instance, revision)

    def restore(self, instance: Instance, revision: Revision) -> None:
        """It may have a free slot."""
        if revision.restore(instance):
            self.dispatch(revision)
