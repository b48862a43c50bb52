"""One gateway worker: the parts of the data plane made and joined, started and stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from random import Random
from time import monotonic, time

from core.api import views
from core.api.kinds import NAMESPACE, POD
from core.client.informer import Informer, Informers
from core.client.readiness import Hint, HintListener
from core.client.rest import Client
from faaslite.api.names import FUNCTION, LABEL_FUNCTION
from faaslite.api.wire import Notice
from gateway.handover import socket_of
from gateway.withdrawals import watch_withdrawals
from gateway.worker import fields, http1, metrics, siblings
from gateway.worker.access import Access
from gateway.worker.activator import Activator
from gateway.worker.concurrency import Instance, Revision
from gateway.worker.handover import Handover
from gateway.worker.http1 import RequestLines
from gateway.worker.link import Link
from gateway.worker.listener import ClientConnection
from gateway.worker.pool import Pool
from gateway.worker.quotas import Quotas
from gateway.worker.router import Router
from gateway.worker.settings import Settings
from gateway.worker.stats import Stats
from gateway.worker.timers import Wheel
from gateway.worker.tracing import Recorder, Tracing
from gateway.worker.views import Function

__all__ = ["Gateway", "Worker"]

log = logging.getLogger(__name__)

_COLLECTOR_THRESHOLDS = (50_000, 50, 1000)


class Gateway:
    """What the connections of one worker share. Made within a running loop."""

    def __init__(
        self, settings: Settings, client: Client, autoscaler: Path, jobs: Path, name: str, control: Path | None = None
    ) -> None:
        loop = self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.control = control
        # Of traffic splits. Workers are forked: the module's generator would repeat itself.
        self.random = Random(os.urandom(16))  # noqa: S311
        self.wheel = Wheel(loop)
        self.stats = Stats(monotonic())
        self.link = Link(autoscaler, name, self._on_link, self._on_notice)
        self.activator = Activator(loop, settings, self.link.send, self._on_busy)
        self.quotas = Quotas(control.parent / "quotas" if control is not None else None, self._on_quota)
        self.router = Router(
            self.stats,
            timeout=settings.timeout,
            clock=monotonic,
            make_pool=self._make_pool,
            on_instance=self.activator.dispatch,
            on_deleted=self.activator.on_deleted,
            quota_of=self.quotas.of,
            domain=settings.domain,
        )
        self.access = Access(client, self.activator, self.router)
        self.lines = RequestLines()
        self.ids: list[bytes] = []
        """Random, 32 hex digits each: of calls, and of traces. Never empty."""
        self.spans: list[bytes] = []
        """The same with 16 digits: of what the gateway does in a trace. As many as there are ids, or more."""
        self.refill_ids()
        self.wall_offset = time() - monotonic()
        """What is to be added to the monotonic clock for seconds since the epoch."""
        self.functions = self.router.functions
        self.jobs = Pool(
            loop, lambda factory: loop.create_unix_connection(factory, str(jobs)), self.activator, settings
        )
        self.handover = Handover(self, socket_of(jobs))
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._ticks = 0
        self._awaited: set[str] = set()
        self._pools: set[Pool] = {self.jobs}
        self._no_connections = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def refill_ids(self) -> None:
        """Once there are none left. Spans that nobody needed are dropped: some calls have a trace of their own."""
        self.ids = os.urandom(16 * 256).hex(" ", 16).encode("ascii").split()
        self.spans = os.urandom(8 * 256).hex(" ", 8).encode("ascii").split()

    def new_id(self) -> bytes:
        found = self.ids.pop()
        if not self.ids:
            self.refill_ids()
        return found

    @property
    def healthy(self) -> bool:
        return not self.draining

    def on_connection_lost(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._no_connections.set()

    def render_metrics(self) -> str:
        """This worker's alone."""
        return metrics.render(
            self.stats.functions(), self.router.revisions.values(), self.quotas, len(self.connections)
        )

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Run it as a task that ends with the worker."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def watch(self, key: str) -> bool:
        """Whether a call of ours to the instance `key` ended within a moment; False at once where there is none."""
        instance = next(
            (found for each in self.router.revisions.values() if (found := each.instances.get(key)) is not None), None
        )
        if instance is None or not instance.in_flight:
            return False
        ended = self.loop.create_future()

        def tell() -> None:
            if not ended.done():
                ended.set_result(None)

        instance.watchers.append(tell)
        instance.busy = True
        try:
            async with asyncio.timeout(siblings.PATIENCE):
                await ended
        except TimeoutError:
            return False
        finally:
            if tell in instance.watchers:
                instance.watchers.remove(tell)
        return True

    def _on_busy(self, instance: Instance, revision: Revision) -> None:
        """Other workers have filled it: have them say when a slot is free."""
        if self.control is not None and instance.key not in self._awaited:
            self._awaited.add(instance.key)
            self.later(self._await_slot(self.control, instance, revision))

    async def _await_slot(self, control: Path, instance: Instance, revision: Revision) -> None:
        try:
            freed = await siblings.freed(control, instance.key)
        finally:
            self._awaited.discard(instance.key)
        # Where nobody can say it (the calls are another gateway's, or ended meanwhile) it is tried again soon.
        self.loop.call_later(0 if freed else self.settings.busy_retry, self.activator.restore, instance, revision)

    async def all_metrics(self) -> str:
        """Of all workers of this gateway."""
        own = self.render_metrics()
        if self.control is None:
            return own
        return metrics.merge([own, *await siblings.scrape(self.control)])

    def tick(self, now: float) -> None:
        """One report, and what else is done at that pace. `now` is of the monotonic clock."""
        self.wall_offset = time() - now
        self._ticks += 1
        if self._ticks % 10 == 0:
            self.lines.forget()
            fields.forget_lines()
            http1.forget_lines()
        revisions = list(self.router.revisions.values())
        self.link.send(self.stats.report(revisions, now))
        self.activator.ask_again(revisions)
        for pool in list(self._pools):
            pool.reap(self.loop.time())
            if pool.finished:
                self._pools.discard(pool)
        for revision in revisions:
            self.router.sweep(revision)

    async def drain(self) -> None:
        """Answer what is on its way, for at most the grace, and close every connection."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(self.settings.drain_grace):
                await self.handover.drain()
                if self.connections:
                    await self._no_connections.wait()
        except TimeoutError:
            log.warning("%d connections outlived the grace", len(self.connections))
        for connection in list(self.connections):
            connection.transport.abort()
        if self.connections:
            await self._no_connections.wait()
        await self.handover.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in self._pools))
        self.wheel.stop()

    def _on_quota(self, namespace: str) -> None:
        self.router.on_quota(namespace)

    def _make_pool(self, host: str, port: int) -> Pool:
        loop = self.loop
        pool = Pool(loop, lambda factory: loop.create_connection(factory, host, port), self.activator, self.settings)
        self._pools.add(pool)
        return pool

    def _on_link(self) -> None:
        self.activator.ask_again(self.router.revisions.values())

    def _on_notice(self, notice: Notice) -> None:
        self.activator.notice(notice, self.router.revisions.get(notice.revision))


class Worker:
    """Serves the gateway's HTTP on `listeners` (bound and listening; they are closed by `stop`).

    `autoscaler` and `jobs` are the paths of those components' Unix sockets; neither needs to be there. `name` is unique
    among gateway workers. `control` is where it listens for the platform's own processes (`gateway.worker.siblings`); with `tls` the
    listeners speak HTTPS. `hints` is the folder in which it listens for nodes of this machine that say which Pods are ready (`core.client.readiness`).
    `recorder` gets the spans of calls.
    """

    def __init__(
        self,
        client: Client,
        listeners: Sequence[socket.socket],
        autoscaler: Path,
        jobs: Path,
        settings: Settings,
        name: str,
        *,
        control: Path | None = None,
        tls: ssl.SSLContext | None = None,
        hints: Path | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._control = control
        self._tls = tls
        self._client = client
        self._listeners = listeners
        self._autoscaler = autoscaler
        self._jobs = jobs
        self._settings = settings
        self._name = name
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None
        self._informers = Informers(client)
        self._hints = HintListener(hints, name, self._on_hint) if hints is not None else None
        self._pods: Informer[views.Pod] | None = None
        self.gateway: Gateway | None = None
        """From `start` on."""

    async def start(self) -> None:
        """Returns when the routes are known and connections are accepted."""
        gateway = self.gateway = Gateway(
            self._settings, self._client, self._autoscaler, self._jobs, self._name, self._control
        )
        if self._recorder is not None:
            gateway.activator.tracing = Tracing(self._recorder)
        namespaces = self._informers.watch(NAMESPACE, views.Namespace)
        functions = self._informers.watch(FUNCTION, Function)
        pods = self._pods = self._informers.watch(POD, views.Pod, labels=LABEL_FUNCTION)
        watch_withdrawals(self._informers, gateway.access.forget)
        namespaces.add_handler(gateway.quotas.on_namespace)
        functions.add_handler(gateway.router.on_function)
        pods.add_handler(gateway.router.on_pod)
        await self._informers.start()
        await namespaces.wait_synced()
        await functions.wait_synced()
        await pods.wait_synced()
        if self._hints is not None:
            self._hints.start()
        gateway.link.start()
        gateway.handover.start()
        self._ticker = gateway.loop.create_task(self._tick(gateway), name="gateway reports")
        if self._settings.tune_collector:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        for listener in self._listeners:
            listener.setblocking(False)
            server = await gateway.loop.create_server(lambda: ClientConnection(gateway), sock=listener, ssl=self._tls)
            self._servers.append(server)
        if self._control is not None:
            own = siblings.listen(self._control)
            self._servers.append(
                await gateway.loop.create_unix_server(lambda: ClientConnection(gateway, trusted=True), sock=own)
            )
        log.info("gateway %s serves on %d sockets", self._name, len(self._listeners))

    async def stop(self) -> None:
        """Accept nothing more, answer what is on its way with `Connection: close`, then let go of everything."""
        for server in self._servers:
            server.close()
        if self._control is not None:
            self._control.unlink(missing_ok=True)
        if self._hints is not None:
            self._hints.stop()
        if self.gateway is not None:
            await self.gateway.drain()
            await self.gateway.access.stop()
            await self.gateway.link.stop()
            self.gateway.quotas.close()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._informers.stop()

    def _on_hint(self, hint: Hint) -> None:
        if self.gateway is not None and self._pods is not None:
            self.gateway.router.on_hint(hint, self._pods.get(hint.pod))

    async def _tick(self, gateway: Gateway) -> None:
        while True:
            await asyncio.sleep(self._settings.report_period)
            try:
                gateway.tick(monotonic())
                if self._pods is not None:
                    gateway.router.forget_hints(monotonic(), self._pods.get)
            except Exception:
                log.exception("the report failed")
