"""The transport over HTTP: keep-alive requests, watch streams, log streams.

Requests share a bounded pool of connections; streams live as long as they are read and have a pool of their own, so
that many watches never keep a request waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl as tls
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from core.client.kubeconfig import read_kubeconfig
from core.client.transport import JSON, RawEvent
from core.errors import ApiError, ServiceUnavailable, api_error

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["HttpTransport"]

_CONNECTIONS = 16
"""At once; past that requests wait their turn, which costs less than further connections, the more so with TLS."""
_CONNECT_SECONDS = 10.0
_STREAM_SLACK = 30.0
_PATH_SAFE = "/:@!$&'()*+,;=~"


class _WatchLine(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_line = msgspec.json.Decoder(_WatchLine).decode
_NO_ANSWER = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class HttpTransport:
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
        self.base_url = base_url.rstrip("/")
        self.namespace = "default"
        self._headers = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": "faaslite"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._ssl = _context(ssl, client_cert)
        self._server_name = server_name or None
        self._unix_socket = unix_socket
        self._timeout = timeout
        self._requests: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._closed = False

    @classmethod
    def from_kubeconfig(
        cls, path: str | os.PathLike[str], context: str | None = None, *, timeout: float = 30.0
    ) -> HttpTransport:
        """A transport as the file's context (None: its current one) says; `namespace` is that context's.

        Raises `core.client.kubeconfig.KubeconfigError`.
        """
        access = read_kubeconfig(path, context)
        transport = cls(
            access.server, token=access.token, ssl=access.ssl, timeout=timeout, server_name=access.server_name
        )
        transport.namespace = access.namespace
        return transport

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

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        rest: list[bytes] = []
        async with contextlib.aclosing(self.stream(path, {**query, "watch": "true"})) as chunks:
            async for chunk in chunks:
                head, newline, tail = chunk.rpartition(b"\n")
                if not newline:
                    rest.append(chunk)
                    continue
                rest.append(head)
                lines = b"".join(rest).split(b"\n")
                rest = [tail] if tail else []
                batch, error = _events(lines)
                if batch:
                    yield batch
                if error is not None:
                    raise error

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
        except InvalidStatus as refused:
            raise _said(bytes(refused.response.body), refused.response.status_code, f"GET {path}") from refused
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
        text = self.base_url + quote(path, safe=_PATH_SAFE)
        return URL(f"{text}?{urlencode(query)}" if query else text, encoded=True)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ServiceUnavailable("the connection to the API was closed")

    def _unavailable(self, method: str, path: str, error: BaseException) -> ServiceUnavailable:
        reason = str(error) or type(error).__name__
        return ServiceUnavailable(f"no answer from {self.base_url} to {method} {path}: {reason}")


def _context(ssl: tls.SSLContext | bool | None, client_cert: tuple[str, str] | None) -> tls.SSLContext | bool:
    if client_cert is None:
        return True if ssl is None else ssl
    ssl = _tls(True if ssl is None else ssl)
    ssl.load_cert_chain(*client_cert)
    return ssl


def _events(lines: list[bytes]) -> tuple[list[RawEvent], ApiError | None]:
    """The events of complete lines, and the error that the watch ends with where one of them says so."""
    batch: list[RawEvent] = []
    for line in lines:
        if not line.strip():
            continue
        try:
            event = _decode_line(line)
        except msgspec.DecodeError as error:
            return batch, ServiceUnavailable(f"not a watch event: {error}: {line[:200]!r}")
        if event.type == "ERROR":
            return batch, api_error(msgspec.json.decode(event.object))
        batch.append(RawEvent(event.type, bytes(event.object)))
    return batch, None


def _error(reply: aiohttp.ClientResponse, body: bytes) -> ApiError:
    return _said(body, reply.status, f"{reply.method} {reply.url.path}: {reply.status} {reply.reason}")


def _said(body: bytes, code: int, otherwise: str) -> ApiError:
    """The error of a reply: its `Status`, or its first words where something else (a proxy) answered."""
    try:
        status: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = body[:512].decode("utf-8", "replace").strip()
        status = {"message": text or otherwise}
    return api_error(status, code)


def _tls(ssl: tls.SSLContext | bool) -> tls.SSLContext:
    """What aiohttp makes of the same."""
    if isinstance(ssl, tls.SSLContext):
        return ssl
    context = tls.create_default_context()
    if ssl is False:
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    return context
