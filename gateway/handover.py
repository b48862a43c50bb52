"""What gateway workers and jobs say to each other over one connection each: calls to be queued one way, calls to be made the other.

A message is its length (four bytes, big-endian), its kind (one byte) and a MessagePack list, so that one message, one commit and one reply
stand for hundreds of calls: a worker hands over what came while its last message was on its way, as the database commits what came while
its last commit ran. The worker connects to a Unix socket beside that of jobs (`socket_of`).

    worker to jobs:  ACCEPT [Accept], EXECUTED [Executed], DRAIN [] (no more calls to make, please)
    jobs to worker:  ANSWER [Answer], EXECUTE [Execute], CANCEL [number of an Execute]

A call has its id before it is handed over. A worker that lost the connection hands over again what wasn't answered,
and what had been recorded already is recorded once. Calls that were to be made when the connection broke are lost tries, as those of
an instance that died.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "ACCEPT", "ANSWER", "CANCEL", "DRAIN", "DROPPED", "EXECUTE", "EXECUTED", "LARGEST_BODY", "Accept", "Answer", "Execute", "Executed", "Frames", "pack",
    "socket_of", "unpack_accepts", "unpack_answers", "unpack_executed", "unpack_executes", "unpack_numbers",
]  # fmt: skip

LARGEST_BODY = 1 << 20
"""Bytes of a queued request's body: it is kept in the database."""
DROPPED = frozenset({
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade", b"x-call-id", b"x-faaslite-cron", b"x-faaslite-deadline", b"x-faaslite-revision",
    b"x-callback-url", b"idempotency-key", b"traceparent",
})  # fmt: skip
"""Headers that aren't kept with a call: those of the one connection, and the platform's own."""
LARGEST_FRAME = 256 << 20
_LENGTH = 4

ACCEPT, ANSWER, EXECUTE, EXECUTED, CANCEL, DRAIN = b"aArRcd"


class Accept(msgspec.Struct, array_like=True, frozen=True):
    """One request to queue. `path` is below the function's name and begins with `/`; `number` is the connection's own, for the answer."""

    number: int
    id: str
    namespace: str
    function: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    revision: str = ""
    traceparent: str = ""
    callback: str = ""
    key: str = ""


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """`status` 202: `id` is the call that was recorded, or (`replayed`) the one that the idempotency key stands for. Otherwise why not."""

    number: int
    status: int
    id: str = ""
    replayed: bool = False
    reason: str = ""
    message: str = ""


class Execute(msgspec.Struct, array_like=True, frozen=True):
    """One call to make. `target` is path and query as they stand in a request to the gateway, `fields` all header lines of the request but
    the deadline, each with its end; `limit` is how many bytes of the reply's body are wanted."""

    number: int
    id: str
    method: str
    target: str
    fields: bytes
    body: bytes
    revision: str
    limit: int


class Executed(msgspec.Struct, array_like=True, frozen=True):
    """The reply, or with `status` 0 that there was no whole one. `waited` is the seconds for which the call waited for an instance, -1 where
    it didn't; `reason` says that the reply is the gateway's own and why, "" where an instance answered."""

    number: int
    status: int
    body: bytes = b""
    content_type: str = ""
    retry_after: str = ""
    waited: float = -1.0
    truncated: bool = False
    reason: str = ""


unpack_accepts = msgspec.msgpack.Decoder(list[Accept]).decode
unpack_answers = msgspec.msgpack.Decoder(list[Answer]).decode
unpack_executes = msgspec.msgpack.Decoder(list[Execute]).decode
unpack_executed = msgspec.msgpack.Decoder(list[Executed]).decode
unpack_numbers = msgspec.msgpack.Decoder(list[int]).decode
_encode = msgspec.msgpack.Encoder().encode


def socket_of(jobs: Path) -> Path:
    """Where workers connect to the jobs process whose socket is `jobs`."""
    return jobs.with_name("calls.sock")


def pack(kind: int, items: Sequence[Any]) -> bytes:
    payload = _encode(items)
    return b"%b%c%b" % ((len(payload) + 1).to_bytes(_LENGTH, "big"), kind, payload)


class Frames:
    """Cuts what comes over a connection into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Kind and content of the messages that are whole now. ValueError for one that is longer than any of ours."""
        buffer = self._buffer
        buffer += data
        while len(buffer) > _LENGTH:
            end = _LENGTH + int.from_bytes(buffer[:_LENGTH], "big")
            if not _LENGTH < end <= LARGEST_FRAME:
                raise ValueError(f"a message of {end} bytes")
            if len(buffer) < end:
                return
            kind, message = buffer[_LENGTH], bytes(buffer[_LENGTH + 1 : end])
            del buffer[:end]
            yield kind, message
