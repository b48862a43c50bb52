"""Executes calls that are due, through the gateway, under a lease that is renewed while the request is out.

Nothing polls: the dispatcher sleeps until something was inserted (`wake`), an execution ended, or the next call falls due.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable

import aiohttp
import msgspec
from yarl import URL

from core import clock as clocks
from faaslite.api.names import HEADER_CALL_ID, HEADER_CRON
from gateway.jobs.calls.base import Calls, CallsError, Claimed, LeaseLost, Outcome
from gateway.jobs.calls.retry import Answer, after

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

LEASE = 30.0
CONCURRENCY = 256
PER_FUNCTION = 64
LARGEST_RESULT = 64 << 10
"""Bytes of a reply's body that the record keeps."""
LONGEST_CALL = 86400.0 + 60.0
"""Seconds: a function's timeout is the gateway's to keep, this only ends a request that nobody will answer."""
TROUBLE = 1.0
"""Seconds until the queue is tried again after it failed."""


class _GatewayError(msgspec.Struct):
    error: str = ""
    message: str = ""


_decode_error = msgspec.json.Decoder(_GatewayError).decode


class Dispatcher:
    """`gateway_url` is `http://HOST:PORT`; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        calls: Calls,
        gateway_url: str,
        *,
        owner: str,
        clock: Callable[[], float] = clocks.wall,
        concurrency: int = CONCURRENCY,
        per_function: int = PER_FUNCTION,
        lease: float = LEASE,
        largest_result: int = LARGEST_RESULT,
    ) -> None:
        self._calls = calls
        self._gateway = gateway_url.rstrip("/")
        self._owner = owner
        self._clock = clock
        self._concurrency = concurrency
        self._per_function = per_function
        self._lease = lease
        self._largest = largest_result
        self._running: dict[str, tuple[Claimed, asyncio.Task[None]]] = {}
        self._busy: Counter[tuple[str, str]] = Counter()
        self._wake = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._loops: list[asyncio.Task[None]] = []
        self.finished: Counter[str] = Counter()
        """How many executions ended, by what became of the call."""

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        timeout = aiohttp.ClientTimeout(total=LONGEST_CALL, sock_connect=5)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )
        self._wake.set()
        self._loops = [
            asyncio.create_task(self._run(), name="dispatcher"),
            asyncio.create_task(self._renew(), name="dispatcher leases"),
        ]

    async def stop(self) -> None:
        """Requests that are out are given up, and their calls go back into the queue: they will run again."""
        running = list(self._running.values())
        tasks = [*self._loops, *(task for _, task in running)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._loops = []
        for call, _ in running:
            try:
                await self._calls.again(call.id, call.fence, self._clock(), "the jobs process stopped while it ran")
            except CallsError as error:
                log.info("call %s was not put back: %s", call.id, error)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def wake(self) -> None:
        """Something was inserted."""
        self._wake.set()

    def abort(self, calls: Iterable[str]) -> None:
        """Give up on calls that were canceled."""
        for call in calls:
            if found := self._running.get(call):
                found[1].cancel()

    @property
    def running(self) -> int:
        return len(self._running)

    async def step(self) -> float | None:
        """Claim and begin what can run now; returns when to look again (None: when woken)."""
        now = self._clock()
        room = self._concurrency - len(self._running)
        if room <= 0:
            return None
        claimed = await self._calls.claim(self._owner, now, self._lease, room, self._busy, self._per_function)
        for call in claimed:
            task = asyncio.create_task(self._execute(call), name=f"call {call.id}")
            self._running[call.id] = (call, task)
            self._busy[call.namespace, call.function] += 1
            task.add_done_callback(functools.partial(self._ended, call))
        return await self._calls.next_due(now)

    def _ended(self, call: Claimed, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("call %s: the dispatcher failed, its lease will lapse", call.id, exc_info=error)
        found = self._running.get(call.id)
        if found is not None and found[0] is call:
            del self._running[call.id]
        key = (call.namespace, call.function)
        self._busy[key] -= 1
        if self._busy[key] <= 0:
            del self._busy[key]
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                due = await self.step()
            except CallsError as error:
                log.warning("the queue of calls failed: %s", error)
                due = self._clock() + TROUBLE
            except Exception:
                log.exception("dispatching failed")
                due = self._clock() + TROUBLE
            loop = asyncio.get_running_loop()
            timer = None if due is None else loop.call_later(max(due - self._clock(), 0.001), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            held = {call.id: call.fence for call, _ in self._running.values()}
            if not held:
                continue
            try:
                lost = await self._calls.renew(held, self._clock(), self._lease)
            except CallsError as error:
                log.warning("leases of %d calls were not renewed: %s", len(held), error)
                continue
            # A call that ended meanwhile is not lost.
            self.abort(each for each in lost if each in self._running and self._running[each][0].fence == held[each])

    async def _execute(self, call: Claimed) -> None:
        answer, result = await self._request(call)
        now = self._clock()
        then = after(call, answer, now, random.random())  # noqa: S311 - jitter
        try:
            if then.status:
                outcome = Outcome(then.status, answer.status, result, answer.error)
                await self._calls.finish(call.id, call.fence, outcome, now)
            else:
                due = now + then.delay
                await self._calls.again(
                    call.id, call.fence, due, answer.error, http_status=answer.status, executed=then.executed
                )
        except LeaseLost:
            log.info("call %s went to another claim or was canceled while it ran", call.id)
            return
        except CallsError as error:
            log.warning("the end of call %s was not recorded, it will run again: %s", call.id, error)
            return
        self.finished[then.status or "Retried"] += 1

    async def _request(self, call: Claimed) -> tuple[Answer, object]:
        assert self._session is not None
        request = call.request
        text = f"{self._gateway}/function/{call.function}.{call.namespace}{request.path}"
        url = URL(f"{text}?{request.query}" if request.query else text, encoded=True)
        headers = [*request.headers, (HEADER_CALL_ID, call.id)]
        if call.cron:
            headers.append((HEADER_CRON, call.cron))
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            ) as reply:
                body, truncated = await _read(reply, self._largest)
                return _answer(reply, body), _result(reply, body, truncated)
        except aiohttp.ClientConnectorError as error:
            return Answer(0, "GatewayUnreachable", f"the gateway can't be reached: {error}"), None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(0, "", f"the connection broke: {error or type(error).__name__}"), None


async def _read(reply: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """The body up to `limit` bytes, and whether there was more; all of it is read, so that the function can end."""
    kept = bytearray()
    truncated = False
    async for chunk in reply.content.iter_any():
        room = limit - len(kept)
        truncated = truncated or len(chunk) > room
        kept += chunk[:room] if room > 0 else b""
    return bytes(kept), truncated


def _answer(reply: aiohttp.ClientResponse, body: bytes) -> Answer:
    if reply.status < 400:
        return Answer(reply.status)
    try:
        said = _decode_error(body)
    except msgspec.DecodeError:
        said = _GatewayError()
    seconds = reply.headers.get("Retry-After", "")
    message = said.message or f"the function answered {reply.status}"
    error = f"{said.error}: {message}" if said.error else message
    reason = said.error if reply.status == 503 else ""  # a function may use these words with another status
    return Answer(reply.status, reason, error, float(seconds) if seconds.isdecimal() else None)


def _result(reply: aiohttp.ClientResponse, body: bytes, truncated: bool) -> dict[str, object]:
    kind = reply.headers.get("Content-Type", "")
    try:
        text, encoding = body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(body).decode(), "base64"
    return {"contentType": kind, "encoding": encoding, "body": text, "truncated": truncated}
