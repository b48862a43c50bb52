"""The agent's HTTPS server: logs of containers for the API server, health, metrics, Pods.

Callers must show a client certificate of the cluster's CA. The paths are the kubelet's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from core.api import views
from core.clock import parse_time, wall
from core.node.logs import LogOptions, read_logs

__all__ = ["AgentServer", "LogSource", "Serving", "UnknownContainer", "log_options"]


class UnknownContainer(Exception):
    """There is no such Pod or container here, or it has no such attempt."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """A container's log file, and an event that is set while the container doesn't run."""

    file: Path
    ended: asyncio.Event


@dataclass(frozen=True, slots=True)
class Serving:
    """Where to listen (port 0 picks one) and the PEM files: own certificate and key, the CA that callers' certificates are of."""

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path


class Node(Protocol):
    """What the server asks of the agent."""

    def pods(self) -> list[views.Pod]: ...

    def log_source(self, namespace: str, pod: str, container: str, previous: bool) -> LogSource:
        """Raises `UnknownContainer`."""

    def healthy(self) -> str:
        """ "" or what is wrong."""


def log_options(query: dict[str, str], now: float) -> LogOptions:
    """From the query of a log request. ValueError says what is wrong."""

    def number(name: str) -> int | None:
        if name not in query:
            return None
        value = int(query[name])
        if value < 0:
            raise ValueError(f"{name} must not be negative")
        return value

    def true(name: str) -> bool:
        return query.get(name, "").lower() in ("1", "true")

    seconds = number("sinceSeconds")
    since = parse_time(query["sinceTime"]) if query.get("sinceTime") else 0.0
    return LogOptions(
        follow=true("follow"),
        timestamps=true("timestamps"),
        since=now - seconds if seconds is not None else since,
        tail=number("tailLines"),
        limit=number("limitBytes"),
    )


class _Server(uvicorn.Server):
    """Signals belong to whoever runs the component."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AgentServer:
    def __init__(self, node: Node, serving: Serving, registry: CollectorRegistry) -> None:
        self.port = 0
        self._node = node
        self._serving = serving
        self._registry = registry
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/pods", self._pods),
            ]
        )

    async def start(self) -> None:
        serving = self._serving
        family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((serving.host, serving.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=str(serving.certificate),
            ssl_keyfile=str(serving.key),
            ssl_ca_certs=str(serving.client_ca),
            ssl_cert_reqs=ssl.CERT_REQUIRED,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]), name="agent server")

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None

    async def _healthz(self, request: Request) -> Response:
        trouble = self._node.healthy()
        return PlainTextResponse(trouble or "ok", status_code=503 if trouble else 200)

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _pods(self, request: Request) -> Response:
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._node.pods()}
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def _logs(self, request: Request) -> Response:
        names = request.path_params
        query = dict(request.query_params)
        try:
            options = log_options(query, wall())
            previous = query.get("previous", "").lower() in ("1", "true")
            source = self._node.log_source(names["namespace"], names["pod"], names["container"], previous)
            if not source.file.is_file():
                raise FileNotFoundError(source.file)
            blocks = read_logs(source.file, options, source.ended)
            first = await anext(blocks, b"") if not options.follow else b""
        except ValueError as error:
            return PlainTextResponse(str(error), status_code=400)
        except (UnknownContainer, FileNotFoundError) as error:
            said = (
                str(error)
                if isinstance(error, UnknownContainer)
                else f"container {names['container']!r} has no log yet"
            )
            return PlainTextResponse(said, status_code=404)
        return StreamingResponse(_chain(first, blocks), media_type="text/plain")


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for each in rest:
        yield each
