"""The transport of short-lived programs: the standard library alone, over asyncio's streams.

A command sends a few requests and ends. `core.client.http` takes a third of a second of processor time to import, and is faster by the
thousand; this one is imported in a hundredth of that. WebSockets are the other's, which is imported where one is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.client.remote import RemoteTransport, refused
from core.client.transport import JSON

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["LightTransport"]

_CONNECT_SECONDS = 10.0
_STREAM_SLACK = 30.0
_CHUNK = 256 << 10
_HEAD = 64 << 10


class _Malformed(Exception):
    """What came isn't HTTP."""


_NO_ANSWER = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _Malformed)


class _Connection:
    """One exchange after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.usable = False
        """Whether the last reply was read to its end, and another request may follow."""

    def close(self) -> None:
        self.writer.transport.abort()

    async def head(self) -> tuple[int, str, dict[str, str]]:
        """Status, reason and headers (names in lower case) of the final reply."""
        while True:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = text.split("\r\n")[:-2]
            version, _, rest = line.partition(" ")
            code, _, reason = rest.partition(" ")
            if not version.startswith("HTTP/1.") or not code.isdigit():
                raise _Malformed(f"it answered {line[:60]!r}, which is not HTTP/1.1")
            if int(code) >= 200:
                pairs = (each.partition(":") for each in fields)
                headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
                self.usable = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
                return int(code), reason, headers

    async def body(self, code: int, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The parts of a body as they come. `usable` is only true after the last."""
        again, self.usable = self.usable, False
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _number(bytes(await self.reader.readuntil(b"\r\n")).partition(b";")[0].strip(), 16):
                async for part in self._next(size):
                    yield part
                await self.reader.readexactly(2)
            while (await self.reader.readuntil(b"\r\n")).strip():
                pass  # trailers
        elif code in (204, 304):
            pass
        elif "content-length" in headers:
            async for part in self._next(_number(headers["content-length"].encode(), 10)):
                yield part
        else:
            again = False
            while part := await self.reader.read(_CHUNK):
                yield part
        self.usable = again

    async def _next(self, left: int) -> AsyncIterator[bytes]:
        """The next `left` bytes, in parts as they come."""
        while left:
            part = await self.reader.read(min(left, _CHUNK))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)
            yield part


def _number(text: bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise _Malformed(f"{text[:40]!r} is no length") from None


class LightTransport(RemoteTransport):
    """See `RemoteTransport`. `ssl`: a context, False to trust any certificate, None for the system's authorities."""

    def __init__(self, base_url: str, *, ssl: tls.SSLContext | bool | None = None, **more: Any) -> None:
        super().__init__(base_url, ssl=ssl, **more)
        parts = urlsplit(self.base_url)
        self._host, self._secure = parts.hostname or "127.0.0.1", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        self._refuse_when_closed()
        head = self._head(method, path, query, body, content_type)
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    again = self._idle.pop() if self._idle else None
                    connection = again or await self._connect()
                    try:
                        return await self._exchange(connection, head + body, f"{method} {path}")
                    except (OSError, asyncio.IncompleteReadError):
                        # The server may end a connection that was left open just when it is used again.
                        if again is None or method != "GET":
                            raise
        except _NO_ANSWER as error:
            raise self._unavailable(method, path, error) from error

    async def _exchange(self, connection: _Connection, message: bytes, what: str) -> bytes:
        try:
            connection.writer.write(message)
            await connection.writer.drain()
            code, reason, headers = await connection.head()
            found = b"".join([part async for part in connection.body(code, headers)])
        except BaseException:
            self._drop(connection)
            raise
        if connection.usable:
            self._idle.append(connection)
        else:
            self._drop(connection)
        if code >= 400:
            raise refused(found, code, f"{what}: {code} {reason}")
        return found

    async def stream(self, path: str, query: Mapping[str, str] | None = None) -> AsyncGenerator[bytes, None]:
        self._refuse_when_closed()
        # A server that says nothing long after its own deadline is gone, though the connection may still look alive.
        asked = (query or {}).get("timeoutSeconds")
        silence = float(asked) + _STREAM_SLACK if asked else None
        connection: _Connection | None = None
        try:
            connection = await self._connect()
            connection.writer.write(self._head("GET", path, query, b"", JSON))
            async with asyncio.timeout(silence):
                code, reason, headers = await connection.head()
            parts = connection.body(code, headers)
            if code >= 400:
                raise refused(b"".join([each async for each in parts]), code, f"GET {path}: {code} {reason}")
            while True:
                async with asyncio.timeout(silence):
                    part = await anext(parts, b"")
                if not part:
                    return
                yield part
        except _NO_ANSWER as error:
            raise self._unavailable("GET", path, error) from error
        finally:
            if connection is not None:
                self._drop(connection)

    @contextlib.asynccontextmanager
    async def connect(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncGenerator[ClientConnection, None]:
        """A WebSocket: `exec` and the like. Raises as `request` does; what fails later is the connection's own to raise."""
        from core.client.http import HttpTransport

        self._refuse_when_closed()
        token = self._headers.get("Authorization", "").removeprefix("Bearer ")
        other = HttpTransport(
            self.base_url, token=token, ssl=self._ssl, timeout=self._timeout, server_name=self._server_name or ""
        )
        try:
            async with other.connect(path, query, protocols) as connection:
                yield connection
        finally:
            await other.close()

    async def close(self) -> None:
        self._closed = True
        for each in list(self._open):
            self._drop(each)
        self._idle.clear()
        await asyncio.sleep(0)  # transports close themselves in the loop's next turn

    async def _connect(self) -> _Connection:
        secure: dict[str, Any] = {}
        if self._secure:
            secure = {"ssl": self._trust(), "server_hostname": self._server_name or self._host}
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=_HEAD, **secure)
        connection = _Connection(reader, writer)
        self._open.add(connection)
        return connection

    def _trust(self) -> tls.SSLContext:
        if isinstance(self._ssl, bool):
            context = tls.create_default_context()
            if not self._ssl:
                context.check_hostname, context.verify_mode = False, tls.CERT_NONE
            self._ssl = context
        return self._ssl

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _head(self, method: str, path: str, query: Mapping[str, str] | None, body: bytes, content_type: str) -> bytes:
        _, _, target = self._text(path, query).partition("://")
        target = "/" + target.partition("/")[2]
        fields = {"Host": self._authority, **self._headers}
        if body or method not in ("GET", "HEAD"):
            fields["Content-Length"] = str(len(body))
        if body:
            fields["Content-Type"] = content_type
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
