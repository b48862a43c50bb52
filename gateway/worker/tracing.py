"""A span for each call that comes through this worker, between the caller's span and the function's.

Its id is the parent that the instance is told in `traceparent`: the gateway's own where the call has no trace yet, and else put in the place of the
caller's. Calls that jobs has made have their spans there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.worker.call import Call

__all__ = ["Recorder", "Tracing"]

_TRACEPARENT = re.compile(rb"\r\n(?i:traceparent):[ \t]*[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Recorder(Protocol):
    """Takes a server's span, see `gateway.otel.Spans`; times in seconds since the epoch."""

    def server(
        self, ids: tuple[str, str, str], name: str, began: float, ended: float, error: str,
        attributes: Mapping[str, str | int | float],
    ) -> None: ...  # fmt: skip


class Tracing:
    """Of one worker, where spans are exported."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._parents: dict[bytes, bytes] = {}
        """By our span: that of the caller. Of calls that haven't ended."""

    def join(self, head: bytes, span: bytes) -> bytes:
        """`head` with `span` in the place of the caller's."""
        found = _TRACEPARENT.search(head)
        if found is None:
            return head
        self._parents[span] = found[2]
        return b"%b%b%b" % (head[: found.start(2)], span, head[found.end(2) :])

    def ended(self, call: Call, now: float) -> None:
        """`now` is of the clock of `call.started`. `call.revision` is there."""
        found = _TRACEPARENT.search(call.head)
        revision = call.revision
        if found is None or revision is None or not call.client.has_span:
            return
        parent = self._parents.pop(found[2], b"")
        if not int(found[3], 16) & 1:
            return
        about: dict[str, Any] = {
            "faas.invoked_name": revision.function,
            "k8s.namespace.name": revision.namespace,
            "faaslite.revision": revision.key.partition("/")[2],
            "faaslite.call.id": call.id.decode("ascii"),
            "http.request.method": call.method.decode("ascii"),
            "http.response.status_code": call.status,
        }
        if call.waited >= 0:
            about["faas.coldstart_seconds"] = call.waited
        wall = time()
        ids = (found[1].decode("ascii"), found[2].decode("ascii"), parent.decode("ascii"))
        error = f"status {call.status}" if call.status >= 500 else ""
        name = f"{revision.function}.{revision.namespace}"
        self._recorder.server(ids, name, wall - (now - call.started), wall, error, about)
