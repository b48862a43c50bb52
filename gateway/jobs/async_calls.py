"""`POST /async-function/NAME[.NAMESPACE][/path]` over HTTP: what a gateway worker doesn't hand over in a message (`gateway.jobs.doorway`).

An ASGI application of its own, without routes or middleware.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from faaslite.api.names import HEADER_CALL_ID
from gateway.handover import DROPPED, LARGEST_BODY, Accept
from gateway.jobs.accepting import Accepting, Refused

__all__ = ["PREFIX", "AsyncCalls"]

PREFIX = "/async-function/"
LARGEST_DROPPED = 32 << 20

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


class AsyncCalls:
    def __init__(self, accepting: Accepting, largest: int = LARGEST_BODY) -> None:
        self._accepting = accepting
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = _Incoming(receive)
        try:
            accept = await self._read(scope, incoming)
        except Refused as why:
            self._accepting.refused += 1
            await incoming.drop()
            await _reply(send, why.status, {"error": why.reason, "message": why.message}, *why.headers)
            return
        answer = await self._accepting.accept(accept)
        if answer.status != 202:
            headers = [(b"retry-after", b"1")] if answer.status == 503 else []
            await _reply(send, answer.status, {"error": answer.reason, "message": answer.message}, *headers)
            return
        name = answer.id.encode()
        headers = [(HEADER_CALL_ID.lower().encode(), name), (b"location", b"/system/calls/" + name)]
        if answer.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        await _reply(send, 202, {"callId": answer.id}, *headers)

    async def _read(self, scope: Scope, incoming: _Incoming) -> Accept:
        if scope["method"] != "POST":
            raise Refused(405, "MethodNotAllowed", "a queued call is a POST", (b"allow", b"POST"))
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        named, slash, below = raw[len(PREFIX) :].decode("latin-1").partition("/")
        name, _, namespace = named.partition(".")
        namespace = namespace or "default"
        await self._accepting.ready()
        self._accepting.find(namespace, name)  # before the body is read
        headers: list[tuple[str, str]] = []
        own: dict[bytes, str] = {}
        for key, value in scope["headers"]:
            if key in DROPPED:
                own[key] = value.decode("latin-1")
            else:
                headers.append((key.decode("latin-1"), value.decode("latin-1")))
        body = await self._body(own.get(b"content-length", ""), incoming)
        return Accept(
            0,
            own.get(b"x-call-id", ""),
            namespace,
            name,
            f"/{below}" if slash else "/",
            scope["query_string"].decode("latin-1"),
            tuple(headers),
            body,
            own.get(b"x-faaslite-revision", ""),
            own.get(b"traceparent", ""),
            own.get(b"x-callback-url", ""),
            own.get(b"idempotency-key", ""),
        )

    async def _body(self, length: str, incoming: _Incoming) -> bytes:
        if length.isdecimal() and int(length) > self._largest:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while not incoming.ended:
            parts.append(await incoming.part())
            size += len(parts[-1])
            if size > self._largest:
                raise self._too_large()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> Refused:
        text = f"the body of a queued call may have {self._largest} bytes at most"
        return Refused(413, "PayloadTooLarge", text, (b"connection", b"close"))


class _Incoming:
    """A request's body as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.ended = True
            raise Refused(400, "BadRequest", "the connection ended before the body did")
        self.ended = not message.get("more_body")
        part: bytes = message.get("body", b"")
        return part

    async def drop(self) -> None:
        """Read what is left, within bounds: whoever is still sending it would see a broken connection, not why it was refused."""
        dropped = 0
        with contextlib.suppress(Refused):
            while not self.ended and dropped < LARGEST_DROPPED:
                dropped += len(await self.part())


async def _reply(send: Send, status: int, document: dict[str, str], *headers: tuple[bytes, bytes]) -> None:
    body = _encode(document)
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
