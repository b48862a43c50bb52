"""One request to a local function's instance: a slot to wait for, a deadline, and the reply or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
from aiohttp import web
from yarl import URL

from core.clock import monotonic, wall
from faaslite.build.errors import BuildError
from faaslite.dev.functions import Functions, Running
from faaslite.dev.sockets import bridge

__all__ = ["HOP", "Asking", "Refused"]

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "proxy-connection", "content-length", "host", "expect"})  # fmt: skip


class Refused(Exception):
    """An answer in the function's place."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Asking:
    """One request to a function's instance: entered once it has a slot, for no longer than the call may take. Raises `Refused`."""

    def __init__(self, session: aiohttp.ClientSession, functions: Functions, running: Running | None, method: str, target: str, headers: list[tuple[str, str]], body: bytes, call_id: str) -> None:  # fmt: skip
        self._session, self._functions, self._running = session, functions, running
        self._method, self._target = method, target
        self._headers, self._body, self._call_id = headers, body, call_id
        self._url = URL()
        self._until = 0.0
        self._response: aiohttp.ClientResponse | None = None
        self._slots: asyncio.Semaphore | None = None

    async def __aenter__(self) -> Asking:
        running = self._running
        if running is None:
            raise Refused(404, "FunctionNotFound", "there is no such function")
        if running.instance is None:
            raise Refused(503, "FunctionNotReady", running.failure or "it is being started")
        if not running.instance.running:
            try:
                await self._functions.revive(running)
            except BuildError as error:
                raise Refused(503, "FunctionNotReady", str(error)) from error
        deadline = wall() + running.function.spec.timeout
        given = next((value for name, value in self._headers if name.lower() == "x-faaslite-deadline"), "")
        if given:
            with contextlib.suppress(ValueError):
                deadline = min(deadline, float(given))
        own = ("x-call-id", "x-faaslite-deadline")
        self._headers = [(k, v) for k, v in self._headers if k.lower() not in HOP and k.lower() not in own]
        self._headers += [("X-Call-Id", self._call_id), ("X-Faaslite-Deadline", f"{deadline:.3f}")]
        self._url = URL(running.instance.url + self._target, encoded=True)
        self._until = monotonic() + max(0.0, deadline - wall())
        if running.slots is not None:
            try:
                await asyncio.wait_for(running.slots.acquire(), max(0.0, self._until - monotonic()))
            except TimeoutError:
                raise _late() from None
            self._slots = running.slots
        return self

    async def response(self) -> aiohttp.ClientResponse:
        """The reply's head; its body can be read as long as this is entered."""
        skip = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
        request = self._session.request(
            self._method, self._url, headers=self._headers, data=self._body or None, skip_auto_headers=skip, allow_redirects=False
        )  # fmt: skip
        try:
            # A little longer: the shim itself answers that the deadline has passed.
            self._response = await asyncio.wait_for(request, max(0.0, self._until - monotonic()) + 1.0)
        except TimeoutError:
            raise _late() from None
        except aiohttp.ClientError as error:
            raise _broken(error) from error
        return self._response

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket, until its end."""
        try:
            return await bridge(request, self._session, self._url, self._headers)
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status, "HandshakeRefused", "the function refused the WebSocket") from error
        except aiohttp.ClientError as error:
            raise _broken(error) from error

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.release()
        self._release()

    def _release(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None


def _late() -> Refused:
    return Refused(504, "DeadlineExceeded", "the call took longer than the function's timeout")


def _broken(error: aiohttp.ClientError) -> Refused:
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        return Refused(502, "InstanceDied", "the instance ended during the call")
    return Refused(502, "BadReply", str(error) or type(error).__name__)
