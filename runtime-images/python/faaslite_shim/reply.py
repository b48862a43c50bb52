"""From what a handler returns to what goes over the wire."""

from __future__ import annotations

import http
import inspect
import json
from collections.abc import Mapping
from typing import Any

from . import sdk

__all__ = ["HeaderList", "InvalidResponse", "Reply", "failure", "head", "to_reply"]

HeaderList = list[tuple[bytes, bytes]]
_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus}
_TEXT, _BYTES, _JSON = b"text/plain; charset=utf-8", b"application/octet-stream", b"application/json"
_CLOUDEVENT = b"application/cloudevents+json"
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=sdk.jsonable).encode
_FRAMING = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade")


class InvalidResponse(Exception):
    """The handler returned what can't be turned into a reply."""


class Reply:
    """A status, headers (names in lower case), and either the whole body or a stream of its parts."""

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(self, status: int, headers: HeaderList, body: bytes = b"", stream: Any = None) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream


def to_reply(value: Any) -> Reply:
    """Raises `InvalidResponse`."""
    if type(value) is Reply:
        return value
    status, extra = 0, None
    if type(value) is tuple and len(value) in (2, 3) and type(value[1]) is int:
        extra = value[2] if len(value) == 3 else None
        value, status = value[0], value[1]
        if not 200 <= status <= 599:
            raise InvalidResponse(f"the handler returned the status {status}; it must be from 200 to 599")
    headers = _headers(extra) if extra is not None else []
    kind, body, stream = _body(value)
    if kind and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", kind))
    return Reply(status or (204 if value is None else 200), headers, body, stream)


def _body(value: Any) -> tuple[bytes, bytes, Any]:
    if value is None:
        return b"", b"", None
    if isinstance(value, str):
        return _TEXT, value.encode("utf-8", "surrogatepass"), None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES, bytes(value), None
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return _BYTES, b"", value
    try:
        return _CLOUDEVENT if type(value) is sdk.CloudEvent else _JSON, _to_json(value).encode(), None
    except (TypeError, ValueError) as error:
        raise InvalidResponse(f"the handler returned a {type(value).__name__} that can't be sent: {error}") from error


def _headers(extra: Any) -> HeaderList:
    pairs = list(extra.items()) if isinstance(extra, Mapping) else extra
    try:
        found = [(str(name).lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in pairs]
    except (TypeError, ValueError) as error:
        raise InvalidResponse(f"the handler returned headers that are no mapping of text: {error}") from error
    for name, value in found:
        if not name or any(each in b" \t\r\n:\0" for each in name) or any(each in b"\r\n\0" for each in value):
            raise InvalidResponse(f"the handler returned the header {name!r} with characters that are not allowed")
    return [each for each in found if each[0] not in _FRAMING]


def failure(status: int, reason: str, message: str, call_id: str, busy: bool = False) -> Reply:
    """An error of the protocol, as JSON."""
    body = json.dumps({"error": reason, "message": message, "callId": call_id}).encode()
    headers: HeaderList = [(b"content-type", _JSON), (b"x-call-id", call_id.encode("latin-1", "replace"))]
    if busy:
        headers.append((b"x-faaslite-busy", b"1"))
    return Reply(status, headers, body)


def head(status: int, headers: HeaderList, length: int, close: bool) -> bytes:
    """Status line and headers with their end. `length` -1: chunked; -2: no framing header (204, 304)."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n".encode()
    parts = [line]
    parts += [b"%b: %b\r\n" % each for each in headers]
    if length >= 0:
        parts.append(b"content-length: %d\r\n" % length)
    elif length == -1:
        parts.append(b"transfer-encoding: chunked\r\n")
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(parts)
