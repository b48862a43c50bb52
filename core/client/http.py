"""The transport over HTTP: keep-alive requests, watch streams, log streams.

Requests share a bounded pool of connections; streams live as long as they are read and have a pool of their own, so
that many watches never keep a request waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from core.client.remote import RemoteTransport, refused
from core.client.transport import JSON
from core.errors import ApiError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["HttpTransport"]

_CONNECTIONS = 16
"""At once; past that requests wait their turn, which costs less than further connections, the more so with TLS."""
_CONNECT_SECONDS = 10.0
_STREAM_SLACK = 30.0


_NO_ANSWER = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class HttpTransport(RemoteTransport):
    """Speaks to the API at `base_url` (`https://127.0.0.1:6443`).

    `token` is sent as a bearer token. `ssl`: a context, False to trust any certificate, None for the system's
    authorities. `client_cert` is (certificate file, key file), loaded into the context. `timeout` (seconds) bounds a
    request from its start to its last byte; streams are bounded by their `timeoutSeconds` alone. `server_name` is the
    name that the server's certificate must bear where it isn't the URL's host. `unix_socket` is where an API of this machine is reached
    instead, with a `base_url` of `http`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        ssl: tls.SSLContext | bool | None = None,
        client_cert: tuple[str, str] | None = None,
        timeout: float = 30.0,
        server_name: str = "",
        unix_socket: str = "",
    ) -> None:
        super().__init__(
            base_url, token=token, ssl=_context(ssl, client_cert), timeout=timeout, server_name=server_name
        )
        self._unix_socket = unix_socket
        self._requests: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        self._refuse_when_closed()
        if self._requests is None:
            self._requests = self._session(_CONNECTIONS)
        try:
            async with self._requests.request(
                method,
                self._url(path, query),
                data=body or None,
                headers={"Content-Type": content_type} if body else None,
                server_hostname=self._server_name,
            ) as reply:
                found = await reply.read()
                if reply.status >= 400:
                    raise _error(reply, found)
                return found
        except _NO_ANSWER as error:
            raise self._unavailable(method, path, error) from error

    async def stream(self, path: str, query: Mapping[str, str] | None = None) -> AsyncGenerator[bytes, None]:
        """The body of a GET as it arrives: Pod logs. Raises as `request` does. Close it with `contextlib.aclosing`."""
        self._refuse_when_closed()
        if self._streams is None:
            self._streams = self._session(0)
        # A server that says nothing long after its own deadline is gone, though the connection may still look alive.
        asked = (query or {}).get("timeoutSeconds")
        silence = float(asked) + _STREAM_SLACK if asked else None
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            async with self._streams.get(
                self._url(path, query), timeout=limits, server_hostname=self._server_name
            ) as reply:
                if reply.status >= 400:
                    raise _error(reply, await reply.read())
                async for chunk in reply.content.iter_any():
                    yield chunk
        except _NO_ANSWER as error:
            raise self._unavailable("GET", path, error) from error

    @contextlib.asynccontextmanager
    async def connect(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncGenerator[ClientConnection, None]:
        """A WebSocket: `exec` and the like. Raises as `request` does; what fails later is the connection's own to raise."""
        from websockets.asyncio.client import connect, unix_connect
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.typing import Subprotocol

        self._refuse_when_closed()
        url = str(self._url(path, None)) + (f"?{urlencode(query)}" if query else "")
        url = "ws" + url.removeprefix("http")
        options: dict[str, Any] = {
            "additional_headers": {"Authorization": self._headers["Authorization"]} if "Authorization" in self._headers else {},
            "user_agent_header": self._headers["User-Agent"], "subprotocols": [Subprotocol(each) for each in protocols],
            "compression": None, "max_size": None, "open_timeout": self._timeout, "proxy": None,
        }  # fmt: skip
        if url.startswith("wss:"):
            options["ssl"] = _tls(self._ssl)
            if self._server_name:
                options["server_hostname"] = self._server_name
        opening = unix_connect(self._unix_socket, url, **options) if self._unix_socket else connect(url, **options)
        try:
            connection = await opening
        except InvalidStatus as error:
            raise refused(bytes(error.response.body), error.response.status_code, f"GET {path}") from error
        except (WebSocketException, *_NO_ANSWER) as error:
            raise self._unavailable("GET", path, error) from error
        try:
            yield connection
        finally:
            await connection.close()

    async def close(self) -> None:
        self._closed = True
        for session in (self._requests, self._streams):
            if session is not None:
                await session.close()

    def _session(self, connections: int) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if self._unix_socket:
            connector = aiohttp.UnixConnector(self._unix_socket, limit=connections, keepalive_timeout=60)
        else:
            connector = aiohttp.TCPConnector(limit=connections, ssl=self._ssl, keepalive_timeout=60)
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=256 * 1024,
        )

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        return URL(self._text(path, query), encoded=True)


def _context(ssl: tls.SSLContext | bool | None, client_cert: tuple[str, str] | None) -> tls.SSLContext | bool:
    if client_cert is None:
        return True if ssl is None else ssl
    ssl = _tls(True if ssl is None else ssl)
    ssl.load_cert_chain(*client_cert)
    return ssl


def _error(reply: aiohttp.ClientResponse, body: bytes) -> ApiError:
    return refused(body, reply.status, f"{reply.method} {reply.url.path}: {reply.status} {reply.reason}")


def _tls(ssl: tls.SSLContext | bool) -> tls.SSLContext:
    """What aiohttp makes of the same."""
    if isinstance(ssl, tls.SSLContext):
        return ssl
    context = tls.create_default_context()
    if ssl is False:
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    return context
