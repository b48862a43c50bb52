"""What transports over HTTP have in common: URLs, errors, watches over a stream of lines."""

from __future__ import annotations

import abc
import contextlib
import os
import ssl as tls
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec

from core.client.kubeconfig import read_kubeconfig
from core.client.transport import JSON, RawEvent
from core.errors import ApiError, ServiceUnavailable, api_error

__all__ = ["RemoteTransport", "refused"]

_PATH_SAFE = "/:@!$&'()*+,;=~"


class _WatchLine(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_line = msgspec.json.Decoder(_WatchLine).decode


class RemoteTransport(abc.ABC):
    """The base of transports to the API at `base_url` (`https://127.0.0.1:6443`).

    `token` is sent as a bearer token. `timeout` (seconds) bounds a request from its start to its last byte; streams are bounded by their
    `timeoutSeconds` alone. `server_name` is the name that the server's certificate must bear where it isn't the URL's host.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        ssl: tls.SSLContext | bool | None = None,
        timeout: float = 30.0,
        server_name: str = "",
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.namespace = "default"
        self._headers = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": "faaslite"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._ssl: tls.SSLContext | bool = True if ssl is None else ssl
        self._server_name = server_name or None
        self._timeout = timeout
        self._closed = False

    @classmethod
    def from_kubeconfig(
        cls, path: str | os.PathLike[str], context: str | None = None, *, timeout: float = 30.0
    ) -> Self:
        """A transport as the file's context (None: its current one) says; `namespace` is that context's.

        Raises `core.client.kubeconfig.KubeconfigError`.
        """
        access = read_kubeconfig(path, context)
        transport = cls(
            access.server, token=access.token, ssl=access.ssl, timeout=timeout, server_name=access.server_name
        )
        transport.namespace = access.namespace
        return transport

    @abc.abstractmethod
    def stream(self, path: str, query: Mapping[str, str] | None = None) -> AsyncGenerator[bytes, None]:
        """The body of a GET as it arrives: Pod logs. Raises as `request` does. Close it with `contextlib.aclosing`."""

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

    def _text(self, path: str, query: Mapping[str, str] | None) -> str:
        text = self.base_url + quote(path, safe=_PATH_SAFE)
        return f"{text}?{urlencode(query)}" if query else text

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ServiceUnavailable("the connection to the API was closed")

    def _unavailable(self, method: str, path: str, error: BaseException) -> ServiceUnavailable:
        reason = str(error) or type(error).__name__
        return ServiceUnavailable(f"no answer from {self.base_url} to {method} {path}: {reason}")


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


def refused(body: bytes, code: int, otherwise: str) -> ApiError:
    """The error of a reply: its `Status`, or its first words where something else (a proxy) answered."""
    try:
        status: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = body[:512].decode("utf-8", "replace").strip()
        status = {"message": text or otherwise}
    return api_error(status, code)
