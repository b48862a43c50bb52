"""`POST /async-function/NAME[.NAMESPACE][/path]`: the call is recorded, answered with its id, and executed later.

It is a call like one under `/function/`, not administration: it needs no token of the platform. The caller's
`Authorization` header is the function's and is kept with the call.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from core.client.informer import Informer
from core.errors import BadRequest
from faaslite.api.names import HEADER_CALL_ID
from gateway.jobs.calls.base import ASYNC, Calls, NewCall, Request
from gateway.jobs.functions import FunctionView, queueing
from gateway.jobs.packages import PayloadTooLarge
from gateway.jobs.replies import error, json

__all__ = ["AsyncCalls"]

LARGEST_BODY = 1 << 20
"""Bytes of a queued request's body: it is kept in the database."""
DROPPED = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade", "x-call-id", "x-faaslite-cron", "x-faaslite-deadline",
})  # fmt: skip
"""Headers of the one connection, or the platform's own."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AsyncCalls:
    """`inserted` is called after a call was recorded; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        functions: Informer[FunctionView],
        calls: Calls,
        inserted: Callable[[], None],
        clock: Callable[[], float],
        largest: int = LARGEST_BODY,
    ) -> None:
        self._functions = functions
        self._calls = calls
        self._inserted = inserted
        self._clock = clock
        self._largest = largest

    def routes(self) -> list[Route]:
        return [
            Route("/async-function/{name}", self.accept, methods=["POST"]),
            Route("/async-function/{name}/{path:path}", self.accept, methods=["POST"]),
        ]

    async def accept(self, request: HttpRequest) -> Response:
        name, _, namespace = request.path_params["name"].partition(".")
        namespace = namespace or "default"
        await self._functions.wait_synced()
        function = self._functions.get(f"{namespace}/{name}")
        if function is None or function.metadata.deletion_timestamp:
            return error(404, "FunctionNotFound", f'there is no function "{name}" in the namespace "{namespace}"')
        body = await self._body(request)
        rules = queueing(function)
        kept = Request("POST", _path(request), request.scope["query_string"].decode("latin-1"), _headers(request), body)
        call = NewCall(
            id=_identity(request.headers.get(HEADER_CALL_ID)),
            namespace=namespace,
            function=name,
            trigger=ASYNC,
            accepted_at=self._clock(),
            request=kept,
            retries=rules.retries,
            max_age=rules.max_age,
        )
        (answer,) = await self._calls.insert([call])
        if not answer.status and not await self._is_repeated(call):
            raise BadRequest(f"the call id {call.id} is in use")
        self._inserted()
        return json({"callId": call.id}, 202, {HEADER_CALL_ID: call.id})

    async def _is_repeated(self, call: NewCall) -> bool:
        """A caller that had no answer sends again: the same id for the same function is the same call."""
        known = await self._calls.get(call.id)
        return known is not None and (known.namespace, known.function) == (call.namespace, call.function)

    async def _body(self, request: HttpRequest) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._largest:
            raise PayloadTooLarge(f"the body of a queued call may have {self._largest} bytes at most")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._largest:
                raise PayloadTooLarge(f"the body of a queued call may have {self._largest} bytes at most")
        return bytes(body)


def _path(request: HttpRequest) -> str:
    """Below the function's name, encoded as it came."""
    raw: bytes = request.scope["raw_path"]
    return "/" + raw.decode("latin-1").split("/", 3)[3] if raw.count(b"/") > 2 else "/"


def _headers(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.scope["headers"]
        if name.decode("latin-1") not in DROPPED
    )


def _identity(wanted: str | None) -> str:
    return wanted if wanted and _ID.fullmatch(wanted) else uuid.uuid4().hex
