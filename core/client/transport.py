"""What a client needs of a connection to the API: requests, and watches.

Three implementations: `core.client.http.HttpTransport` over TLS, `core.client.light.LightTransport` for programs that end soon, and
`core.apiserver.local.LocalTransport` in the API server's own process, whose watches see writes when they are applied, before they are durable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple, Protocol

__all__ = ["JSON", "JSON_PATCH", "MERGE_PATCH", "STRATEGIC_PATCH", "RawEvent", "Transport"]

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class RawEvent(NamedTuple):
    """A watch event: type (`ADDED MODIFIED DELETED BOOKMARK`) and the object's JSON."""

    type: str
    object: bytes


class Transport(Protocol):
    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        """The body of the reply. Raises `core.errors.ApiError` for a `Status`, and `ServiceUnavailable` where no answer came."""

    def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        """Events in batches; `query` has `resourceVersion` and selectors, `watch=true` is added here.

        Ends when the server ends the watch. Raises `ApiError` (an ERROR event becomes its error: `Expired` for 410).
        Close it with `contextlib.aclosing`.
        """

    async def close(self) -> None: ...
