"""Errors that carry a Kubernetes `Status`: raised by the API server, rebuilt by the client from a reply.

The reasons, codes and the shape of `details` are those of `metav1.Status`
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "AlreadyExists", "ApiError", "BadRequest", "Conflict", "Expired", "FaasliteError", "Forbidden", "InternalError",
    "Invalid", "MethodNotAllowed", "NotAcceptable", "NotFound", "ServiceUnavailable", "Timeout", "TooLarge",
    "TooManyRequests", "Unauthorized", "UnsupportedMediaType", "api_error", "cause",
]  # fmt: skip


class FaasliteError(Exception):
    """The root of every error that this project raises knowingly."""


def cause(reason: str, message: str, field: str = "") -> dict[str, str]:
    """One entry of `Status.details.causes`."""
    found = {"reason": reason, "message": message}
    if field:
        found["field"] = field
    return found


class ApiError(FaasliteError):
    """A failed API request.

    `message` is for people, `reason` for programs; `details` has the keys of `metav1.StatusDetails`
    (`name`, `group`, `kind`, `uid`, `causes`, `retryAfterSeconds`), each of them optional.
    """

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details or {}
        self.status_code = self.code
        self.status_reason = self.reason

    @property
    def causes(self) -> Sequence[dict[str, str]]:
        found: Sequence[dict[str, str]] = self.details.get("causes", ())
        return found

    def status(self) -> dict[str, Any]:
        """The `Status` document that says this error on the wire, its keys in Kubernetes' order: there are clients that compare the text."""
        found: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.status_reason,
        }
        if self.details:
            found["details"] = self.details
        found["code"] = self.status_code
        return found


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Expired(ApiError):
    """A resourceVersion or continue token older than what the store still has."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


_BY_REASON: dict[str, type[ApiError]] = {
    each.reason: each
    for each in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists, Expired,
        TooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError, ServiceUnavailable, Timeout,
    )
}  # fmt: skip
_BY_REASON["Gone"] = Expired
_BY_CODE: dict[int, type[ApiError]] = {each.code: each for each in _BY_REASON.values()}
_BY_CODE[409] = Conflict


def api_error(status: dict[str, Any], code: int = 0) -> ApiError:
    """The error that a `Status` document stands for; `code` is the HTTP status, for documents without one."""
    code = int(status.get("code") or code or 500)
    reason = str(status.get("reason") or "")
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or ApiError
    error = kind(str(status.get("message") or f"the server answered {code}"), status.get("details") or {})
    error.status_code = code
    if reason:
        error.status_reason = reason
    return error
