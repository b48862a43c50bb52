"""How jobs answers over HTTP: JSON, and errors as `{"error": REASON, "message": TEXT}`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import ApiError
from gateway.jobs.archive import ArchiveInvalid
from gateway.jobs.calls.base import CallsError, KeyReused
from gateway.jobs.packages import DigestMismatch, PayloadTooLarge

__all__ = ["HANDLERS", "Streamed", "error", "json"]

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
_REASONS = {404: "NotFound", 405: "MethodNotAllowed"}


def json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encode(document), status, headers, "application/json")


def error(status: int, reason: str, message: str, headers: dict[str, str] | None = None, **more: str) -> Response:
    return json({"error": reason, "message": message, **more}, status, headers)


class Streamed(Response):
    """A body in slices. Starlette's own way loads another library's event loop at the first one, which holds up all calls for as long."""

    def __init__(self, slices: AsyncGenerator[bytes, None], headers: dict[str, str], media_type: str) -> None:
        self._slices = slices
        super().__init__(None, 200, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._slices) as slices:
            async for each in slices:
                await send({"type": "http.response.body", "body": each, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _api_error(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, ApiError)
    headers = {"WWW-Authenticate": "Bearer"} if failure.status_code == 401 else None
    return error(failure.status_code, failure.status_reason, failure.message, headers)


async def _calls_error(request: Request, failure: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, failure)
    return error(503, "QueueUnavailable", str(failure), {"Retry-After": "1"})


async def _key_reused(request: Request, failure: Exception) -> Response:
    return error(422, "IdempotencyKeyReused", str(failure))


async def _too_large(request: Request, failure: Exception) -> Response:
    return error(413, "PayloadTooLarge", str(failure))


async def _bad_digest(request: Request, failure: Exception) -> Response:
    return error(400, "DigestMismatch", str(failure))


async def _bad_archive(request: Request, failure: Exception) -> Response:
    return error(400, "PackageInvalid", str(failure))


async def _gone(request: Request, failure: Exception) -> Response:
    return error(400, "BadRequest", "the connection ended before the body did")


async def _http(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    message = f"{request.method} {request.url.path}: {failure.detail}"
    headers = dict(failure.headers) if failure.headers else None
    return error(failure.status_code, _REASONS.get(failure.status_code, "BadRequest"), message, headers)


async def _failed(request: Request, failure: Exception) -> Response:
    """Starlette raises it again after this answer, and the server logs it."""
    return error(500, "InternalError", "jobs failed on this request; its log says why")


HANDLERS: dict[Any, Any] = {
    ApiError: _api_error,
    CallsError: _calls_error,
    KeyReused: _key_reused,
    PayloadTooLarge: _too_large,
    DigestMismatch: _bad_digest,
    ArchiveInvalid: _bad_archive,
    ClientDisconnect: _gone,
    HTTPException: _http,
    Exception: _failed,
}
