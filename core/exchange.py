"""One request of a connection and its reply: ASGI's `receive` and `send` (https://asgi.readthedocs.io/en/latest/specs/www.html) over HTTP/1.1.

Most replies are whole when they begin, and `whole` sends those with one write and without a look at each header. It costs nothing that isn't used: no
event until somebody waits, no timer, no callback of the task.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.guarded import Guarded

__all__ = ["BODY_HELD", "Exchange", "Flow"]

log = logging.getLogger(__name__)

BODY_HELD = 64 << 10
"""Bytes of a body that wait for the application, before the connection isn't read any more."""
_BAD_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FAILED = b"Internal Server Error"


def _status_line(code: int) -> bytes:
    try:
        phrase = http.HTTPStatus(code).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %s\r\n" % (code, phrase)


_STATUS = {code: _status_line(code) for code in range(100, 600)}


class Flow:
    """Whether a connection is read, and takes what it is sent. Nothing more is read while something that was read waits (in `unfed`) to be parsed."""

    __slots__ = ("_transport", "_unfed", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport, unfed: Any) -> None:
        self._transport = transport
        self._unfed = unfed
        self._writable: asyncio.Event | None = None
        self.read_paused = self.write_paused = False

    async def drain(self) -> None:
        """Until the client takes more."""
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and not self._unfed:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None


class Exchange:
    """`disconnected`: the client has gone; `chunked`: how the reply's body is written (None until it has begun)."""

    __slots__ = (
        "_connection", "_continues", "_event", "_left", "_news", "body", "chunked", "complete", "disconnected", "flow", "keep_alive",
        "more_body", "scope", "started", "task", "transport",
    )  # fmt: skip

    def __init__(self, connection: Guarded, scope: dict[str, Any], keep_alive: bool, continues: bool) -> None:
        self._connection: Guarded | None = connection
        self.scope = scope
        self.flow = connection.flow
        self.transport = connection.transport
        self.keep_alive = keep_alive
        self._continues = continues
        self._event: asyncio.Event | None = None
        self._news = False
        self._left = 0
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.chunked: bool | None = None
        self.disconnected = self.started = self.complete = False
        self.task: asyncio.Task[None] | None = None

    # What the connection tells

    def add(self, part: bytes) -> None:
        """Bytes of the body."""
        if not self.body:
            self.body = part
        else:
            if type(self.body) is bytes:
                self.body = bytearray(self.body)
            self.body += part
            if len(self.body) > BODY_HELD:
                self.flow.pause_reading()
        self.wake()

    def wake(self) -> None:
        """There is something to receive."""
        self._news = True
        if self._event is not None:
            self._event.set()

    def client(self) -> Hashable:
        """Whose request it is."""
        connection = self._connection
        return None if connection is None else connection.guards.client_of(self.scope)

    def start(self) -> None:
        """Have the application answer."""
        connection = self._connection
        if connection is not None and not self.disconnected:
            tasks = connection.guards.tasks
            self.task = task = connection.loop.create_task(self._run(connection.app, tasks))
            tasks.add(task)

    async def _run(self, app: Any, tasks: set[asyncio.Task[None]]) -> None:
        try:
            try:
                await app(self.scope, self.receive, self.send)
            except asyncio.CancelledError:
                pass  # the server ends
            except Exception:
                log.exception("the application failed")
                await self._fail()
                return
            if not self.complete and not self.disconnected:
                log.error("the application returned without %s", "an end" if self.started else "a reply")
                await self._fail()
        finally:
            self._connection = None
            if self.task is not None:
                tasks.discard(self.task)

    async def _fail(self) -> None:
        if self.started:
            self.transport.close()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILED)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": _FAILED})

    # ASGI

    async def receive(self) -> dict[str, Any]:
        if self._continues and not self.transport.is_closing():
            self._continues = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.complete:
            self.flow.resume_reading()
            if not self._news:
                if self._event is None:
                    self._event = asyncio.Event()
                self._event.clear()
                await self._event.wait()
            self._news = False
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: dict[str, Any]) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if self.complete or kind != ("http.response.body" if self.started else "http.response.start"):
            raise RuntimeError(f"{kind} was sent out of its turn")
        if self.started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_head(message["status"], message.get("headers", ()))

    def _send_head(self, status: int, headers: Any) -> None:
        self.started, self._continues = True, False
        content, closes = [_STATUS[status]], False
        for name, value in headers:
            if _BAD_NAME.search(name):
                raise RuntimeError("Invalid HTTP header name.")
            if _BAD_VALUE.search(value):
                raise RuntimeError("Invalid HTTP header value.")
            lower = name.lower()
            if lower == b"content-length" and self.chunked is None:
                self._left, self.chunked = int(value), False
            elif lower == b"transfer-encoding" and value.lower() == b"chunked":
                self._left, self.chunked = 0, True
            elif lower == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
                self.keep_alive, closes = False, True
            content += (lower, b": ", value, b"\r\n")
        if not self.keep_alive and not closes:
            content.append(b"connection: close\r\n")
        if self.chunked is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked = True
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        self.transport.write(b"".join(content))

    def _send_body(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self._left = 0
        elif self.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(chunk if more else chunk + b"0\r\n\r\n")
        else:
            if len(body) > self._left:
                raise RuntimeError("Response content longer than Content-Length")
            self._left -= len(body)
            self.transport.write(body)
        if not more:
            if self._left:
                raise RuntimeError("Response content shorter than Content-Length")
            self._end()

    # Past ASGI

    def whole(self, status: int, fields: bytes, body: bytes) -> bool:
        """Send the whole reply; `fields` are its header lines, `content-length` among them. False where that can't be now: the client takes no more."""
        if self.disconnected:
            return True
        if self.started or self.flow.write_paused:
            return False
        self.started, self.chunked = True, False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((_STATUS[status], fields, end, body)))
        self._end()
        return True

    def _end(self) -> None:
        self.complete = True
        self.wake()
        if not self.keep_alive:
            self.transport.close()
        if self._connection is not None:
            self._connection.on_response_complete()
