"""The transport for components of the server's own process: the same walk without HTTP, TLS or waiting for the disk.

Writes return when they are applied and watches see what is applied, so that a chain of controllers (scale, Pod, binding) runs
as fast as the event loop; everything still lies in one log in one order, and whoever is outside hears of it when it is durable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from core.apiserver import dispatch
from core.apiserver.authn import User
from core.apiserver.events import bookmark
from core.apiserver.forms import PLAIN
from core.apiserver.request import ApiRequest, Proxied, RawRequest, Reply, TextStream, WatchStream
from core.client.transport import JSON, RawEvent
from core.errors import ApiError, BadRequest, api_error

if TYPE_CHECKING:
    from core.apiserver.app import ApiServer

__all__ = ["LocalTransport"]


class LocalTransport:
    """Implements `core.client.transport.Transport` as one user. Closing it leaves the server alone."""

    def __init__(self, server: ApiServer, user: User) -> None:
        self._server = server
        self._user = user

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        found = query or {}
        info = dispatch.parse(method, path, found)
        trail = self._server.audit.local(self._user, info, body)
        request = ApiRequest(self._user, info, found, body, content_type)
        if info.subresource == "proxy":
            request.raw = RawRequest(method, path.encode(), urlencode(found).encode(), ())
        try:
            answer = await self._server.answer(request, applied=True, trail=trail)
        except ApiError as error:
            trail.done(error.status_code)
            raise
        trail.done(answer.code if isinstance(answer, Reply) else 200)
        if isinstance(answer, Reply):
            return answer.body
        if isinstance(answer, TextStream):
            async with aclosing(answer.chunks) as chunks:
                return b"".join([chunk async for chunk in chunks])
        if isinstance(answer, Proxied):
            async with aclosing(answer.chunks) as chunks:
                said = b"".join([chunk async for chunk in chunks])
            if answer.status >= 400:
                raise api_error({"message": said.decode(errors="replace")}, answer.status)
            return said
        raise BadRequest("a watch is asked for by watch(), not by request()")

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        found = {**query, "watch": "true"}
        info = dispatch.parse("GET", path, found)
        trail = self._server.audit.local(self._user, info, b"")
        answer = await self._server.answer(ApiRequest(self._user, info, found), applied=True, trail=trail)
        trail.started(200)
        if not isinstance(answer, WatchStream):
            raise BadRequest(f"{path} can't be watched")
        watcher, registry = answer.watcher, answer.registry
        render, kind = registry.codec.render, registry.kind
        with self._server.resources.running(watcher):
            async with aclosing(watcher.changes()) as changes:
                async for batch in changes:
                    yield [
                        RawEvent(
                            each.type, bookmark(kind, each, PLAIN) if each.type == "BOOKMARK" else render(each.entry)
                        )
                        for each in batch
                    ]

    async def close(self) -> None:
        """Nothing is held."""
