"""Collects usage: every 15 s, what gateway workers have counted since, which calls have ended, how long instances lived.

A worker is known by its socket (the file is made anew with each process), so a worker that was killed begins a count of its own. What it had counted since
it was last read is lost with it, 15 s at most; so are instances that came and went while jobs was down.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from core.api.views import Pod
from gateway.jobs.calls.base import Calls, CallsError
from gateway.jobs.usage.ledger import KEPT, Ledger, Row, day_of
from gateway.jobs.usage.measures import Lifetime, counters, grown, lifetime, lived

__all__ = ["Collector"]

log = logging.getLogger(__name__)

PERIOD = 15.0
SETTLED = 10.0
"""Seconds after its end that a call is surely recorded."""
PATIENCE = 2.0
_SOCKETS = "gateway-*.sock"
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
_CALLS, _PODS = "calls", "pods"


class Collector:
    """`sockets` is the folder of the gateway workers' own sockets, `pods` the Pods of functions once `synced` has returned, `executed` the executions of calls that jobs
    has made, by (namespace, function, class of status); it is emptied here. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        ledger: Ledger,
        calls: Calls,
        sockets: Path,
        pods: Callable[[], Iterable[Pod]],
        synced: Callable[[], Awaitable[None]],
        executed: Counter[tuple[str, str, str]],
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._calls = calls
        self._sockets = sockets
        self._pods = pods
        self._synced = synced
        self._known = False
        """Whether all Pods are."""
        self._executed = executed
        self._clock = clock
        self._gone: list[Lifetime] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="usage")

    async def stop(self) -> None:
        """What can be known by now is collected first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            if self._known:
                await self._try()
        await asyncio.to_thread(self._ledger.close)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """An informer's handler: a Pod that ends between two turns lived until then."""
        ended = old is not None and old.status.phase not in ("Succeeded", "Failed") and (
            new is None or new.status.phase in ("Succeeded", "Failed")
        )  # fmt: skip
        if ended and old is not None and (found := lifetime(old, self._clock(), gone=True)) is not None:
            self._gone.append(found)

    async def rows(self, since: str, namespace: str) -> list[Row]:
        return await asyncio.to_thread(self._ledger.rows, since, namespace)

    async def step(self, now: float) -> None:
        """Everything up to now. Raises CallsError, sqlite3.Error; then it is collected the next time."""
        amounts: Counter[tuple[str, str, str]] = Counter()
        sources: dict[str, Mapping[str, float]] = {}
        for source, text in (await self._scrape()).items():
            seen = counters(text)
            before = await asyncio.to_thread(self._ledger.read, source)
            amounts.update(grown(before, seen))
            sources[source] = {"/".join(key): value for key, value in seen.items()} or {"": 0.0}
        # Calls
        through = (await asyncio.to_thread(self._ledger.read, _CALLS)).get("through", now - SETTLED)
        until = max(now - SETTLED, through)
        for (namespace, function, trigger, status), count in (await self._calls.ended(through, until)).items():
            amounts[namespace, function, f"{trigger}.{status}"] += count
        sources[_CALLS] = {"through": until}
        # Instances. Ended ones are counted up to their end, those that live up to now.
        since = (await asyncio.to_thread(self._ledger.read, _PODS)).get("through", now)
        gone, self._gone = self._gone, []
        executed = Counter(self._executed)
        self._executed.clear()
        live = [found for each in self._pods() if (found := lifetime(each, now)) is not None and found.ended is None]
        amounts.update(lived([*gone, *live], since, now))
        sources[_PODS] = {"through": now}
        for (namespace, function, code), count in executed.items():
            amounts[namespace, function, f"executed.{code}"] += count
        try:
            await asyncio.to_thread(self._ledger.add, day_of(now), amounts, sources)
        except BaseException:
            self._gone += gone
            self._executed.update(executed)
            raise
        workers = [each for each in await asyncio.to_thread(self._ledger.sources) if each.startswith("gateway")]
        lost = [each for each in workers if each not in sources and not self._is_there(each)]
        await asyncio.to_thread(self._ledger.forget, day_of(now - KEPT * 86400.0), lost)

    def _is_there(self, source: str) -> bool:
        return any(_identity(path) == source for path in self._sockets.glob(_SOCKETS))

    async def _scrape(self) -> dict[str, str]:
        """Of each worker, by its identity."""
        found: dict[str, str] = {}
        for path in sorted(self._sockets.glob(_SOCKETS)):
            if (source := _identity(path)) is None:
                continue
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_unix_connection(path)
                    try:
                        writer.write(_REQUEST)
                        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                    finally:
                        writer.transport.abort()
            except (OSError, TimeoutError):
                continue
            if head.startswith(b"HTTP/1.1 200 ") and _identity(path) == source:
                found[source] = body.decode()
        return found

    async def _try(self) -> None:
        try:
            await self.step(self._clock())
        except (CallsError, sqlite3.Error, OSError, ValueError) as error:
            log.warning("usage was not collected: %s", error)

    async def _run(self) -> None:
        await self._synced()
        self._known = True
        while True:
            await self._try()
            await asyncio.sleep(PERIOD)


def _identity(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{path.stem}/{found.st_ino}/{found.st_ctime_ns}"
