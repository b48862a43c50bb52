"""Connections that leave HTTP behind (RFC 9110, 7.8): ask a server for one, and join two of them.

The API server asks node agents for one, and the Docker driver its engine; what is spoken on it afterwards is their affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Refused", "Upgraded", "ask", "close_writer", "cut", "splice"]

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""How long a server may take to decide."""
PIECE = 64 << 10
_REASON_BYTES = 64 << 10
_CLOSE_SECONDS = 2.0


class Refused(Exception):
    """The server answered, but with something else than 101."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode('utf-8', 'replace')}")
        self.status = status
        self.content_type = content_type
        self.body = body


class Upgraded(NamedTuple):
    """A connection whose server has agreed. `head` is its reply as it came, `headers` by names in lower case."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    headers: Mapping[str, str]


async def ask(
    address: tuple[str, int] | str,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes = b"",
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
) -> Upgraded:
    """Send a request with those headers (`Upgrade` among them) to a host and port, or to a Unix socket's path. `server_name` is what the
    server's certificate must bear where it isn't the host.

    Raises `Refused`, OSError (which a `TimeoutError` is) where nobody answers, ValueError where the answer isn't HTTP.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        if isinstance(address, str):
            reader, writer = await asyncio.open_unix_connection(address, limit=PIECE)
        else:
            reader, writer = await asyncio.open_connection(
                *address, ssl=tls, limit=PIECE, server_hostname=(server_name or None) if tls else None
            )
    try:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        async with asyncio.timeout(ANSWER_SECONDS):
            head, status, found = await _head(reader)
            if status != 101:
                raise Refused(status, found.get("content-type", ""), await _body(reader, found))
    except BaseException:
        await cut(writer)
        raise
    return Upgraded(reader, writer, head, found)


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, int, dict[str, str]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the server closed the connection without an answer") from error
    except asyncio.LimitOverrunError as error:
        raise ValueError("the server's answer has too long a head") from error
    first, *rest = head[:-4].decode("latin-1").split("\r\n")
    version, _, said = first.partition(" ")
    if not version.startswith("HTTP/1.") or not said[:3].isdigit():
        raise ValueError(f"the server's answer is not HTTP: {first[:80]!r}")
    pairs = (line.partition(":") for line in rest)
    return head, int(said[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Of a refusal: enough of it to say why."""
    length = headers.get("content-length", "")
    if length.isdigit():
        with contextlib.suppress(asyncio.IncompleteReadError):
            return await reader.readexactly(min(int(length), _REASON_BYTES))
        return b""
    return await reader.read(_REASON_BYTES)


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection once what was written has left, or cut it where the other side doesn't take it."""
    writer.close()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
    except asyncio.CancelledError:
        writer.transport.abort()
        raise


async def cut(writer: asyncio.StreamWriter) -> None:
    """Close a connection whatever is under way on it."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()


async def splice(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Copy both ways until one side ends; then close both. Neither side is read faster than the other one takes it."""
    copies = [asyncio.ensure_future(_copy(one[0], other[1])), asyncio.ensure_future(_copy(other[0], one[1]))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in copies:
            each.cancel()
        for result in await asyncio.gather(*copies, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result
        await asyncio.gather(close_writer(one[1]), close_writer(other[1]))
