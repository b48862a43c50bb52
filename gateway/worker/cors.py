"""Cross-origin requests, answered by the gateway where `spec.http.cors` says so (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re

from gateway.worker import views
from gateway.worker.fields import RequestFields

__all__ = ["Policy"]

_ASKED = re.compile(rb"(?im)^access-control-request-(method|headers):[ \t]*([^\r\n]*?)[ \t]*\r?$")


class Policy:
    """What one function allows to pages of other origins. A function that answers with fields of its own keeps them."""

    def __init__(self, cors: views.Cors) -> None:
        self._origins = frozenset(each.lower().rstrip("/").encode() for each in cors.origins)
        self._any = b"*" in self._origins
        self._methods = ", ".join(cors.methods).encode()
        self._headers = ", ".join(cors.headers).encode()
        self._credentials = cors.credentials
        self._exposed = ", ".join(cors.expose_headers).encode()
        self._max_age = cors.max_age

    def preflight(self, method: bytes, fields: RequestFields) -> bytes | None:
        """The fields of the answer to a preflight request; None where it is none. Without the fields that allow it where it isn't allowed."""
        if method != b"OPTIONS":
            return None
        asked = {name.lower(): value for name, value in _ASKED.findall(fields.forward)}
        if b"method" not in asked:
            return None
        allowed = self.fields(fields.origin)
        if not allowed:
            return b"Vary: Origin\r\n"
        methods = self._methods or asked[b"method"]
        headers = self._headers if self._headers and self._headers != b"*" else asked.get(b"headers", b"")
        found = b"%sAccess-Control-Allow-Methods: %s\r\n" % (allowed, methods)
        if headers:
            found += b"Access-Control-Allow-Headers: %s\r\n" % headers
        if self._max_age:
            found += b"Access-Control-Max-Age: %d\r\n" % self._max_age
        return found

    def fields(self, origin: bytes) -> bytes:
        """What is added to a reply for a page of `origin`."""
        if not self._any and origin.lower() not in self._origins:
            return b""
        if self._any and not self._credentials:
            found = b"Access-Control-Allow-Origin: *\r\n"
        else:
            found = b"Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n" % origin
        if self._credentials:
            found += b"Access-Control-Allow-Credentials: true\r\n"
        if self._exposed:
            found += b"Access-Control-Expose-Headers: %s\r\n" % self._exposed
        return found
