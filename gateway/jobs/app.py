"""The jobs component: puts its parts together, serves them on one Unix socket, and runs calls and cron while it leads.

With the embedded queue two locks stand between two jobs processes. The file lock of `calls.db` comes first: without it nothing starts. The cluster's Lease
says who executes: without it records are still accepted and read, and packages served, and nothing is run. The Lease's
identity belongs to the data directory, so that a process that was killed is followed at once and not after its Lease has run out.

With Redis there is neither: every jobs process accepts, executes and ticks, and what must happen once happens once in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core import clock as clocks
from core.api.kinds import NAMESPACE, POD, REPLICA_SET
from core.api.views import Namespace, Pod, ReplicaSet
from core.client.informer import Informer, Informers
from core.client.rest import Client
from faaslite.api.names import FUNCTION, LABEL_FUNCTION, SYSTEM_NAMESPACE
from gateway.handover import socket_of
from gateway.jobs import metrics
from gateway.jobs.accepting import Accepting
from gateway.jobs.async_calls import PREFIX, AsyncCalls, Receive, Scope, Send
from gateway.jobs.auth import Access
from gateway.jobs.call_routes import CallRoutes
from gateway.jobs.calls.base import KEYS, Calls, CallsError
from gateway.jobs.calls.callbacks import Callbacks
from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.calls.rotation import Rotation
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.calls.trace import Tracing
from gateway.jobs.cron.ticker import Ticker
from gateway.jobs.cron_routes import CronRoutes
from gateway.jobs.doorway import Doorway
from gateway.jobs.functions import FunctionView, packages_in, packages_of, triggers
from gateway.jobs.leadership import Leadership, Part
from gateway.jobs.metric_routes import MetricRoutes
from gateway.jobs.package_routes import PackageRoutes
from gateway.jobs.packages import Packages
from gateway.jobs.replies import HANDLERS
from gateway.jobs.server import SocketServer
from gateway.jobs.usage.collector import Collector
from gateway.jobs.usage.ledger import Ledger, LedgerTaken
from gateway.jobs.usage.routes import UsageRoutes
from gateway.jobs.waits import Waits
from gateway.jobs.weights import Weighing
from gateway.withdrawals import watch_withdrawals

__all__ = ["Jobs"]

log = logging.getLogger(__name__)

LEASE_NAME = "faaslite-jobs"
RECORDS_KEPT = 7 * 86400.0
"""Seconds after its end that a call's record is kept."""
HOUSEKEEPING = 3600.0
"""Seconds between two rounds of deleting old records and packages."""


class Jobs:
    """`gateway_url` is `http://HOST:PORT`, `clock` gives seconds since the epoch. The informers are started by their owner.

    `redis` is the URL of the queue ("": the embedded one), `autoscaler` the path of the autoscaler's socket, for its metrics.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        socket_path: Path,
        data_dir: Path,
        gateway_url: str,
        redis: str = "",
        autoscaler: Path | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        self._client = client
        self._socket_path = socket_path
        self._data_dir = data_dir
        self._gateway_url = gateway_url
        self._redis = redis
        self._autoscaler = autoscaler
        self._tracing = tracing
        self._clock = clock
        self._functions: Informer[FunctionView] = informers.watch(FUNCTION, FunctionView)
        self._replica_sets = informers.watch(REPLICA_SET, ReplicaSet, labels=LABEL_FUNCTION)
        self._functions.add_handler(self._function_changed)
        self._access = Access(client)
        watch_withdrawals(informers, self._access.forget)
        self._weighing = Weighing()
        self._functions.add_handler(self._weighing.on_function)
        informers.watch(NAMESPACE, Namespace).add_handler(self._weighing.on_namespace)
        self._packages = Packages(data_dir / "packages")
        self._pods = informers.watch(POD, Pod, labels=LABEL_FUNCTION)
        self._pods.add_handler(self._pod_changed)
        self._collector: Collector | None = None
        self._running: _Running | None = None

    async def start(self) -> None:
        """Returns when requests are answered. Raises `CallsUnavailable` where another process has the data directory."""
        await self._packages.start()
        calls: Calls
        if self._redis:
            from gateway.jobs.calls.redis import RedisCalls  # its library is 8 MB, which a platform without Redis saves

            calls = await RedisCalls.open(self._redis, self._data_dir / KEYS)
        else:
            calls = await SqliteCalls.open(self._data_dir / "calls.db")
        doorway = Doorway(socket_of(self._socket_path))
        dispatcher = Dispatcher(
            calls,
            self._gateway_url,
            owner=f"{socket.gethostname()}-{os.getpid()}",
            clock=self._clock,
            tracing=self._tracing,
            sockets=self._socket_path.parent,
            workers=doorway,
            weights=self._weighing.weights,
        )
        ticker = Ticker(
            calls,
            inserted=dispatcher.wake,
            canceled=dispatcher.abort,
            clock=self._clock,
            insert=dispatcher.insert,
            arm=dispatcher.arm,
        )
        callbacks = Callbacks(calls, clock=self._clock)
        parts = (dispatcher, callbacks, ticker)
        leadership: _Leading = _Always(parts)
        if not self._redis:
            identity = f"{socket.gethostname()}:{self._data_dir}"
            leadership = Leadership(self._client, LEASE_NAME, SYSTEM_NAMESPACE, identity, parts)
        self._collector = await self._collect(calls, dispatcher)
        accepting = Accepting(self._functions, calls, dispatcher.insert, self._clock)
        access = self._access
        routes = [
            *PackageRoutes(access, self._packages).routes(),
            *CallRoutes(access, calls, Waits(calls), self._functions.get, self._clock).routes(),
            *CronRoutes(access, calls, ticker, self._clock).routes(),
            *UsageRoutes(access, lambda: self._collector, self._clock).routes(),
            *MetricRoutes(access, self._render_metrics, self._autoscaler).routes(),
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        rest = Starlette(routes=routes, exception_handlers=HANDLERS)
        async_calls = AsyncCalls(accepting)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            """All that is asked of jobs: mostly to accept calls."""
            if scope["type"] == "http" and scope["path"].startswith(PREFIX):
                await async_calls(scope, receive, send)
            else:
                await rest(scope, receive, send)

        server = SocketServer(app, self._socket_path)
        try:
            await server.start()
            await doorway.start(accepting)
        except BaseException:
            await server.stop()
            if self._collector is not None:
                await self._collector.stop()
                self._collector = None
            await calls.close()
            raise
        rotation = Rotation(calls, self._data_dir / KEYS)
        self._running = _Running(calls, dispatcher, ticker, callbacks, accepting, leadership, server, doorway, rotation)
        for function in self._functions.values():
            self._function_changed(None, function)
        await leadership.start()
        await rotation.start()
        if self._collector is not None:
            await self._collector.start()
        self._running.housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")

    async def stop(self) -> None:
        """Calls that run are given up and put back into the queue."""
        running = self._running
        if running is None:
            return
        if running.housekeeping is not None:
            running.housekeeping.cancel()
            await asyncio.wait([running.housekeeping])
        await running.rotation.stop()
        await running.leadership.stop()
        await running.server.stop()
        await running.doorway.stop()
        self._running = None
        if self._collector is not None:
            await self._collector.stop()
            self._collector = None
        await running.calls.close()

    @property
    def leading(self) -> bool:
        """Whether this process executes calls now."""
        return self._running is not None and self._running.leadership.leading

    async def _collect(self, calls: Calls, dispatcher: Dispatcher) -> Collector | None:
        """None where another jobs process does it: several may share a data dir with Redis."""
        try:
            ledger = await asyncio.to_thread(Ledger, self._data_dir / "usage.db")
        except LedgerTaken as error:
            log.info("usage is not collected here: %s", error)
            return None
        sockets = self._socket_path.parent
        pods = self._pods
        return Collector(ledger, calls, sockets, pods.values, pods.wait_synced, dispatcher.executed, self._clock)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if self._collector is not None:
            self._collector.on_pod(old, new)

    def _function_changed(self, old: FunctionView | None, new: FunctionView | None) -> None:
        if self._running is None:
            return
        if new is not None and not new.metadata.deletion_timestamp:
            self._running.ticker.set(new.namespace, new.name, triggers(new))
        elif (gone := old or new) is not None:
            self._running.ticker.remove(gone.namespace, gone.name)

    async def _keep_house(self) -> None:
        """After the first listing, and then every hour: not before, or every package would look unused."""
        await self._functions.wait_synced()
        await self._replica_sets.wait_synced()
        while True:
            try:
                await self.keep_house(self._clock())
            except (CallsError, OSError) as error:
                log.warning("old records and packages were not deleted: %s", error)
            await asyncio.sleep(HOUSEKEEPING)

    async def keep_house(self, now: float) -> list[str]:
        """Delete old records, and packages that nothing refers to for long; returns the digests of those."""
        assert self._running is not None
        while await self._running.calls.prune(now - RECORDS_KEPT):
            pass
        referenced = set().union(
            *(packages_of(each) for each in self._functions.values()),
            # Old revisions stay for rollbacks, and their Pods need their packages.
            *(packages_in(each.spec.template) for each in self._replica_sets.values()),
        )
        gone = await asyncio.to_thread(self._packages.collect, referenced, now)
        if gone:
            log.info("deleted %d packages that nothing refers to: %s", len(gone), ", ".join(gone))
        return gone

    async def _metrics(self, request: Request) -> Response:
        return Response(await self._render_metrics(), 200, None, metrics.CONTENT_TYPE)

    async def _render_metrics(self) -> bytes:
        running = self._running
        assert running is not None
        accepting = running.accepting
        return metrics.render(
            await running.calls.counts(),
            running.dispatcher,
            callbacks=running.callbacks.finished,
            accepted={"accepted": accepting.accepted, "refused": accepting.refused},
            triggers=running.ticker.count,
            fired=running.ticker.fired,
            lateness=running.ticker.lateness,
            leading=running.leadership.leading,
        )


class _Leading(Protocol):
    leading: bool

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Always:
    """Where no Lease is needed."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.leading = False

    async def start(self) -> None:
        for part in self._parts:
            await part.start()
        self.leading = True

    async def stop(self) -> None:
        self.leading = False
        for part in reversed(self._parts):
            await part.stop()


@dataclass
class _Running:
    """What exists from `start` to `stop`."""

    calls: Calls
    dispatcher: Dispatcher
    ticker: Ticker
    callbacks: Callbacks
    accepting: Accepting
    leadership: _Leading
    server: SocketServer
    doorway: Doorway
    rotation: Rotation
    housekeeping: asyncio.Task[None] | None = None


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok")
