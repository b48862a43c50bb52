"""Where the body of a request ends, and whether it is too long."""

from __future__ import annotations

from gateway.worker.errors import PAYLOAD_TOO_LARGE, BadHead
from gateway.worker.fields import RequestFields
from gateway.worker.http1 import Chunked

__all__ = ["RequestBody"]


class RequestBody:
    """Follows one body after the other of a connection. `left` is what is to come of one whose length is known, `size` the content
    of the others so far."""

    __slots__ = ("_chunked", "_limit", "left")

    def __init__(self) -> None:
        self.left = 0
        self._chunked: Chunked | None = None
        self._limit = 0.0

    @property
    def size(self) -> int:
        return self._chunked.payload if self._chunked is not None else 0

    def begin(self, fields: RequestFields, limit: float) -> None:
        """A body of at most `limit` bytes follows. Raises BadHead where it says to be longer."""
        self._limit = limit
        self.left = fields.length
        self._chunked = Chunked() if fields.chunked else None
        self._check(fields.length)

    def feed(self, data: bytes, at: int) -> int:
        """The index in `data` behind the body's end, -1 where it goes on. Raises BadHead."""
        if self._chunked is not None:
            end = self._chunked.feed(data, at)
            self._check(self._chunked.payload)
            return end
        end = at + self.left
        if end > len(data):
            self.left = end - len(data)
            return -1
        self.left = 0
        return end

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BadHead(f"the body is longer than {self._limit:.0f} bytes", PAYLOAD_TOO_LARGE)
