"""The jobs component: puts its parts together, serves them on one Unix socket, and runs calls and cron while it leads.

Two locks stand between two jobs processes. The file lock of `calls.db` comes first: without it nothing starts. The cluster's Lease
says who executes: without it records are still accepted and read, and packages served, and nothing is run. The Lease's
identity belongs to the data directory, so that a process that was killed is followed at once and not after its Lease has run out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core import clock as clocks
from core.api.kinds import REPLICA_SET
from core.api.views import ReplicaSet
from core.client.informer import Informer, Informers
from core.client.rest import Client
from faaslite.api.names import FUNCTION, LABEL_FUNCTION, SYSTEM_NAMESPACE
from gateway.jobs import metrics
from gateway.jobs.admin import Admin
from gateway.jobs.async_calls import AsyncCalls
from gateway.jobs.auth import Access
from gateway.jobs.calls.base import Calls, CallsError
from gateway.jobs.calls.dispatcher import Dispatcher
from gateway.jobs.calls.sqlite import SqliteCalls
from gateway.jobs.cron.ticker import Ticker
from gateway.jobs.functions import FunctionView, packages_in, packages_of, triggers
from gateway.jobs.leadership import Leadership
from gateway.jobs.packages import Packages
from gateway.jobs.replies import HANDLERS
from gateway.jobs.server import SocketServer

__all__ = ["Jobs"]

log = logging.getLogger(__name__)

LEASE_NAME = "faaslite-jobs"
RECORDS_KEPT = 7 * 86400.0
"""Seconds after its end that a call's record is kept."""
HOUSEKEEPING = 3600.0
"""Seconds between two rounds of deleting old records and packages."""


class Jobs:
    """`gateway_url` is `http://HOST:PORT`, `clock` gives seconds since the epoch. The informers are started by their owner."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        socket_path: Path,
        data_dir: Path,
        gateway_url: str,
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        self._client = client
        self._socket_path = socket_path
        self._data_dir = data_dir
        self._gateway_url = gateway_url
        self._clock = clock
        self._functions: Informer[FunctionView] = informers.watch(FUNCTION, FunctionView)
        self._replica_sets = informers.watch(REPLICA_SET, ReplicaSet, labels=LABEL_FUNCTION)
        self._functions.add_handler(self._function_changed)
        self._packages = Packages(data_dir / "packages")
        self._running: _Running | None = None

    async def start(self) -> None:
        """Returns when requests are answered. Raises `CallsUnavailable` where another process has the data directory."""
        await self._packages.start()
        calls = await SqliteCalls.open(self._data_dir / "calls.db")
        dispatcher = Dispatcher(
            calls, self._gateway_url, owner=f"{socket.gethostname()}-{os.getpid()}", clock=self._clock
        )
        ticker = Ticker(calls, inserted=dispatcher.wake, canceled=dispatcher.abort, clock=self._clock)
        leadership = Leadership(
            self._client, LEASE_NAME, SYSTEM_NAMESPACE, f"{socket.gethostname()}:{self._data_dir}", (dispatcher, ticker)
        )
        access = Access(self._client)
        admin = Admin(access, self._packages, calls, ticker)
        accepting = AsyncCalls(self._functions, calls, dispatcher.wake, self._clock)
        own = [Route("/healthz", _healthz, methods=["GET"]), Route("/metrics", self._metrics, methods=["GET"])]
        app = Starlette(routes=[*admin.routes(), *accepting.routes(), *own], exception_handlers=HANDLERS)
        server = SocketServer(app, self._socket_path)
        try:
            await server.start()
        except BaseException:
            await calls.close()
            raise
        self._running = _Running(calls, dispatcher, ticker, leadership, server)
        for function in self._functions.values():
            self._function_changed(None, function)
        await leadership.start()
        self._running.housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")

    async def stop(self) -> None:
        """Calls that run are given up and put back into the queue."""
        running = self._running
        if running is None:
            return
        if running.housekeeping is not None:
            running.housekeeping.cancel()
            await asyncio.wait([running.housekeeping])
        await running.leadership.stop()
        await running.server.stop()
        self._running = None
        await running.calls.close()

    @property
    def leading(self) -> bool:
        """Whether this process executes calls now."""
        return self._running is not None and self._running.leadership.leading

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
        running = self._running
        assert running is not None
        text = metrics.render(
            await running.calls.counts(),
            running.dispatcher.finished,
            running=running.dispatcher.running,
            triggers=running.ticker.count,
            leading=running.leadership.leading,
        )
        return Response(text, 200, None, metrics.CONTENT_TYPE)


@dataclass
class _Running:
    """What exists from `start` to `stop`."""

    calls: Calls
    dispatcher: Dispatcher
    ticker: Ticker
    leadership: Leadership
    server: SocketServer
    housekeeping: asyncio.Task[None] | None = None


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok")
