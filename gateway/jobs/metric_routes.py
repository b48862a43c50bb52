"""`/system/metrics/`: what components without a port of their own count, for Prometheus to scrape through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import ServiceUnavailable
from gateway.jobs.auth import Access
from gateway.jobs.metrics import CONTENT_TYPE

__all__ = ["MetricRoutes"]

TIMEOUT = 5.0


class MetricRoutes:
    """`render` gives jobs' own numbers; `autoscaler` is the path of the autoscaler's socket, which answers `GET /metrics`."""

    def __init__(self, access: Access, render: Callable[[], Awaitable[bytes]], autoscaler: Path | None) -> None:
        self._access = access
        self._render = render
        self._autoscaler = autoscaler

    def routes(self) -> list[Route]:
        return [
            Route("/system/metrics/jobs", self.jobs, methods=["GET"]),
            Route("/system/metrics/autoscaler", self.autoscaler, methods=["GET"]),
        ]

    async def jobs(self, request: Request) -> Response:
        await self._allowed(request)
        return Response(await self._render(), 200, None, CONTENT_TYPE)

    async def autoscaler(self, request: Request) -> Response:
        await self._allowed(request)
        if self._autoscaler is None:
            raise ServiceUnavailable("the autoscaler runs elsewhere")
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._autoscaler)
                try:
                    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                    reply = await reader.read()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            raise ServiceUnavailable(f"the autoscaler doesn't answer: {error}") from error
        return Response(reply.partition(b"\r\n\r\n")[2], 200, None, CONTENT_TYPE)

    async def _allowed(self, request: Request) -> None:
        """They tell of every namespace."""
        caller = await self._access.caller(request.headers.get("authorization"))
        await self._access.may(caller, "list", "")
