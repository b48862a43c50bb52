"""The way of packages to nodes: from the package store's Unix socket on the cluster's machine, and through the API to nodes that have joined.

A node that has joined has a client certificate, which the package store (tokens) can't check, and may have no way to the gateway: the API
server knows it already, and passes archives on.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.client.http import HttpTransport
from core.errors import ApiError, NotFound, ServiceUnavailable

__all__ = ["PackageFetcher", "RemotePackages", "package_routes"]

_CHUNK = 256 * 1024
_SILENCE = 30.0
_PATH = "/packages.faaslite.dev"


class PackageFetcher:
    """Brings packages from the package store over its Unix socket."""

    def __init__(self, socket_path: Path, token: str) -> None:
        self._path = socket_path
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": f"faaslite-node ({platform.node()})"}
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, digest: str, namespace: str) -> AsyncGenerator[bytes, None]:
        """The archive's bytes. Raises NotFound, ServiceUnavailable."""
        async with self._asked("GET", digest, namespace) as response:
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk

    async def check(self, digest: str, namespace: str) -> None:
        """Nothing where the namespace has that package. Raises NotFound, ServiceUnavailable."""
        async with self._asked("HEAD", digest, namespace):
            return

    @asynccontextmanager
    async def _asked(self, method: str, digest: str, namespace: str) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._path))
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=_SILENCE)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        try:
            url, query = f"http://jobs/system/packages/{digest}", {"namespace": namespace}
            async with self._session.request(method, url, params=query, headers=self._headers) as response:
                if response.status == 404:
                    raise NotFound(f"the package store has no {digest} of {namespace}; deploy the function again")
                if response.status != 200:
                    raise ServiceUnavailable(f"the package store answered {response.status} for {digest}")
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceUnavailable(f"the package store doesn't answer: {error or type(error).__name__}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class RemotePackages:
    """Brings packages from the cluster's API."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    async def fetch(self, digest: str, namespace: str) -> AsyncGenerator[bytes, None]:
        """The archive's bytes. Raises NotFound, ServiceUnavailable."""
        async with aclosing(self._transport.stream(f"{_PATH}/{digest}", {"namespace": namespace})) as chunks:
            while True:
                try:
                    async with asyncio.timeout(_SILENCE):
                        chunk = await anext(chunks, b"")
                except TimeoutError as error:
                    raise ServiceUnavailable(f"the API has sent nothing of {digest} for {_SILENCE:.0f} s") from error
                if not chunk:
                    return
                yield chunk

    async def check(self, digest: str, namespace: str) -> None:
        """Nothing where the namespace has that package. Raises NotFound, ServiceUnavailable."""
        await self._transport.request("HEAD", f"{_PATH}/{digest}", {"namespace": namespace})


def package_routes(fetcher: PackageFetcher) -> list[Route]:
    """What the API server serves beside resources, to nodes alone: the fixed policy says so."""

    async def package(request: Request) -> Response:
        digest, namespace = request.path_params["digest"], request.query_params.get("namespace", "")
        try:
            if request.method == "HEAD":
                await fetcher.check(digest, namespace)
                return Response(None)
            chunks = fetcher.fetch(digest, namespace)
            first = await anext(chunks, b"")
        except ApiError as error:
            return Response(msgspec.json.encode(error.status()), error.status_code, media_type="application/json")
        return StreamingResponse(_joined(first, chunks), media_type="application/x-tar+gzip")

    return [Route(f"{_PATH}/{{digest}}", package, methods=["GET"])]


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest) as chunks:
        yield first
        async for chunk in chunks:
            yield chunk
