"""`POST /async-function/NAME[.NAMESPACE][/path]`: the call is recorded, answered with its id, and executed later.

It is a call like one under `/function/`, not administration: it needs no token of the platform. The caller's
`Authorization` header is the function's and is kept with the call. An ASGI application of its own, since it is what jobs does most.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from core.client.informer import Informer
from faaslite.api.names import HEADER_CALL_ID, HEADER_REVISION
from gateway.jobs.calls.base import ASYNC, Calls, CallsError, Inserted, KeyReused, NewCall, Options, Request
from gateway.jobs.calls.batch import Batch
from gateway.jobs.calls.callbacks import check_url
from gateway.jobs.calls.trace import parse
from gateway.jobs.functions import FunctionView, Queueing, queueing

__all__ = ["PREFIX", "AsyncCalls"]

PREFIX = "/async-function/"
LARGEST_BODY = 1 << 20
"""Bytes of a queued request's body: it is kept in the database."""
LARGEST_DROPPED = 32 << 20
LONGEST_KEY = 255
DROPPED = frozenset({
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade", b"x-call-id", b"x-faaslite-cron", b"x-faaslite-deadline", b"x-faaslite-revision",
    b"x-callback-url", b"idempotency-key", b"traceparent",
})  # fmt: skip
"""Headers of the one connection, or the platform's own."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


class _Refused(Exception):
    def __init__(self, status: int, reason: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.headers = status, reason, message, headers


class AsyncCalls:
    """`clock` gives seconds since the epoch."""

    def __init__(
        self, functions: Informer[FunctionView], calls: Calls, clock: Callable[[], float], largest: int = LARGEST_BODY
    ) -> None:
        self._functions = functions
        self._calls = calls
        self._batch = Batch(calls)
        self._clock = clock
        self._largest = largest
        self._rules: dict[str, tuple[FunctionView, Queueing]] = {}
        self.accepted = 0
        self.refused = 0

    async def stop(self) -> None:
        """What was handed to the queue is answered first."""
        await self._batch.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = _Incoming(receive)
        try:
            answer = await self._accept(scope, incoming)
        except _Refused as why:
            self.refused += 1
            await incoming.drop()
            await _reply(send, why.status, {"error": why.reason, "message": why.message}, *why.headers)
            return
        except KeyReused as error:
            self.refused += 1
            await _reply(send, 422, {"error": "IdempotencyKeyReused", "message": str(error)})
            return
        except CallsError as error:
            self.refused += 1
            await _reply(send, 503, {"error": "QueueUnavailable", "message": str(error)}, (b"retry-after", b"1"))
            return
        self.accepted += 1
        name = answer.id.encode()
        headers = [(HEADER_CALL_ID.lower().encode(), name), (b"location", b"/system/calls/" + name)]
        if not answer.status:
            headers.append((b"idempotency-replayed", b"true"))
        await _reply(send, 202, {"callId": answer.id}, *headers)

    async def _accept(self, scope: Scope, incoming: _Incoming) -> Inserted:
        if scope["method"] != "POST":
            raise _Refused(405, "MethodNotAllowed", "a queued call is a POST", (b"allow", b"POST"))
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        named, slash, below = raw[len(PREFIX) :].decode("latin-1").partition("/")
        name, _, namespace = named.partition(".")
        namespace = namespace or "default"
        if not self._functions.synced:
            await self._functions.wait_synced()
        function = self._functions.get(f"{namespace}/{name}")
        if function is None or function.metadata.deletion_timestamp:
            raise _Refused(404, "FunctionNotFound", f'there is no function "{name}" in the namespace "{namespace}"')
        rules = self._rules_of(function)
        headers: list[tuple[str, str]] = []
        own: dict[bytes, str] = {}
        for key, value in scope["headers"]:
            if key in DROPPED:
                own[key] = value.decode("latin-1")
            else:
                headers.append((key.decode("latin-1"), value.decode("latin-1")))
        options = _options(own, rules)
        body = await self._body(own.get(b"content-length", ""), incoming)
        request = Request(
            "POST", f"/{below}" if slash else "/", scope["query_string"].decode("latin-1"), tuple(headers), body
        )
        wanted = own.get(b"x-call-id", "")
        call = NewCall(
            id=wanted if _ID.fullmatch(wanted) else uuid.uuid4().hex,
            namespace=namespace,
            function=name,
            trigger=ASYNC,
            accepted_at=self._clock(),
            request=request,
            retries=rules.retries,
            max_age=rules.max_age,
            options=options,
            fingerprint=_fingerprint(request) if options.key else "",
        )
        answer = await self._batch.insert(call)
        if not answer.status and answer.id == call.id and not await self._is_repeated(call):
            raise _Refused(400, "BadRequest", f"the call id {call.id} is in use")
        return answer

    def _rules_of(self, function: FunctionView) -> Queueing:
        found = self._rules.get(function.key)
        if found is None or found[0] is not function:
            if len(self._rules) > 10_000:
                self._rules.clear()
            found = self._rules[function.key] = (function, queueing(function))
        return found[1]

    async def _is_repeated(self, call: NewCall) -> bool:
        """A caller that had no answer sends again: the same id for the same function is the same call."""
        known = await self._calls.get(call.id)
        return known is not None and (known.namespace, known.function) == (call.namespace, call.function)

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

    def _too_large(self) -> _Refused:
        text = f"the body of a queued call may have {self._largest} bytes at most"
        return _Refused(413, "PayloadTooLarge", text, (b"connection", b"close"))


class _Incoming:
    """A request's body as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.ended = True
            raise _Refused(400, "BadRequest", "the connection ended before the body did")
        self.ended = not message.get("more_body")
        part: bytes = message.get("body", b"")
        return part

    async def drop(self) -> None:
        """Read what is left, within bounds: whoever is still sending it would see a broken connection, not why it was refused."""
        dropped = 0
        with contextlib.suppress(_Refused):
            while not self.ended and dropped < LARGEST_DROPPED:
                dropped += len(await self.part())


def _options(own: dict[bytes, str], rules: Queueing) -> Options:
    callback, key = own.get(b"x-callback-url", ""), own.get(b"idempotency-key", "")
    revision, traceparent = own.get(b"x-faaslite-revision", ""), own.get(b"traceparent", "")
    if callback:
        try:
            check_url(callback)
        except ValueError as error:
            raise _Refused(400, "BadRequest", f"X-Callback-Url: {error}") from None
    if len(key) > LONGEST_KEY:
        raise _Refused(400, "BadRequest", f"an Idempotency-Key may have {LONGEST_KEY} characters at most")
    if revision and not _REVISION.fullmatch(revision):
        raise _Refused(400, "BadRequest", f'{HEADER_REVISION}: "{revision}" is not a name of a revision')
    return Options(
        callback=callback,
        dead_letter=rules.dead_letter,
        revision=revision,
        traceparent=traceparent if parse(traceparent) else "",
        key=key,
    )


def _fingerprint(request: Request) -> str:
    """Of what makes two requests the same; headers differ from try to try."""
    seen = hashlib.blake2b(digest_size=16)
    for part in (request.method.encode(), request.path.encode(), request.query.encode(), request.body):
        seen.update(len(part).to_bytes(8, "big") + part)
    return seen.hexdigest()


async def _reply(send: Send, status: int, document: dict[str, str], *headers: tuple[bytes, bytes]) -> None:
    body = _encode(document)
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
