"""The gateway's own replies: every reason with its status, and how one looks on the wire."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

__all__ = [
    "ACCESS_UNKNOWN", "ACTIVATION_TIMEOUT", "BAD_REPLY", "BAD_REQUEST", "CANCELLED", "DEADLINE_EXCEEDED", "FORBIDDEN", "FUNCTION_NOT_FOUND", "FUNCTION_NOT_READY",
    "HEADERS_TOO_LARGE", "INSTANCE_BUSY", "INSTANCE_DIED", "JOBS_UNAVAILABLE", "NOT_FOUND", "PAYLOAD_TOO_LARGE", "QUEUE_FULL", "QUOTA_EXCEEDED",
    "REQUEST_TIMEOUT", "UNAUTHORIZED", "BadHead", "Failure", "error_body", "render",
]  # fmt: skip


class Failure:
    """A reason with its HTTP status; `retry_after` (seconds) is told to the client where it is set."""

    __slots__ = ("reason", "retry_after", "status")

    def __init__(self, status: int, reason: str, retry_after: int = 0) -> None:
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


BAD_REQUEST = Failure(400, "BadRequest")
UNAUTHORIZED = Failure(401, "Unauthorized")
FORBIDDEN = Failure(403, "Forbidden")
NOT_FOUND = Failure(404, "NotFound")
FUNCTION_NOT_FOUND = Failure(404, "FunctionNotFound")
REQUEST_TIMEOUT = Failure(408, "RequestTimeout")
PAYLOAD_TOO_LARGE = Failure(413, "PayloadTooLarge")
QUOTA_EXCEEDED = Failure(429, "QuotaExceeded", 1)
HEADERS_TOO_LARGE = Failure(431, "HeadersTooLarge")
INSTANCE_DIED = Failure(502, "InstanceDied")
BAD_REPLY = Failure(502, "BadReply")
FUNCTION_NOT_READY = Failure(503, "FunctionNotReady", 1)
QUEUE_FULL = Failure(503, "QueueFull", 1)
ACTIVATION_TIMEOUT = Failure(503, "ActivationTimeout", 1)
INSTANCE_BUSY = Failure(503, "InstanceBusy", 1)
JOBS_UNAVAILABLE = Failure(503, "JobsUnavailable", 1)
ACCESS_UNKNOWN = Failure(503, "AccessUnknown", 1)
DEADLINE_EXCEEDED = Failure(504, "DeadlineExceeded")

CANCELLED = 499
"""What a call is counted as whose client went away; never sent."""


class BadHead(Exception):
    """A head or a body's framing that isn't acceptable; the connection can't be used any further."""

    def __init__(self, message: str, failure: Failure = BAD_REQUEST) -> None:
        super().__init__(message)
        self.message = message
        self.failure = failure


def error_body(reason: str, message: str, call_id: str) -> bytes:
    return msgspec.json.encode({"error": reason, "message": message, "callId": call_id})


def render(failure: Failure, message: str, call_id: bytes, *, connection: bytes = b"", body: bool = True) -> bytes:
    """The whole reply. `connection` is further lines with their ends, or empty; without `body` it answers HEAD."""
    content = error_body(failure.reason, message, call_id.decode("ascii"))
    if failure.status == 401:
        connection = b'WWW-Authenticate: Bearer realm="faaslite"\r\n' + connection
    retry = b"Retry-After: %d\r\n" % failure.retry_after if failure.retry_after else b""
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Call-Id: %s\r\n%s%s\r\n" % (
        failure.status,
        HTTPStatus(failure.status).phrase.encode("ascii"),
        len(content),
        call_id,
        retry,
        connection,
    )
    return head + content if body else head
