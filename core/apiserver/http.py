"""The HTTP edge: headers and bodies in, replies, watches and log streams out, over ASGI.

It must not know kinds or rules. A reply to a write leaves when the write is durable; the caller awaits that.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from core.apiserver.events import error_line
from core.apiserver.fanout import Feed
from core.apiserver.request import Headers, Reply, TextStream, WatchStream
from core.errors import ApiError, TooLarge
from core.serving import Whole

__all__ = [
    "BODY_LIMIT",
    "Head",
    "read_body",
    "read_head",
    "send_chunks",
    "send_error",
    "send_plain",
    "send_reply",
    "send_text",
    "send_watch",
]

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_LIMIT = 3 * 1024 * 1024
_GZIP_FROM = 128 * 1024
_SLOW_SECONDS = 30.0
_JSON = b"application/json"
_NO_CACHE = (b"cache-control", b"no-cache, private")
_JSON_FIELDS = b"content-type: application/json\r\ncache-control: no-cache, private\r\ncontent-length: %d\r\n"


class Head(NamedTuple):
    """What a request says before its body."""

    query: Mapping[str, str]
    authorization: str
    accept: str
    content_type: str
    gzip: bool
    user_agent: str = ""
    impersonate: tuple[tuple[str, str], ...] = ()
    """The `Impersonate-*` headers, names in lower case."""


def read_head(scope: Scope) -> Head:
    authorization = accept = content_type = user_agent = ""
    zipped = False
    impersonate: list[tuple[str, str]] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value.decode("latin-1")
        elif name == b"accept":
            accept = value.decode("latin-1")
        elif name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"accept-encoding":
            zipped = b"gzip" in value
        elif name == b"user-agent":
            user_agent = value.decode("latin-1")
        elif name.startswith(b"impersonate-"):
            impersonate.append((name.decode("latin-1"), value.decode("utf-8", "replace")))
    text = scope["query_string"]
    query = dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True)) if text else {}
    return Head(query, authorization, accept, content_type, zipped, user_agent, tuple(impersonate))


async def read_body(receive: Receive, grow: Callable[[int], None] | None = None) -> bytes:
    """`grow` is told of the bytes of bodies that come in parts, and may raise. Raises `TooLarge`, and `ConnectionError` where the client went away."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client closed the connection within a request")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge(f"Request entity too large: limit is {BODY_LIMIT}")
        if not message.get("more_body", False):
            if not parts:
                return bytes(part)
            return b"".join((*parts, part))
        parts.append(part)
        if grow is not None:
            grow(len(part))


def _quoted(text: str) -> bytes:
    """As the text of a `Warning` header (RFC 7234, 5.5)."""
    escaped = "".join(each for each in text if each >= " " and each != "\x7f").replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'.encode("latin-1", "replace")


async def send_reply(
    send: Send,
    reply: Reply,
    warnings: list[str],
    zipped: bool,
    *,
    bodiless: bool = False,
    whole: Whole | None = None,
    fields: bytes = b"",
) -> None:
    """Most replies are JSON as it is: they leave with `whole`, where there is one, with `fields` (lines) among their headers, which `send` adds by itself."""
    body = reply.body
    zipped = zipped and len(body) > _GZIP_FROM
    plain = not zipped and not warnings and reply.content_type == "application/json"
    shown = b"" if bodiless else body
    if plain and whole is not None and whole(reply.code, _JSON_FIELDS % len(body) + fields, shown):
        return
    headers = [
        (b"content-type", _JSON if reply.content_type == "application/json" else reply.content_type.encode()),
        _NO_CACHE,
    ]
    if zipped:
        body = await asyncio.to_thread(gzip.compress, body, 1)
        headers.append((b"content-encoding", b"gzip"))
        headers.append((b"vary", b"Accept-Encoding"))
    headers.append((b"content-length", b"%d" % len(body)))
    headers += [(b"warning", _quoted(each)) for each in warnings]
    await send({"type": "http.response.start", "status": reply.code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if bodiless else body})


async def send_error(send: Send, error: ApiError, said: Reply, warnings: Sequence[str] = ()) -> None:
    """`said` is the error's `Status`, in the form for who asked."""
    headers = [(b"content-type", said.content_type.encode()), _NO_CACHE]
    headers += [(b"warning", _quoted(each)) for each in warnings]
    if seconds := error.details.get("retryAfterSeconds"):
        headers.append((b"retry-after", b"%d" % seconds))
    if error.status_code == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"content-length", b"%d" % len(said.body)))
    await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": said.body})


async def send_plain(send: Send, code: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _until_gone(receive: Receive, tell: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    tell()


class _Patience:
    """Cancels a task that has been sending one message for half a minute or more. Costs a timer per half minute, not one per message."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.sending = self.lost = False
        self.sent = 0
        self._task = task
        self._seen = -1
        self._timer = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._look)

    def _look(self) -> None:
        if self.sending and self._seen == self.sent and self._task is not None:
            self.lost = True
            self._task.cancel()
            return
        self._seen = self.sent if self.sending else -1
        self._timer = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._look)

    def end(self) -> None:
        self._timer.cancel()


async def send_watch(receive: Receive, send: Send, stream: WatchStream, feed: Feed) -> None:
    """Events until the watch ends or the client goes. A client that takes nothing for half a minute is dropped."""
    watcher = stream.watcher
    listener = asyncio.create_task(_until_gone(receive, watcher.stop))
    patience = _Patience(asyncio.current_task())
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", _JSON), _NO_CACHE]})
        try:
            async with aclosing(watcher.changes()) as changes:
                async for batch in changes:
                    body = feed.encoded(batch)
                    patience.sending = True
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    patience.sending = False
                    patience.sent += 1
        except ApiError as error:
            await send({"type": "http.response.body", "body": error_line(error), "more_body": True})
        except asyncio.CancelledError:
            if not patience.lost:
                raise
            log.warning("a watch of %s was dropped: its client doesn't read", stream.registry.kind.resource)
            return
        await send({"type": "http.response.body", "body": b""})
    finally:
        patience.end()
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def send_text(receive: Receive, send: Send, stream: TextStream) -> None:
    """Bytes as they come, until they end or the client goes."""
    headers = [(b"content-type", stream.content_type.encode()), _NO_CACHE]
    await send_chunks(receive, send, 200, headers, stream.chunks)


async def send_chunks(
    receive: Receive, send: Send, status: int, headers: Headers, chunks: AsyncGenerator[bytes, None]
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})

    async def copy() -> None:
        async with aclosing(chunks) as found:
            async for chunk in found:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    copying = asyncio.create_task(copy())
    listener = asyncio.create_task(_until_gone(receive, copying.cancel))
    try:
        await asyncio.wait((copying,))
        if not copying.cancelled() and (error := copying.exception()) is not None:
            raise error
        await send({"type": "http.response.body", "body": b""})
    finally:
        for task in (copying, listener):
            task.cancel()
        await asyncio.gather(copying, listener, return_exceptions=True)
