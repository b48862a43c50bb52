"""Tells callers that their calls have ended: a POST of the record to the URL that they gave, tried again until somebody takes it.

At least once, like executions: a process that dies between the POST and its note of it leaves the callback to be made again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from core import clock as clocks
from faaslite.api.names import HEADER_CALL_ID
from gateway.jobs.calls.base import Callback, Calls, CallsError
from gateway.jobs.calls.trace import context_of, root_span
from gateway.jobs.documents import call_document

__all__ = ["Callbacks", "check_url"]

log = logging.getLogger(__name__)

LONGEST_URL = 2048
TIMEOUT = 10.0
"""Seconds that a receiver is given to answer."""
TRIES = 8
FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
AT_ONCE = 32
TROUBLE = 1.0

_encode = msgspec.json.Encoder().encode


def check_url(url: str) -> str:
    """The URL. ValueError says what is wrong with it."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"a callback URL may have {LONGEST_URL} characters at most")
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one:
        raise ValueError(f"{url!r} is not a callback URL: http://HOST/... or https://HOST/... is expected")
    if _link_local(parts.hostname):
        raise ValueError(f"{parts.hostname} is a link-local address: callbacks don't go there")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a callback URL may not hold a password: it is kept with the call's record")
    return url


def _link_local(host: str) -> bool:
    """Where clouds keep the credentials of their machines."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


class _Resolver(aiohttp.ThreadedResolver):
    """Names don't lead to link-local addresses either."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        found = await super().resolve(host, port, family)
        kept = [each for each in found if not _link_local(each["host"])]
        if not kept:
            raise OSError(f"{host} is a name of link-local addresses only")
        return kept


class Callbacks:
    """`clock` gives seconds since the epoch."""

    def __init__(self, calls: Calls, *, clock: Callable[[], float] = clocks.wall) -> None:
        self._calls = calls
        self._clock = clock
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._out: set[asyncio.Task[None]] = set()
        self.finished: Counter[str] = Counter()
        """How many were Delivered, Retried, Failed."""
        calls.listen(self._heard)

    def _heard(self, kind: str, call: str) -> None:
        if kind != "queued":
            self._wake.set()

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=5)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=AT_ONCE, resolver=_Resolver())
        )
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="callbacks")

    async def stop(self) -> None:
        tasks = [*([self._task] if self._task else []), *self._out]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._task = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def step(self) -> float | None:
        """Begin what is due; returns when to look again."""
        room = AT_ONCE - len(self._out)
        if room <= 0:
            return None
        if await self._calls.next_callback() is None:
            return None
        for each in await self._calls.take_callbacks(self._clock(), 2 * TIMEOUT, room):
            task = asyncio.create_task(self._deliver(each), name=f"callback of {each.record.id}")
            self._out.add(task)
            task.add_done_callback(self._ended)
        return await self._calls.next_callback()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._out.discard(task)
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                due = await self.step()
            except CallsError as error:
                log.warning("callbacks wait for the queue: %s", error)
                due = self._clock() + TROUBLE
            except Exception:
                log.exception("callbacks failed")
                due = self._clock() + TROUBLE
            timer = None if due is None else loop.call_later(max(due - self._clock(), 0.01), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _deliver(self, callback: Callback) -> None:
        record = callback.record
        error = await self._post(callback)
        try:
            if not error:
                self.finished["Delivered"] += 1
                await self._calls.called_back(record.id, None)
            elif callback.tries >= TRIES:
                self.finished["Failed"] += 1
                log.warning("the callback of call %s is given up after %d tries: %s", record.id, callback.tries, error)
                await self._calls.called_back(record.id, None, error)
            else:
                self.finished["Retried"] += 1
                delay = min(FIRST_DELAY * 2.0 ** (callback.tries - 1), LONGEST_DELAY)
                delay *= 0.5 + random.random() / 2  # noqa: S311 - jitter
                await self._calls.called_back(record.id, self._clock() + delay, error)
        except CallsError as failure:
            log.warning("what became of the callback of call %s was not recorded: %s", record.id, failure)

    async def _post(self, callback: Callback) -> str:
        """What went wrong, "" for nothing. Redirects are not followed: a callback goes where its caller said."""
        assert self._session is not None
        record = callback.record
        headers = {
            "Content-Type": "application/json",
            HEADER_CALL_ID: record.id,
            "X-Faaslite-Status": record.status,
            "traceparent": context_of(record.id, record.options).traceparent(root_span(record.id)),
        }
        url = record.options.callback
        try:
            body = _encode(call_document(record))
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                return "" if reply.status < 300 else f"it answered {reply.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}".removesuffix(": ")
