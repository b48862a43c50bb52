"""The agent's HTTPS server: logs of containers for the API server, streams to and from them, health, metrics, usage, Pods.

Callers must show the API server's client certificate. The paths are the kubelet's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from core.api import views
from core.api.meta import Document
from core.clock import parse_time, wall
from core.node.logs import LogOptions, read_logs
from core.node.streams.endpoints import NotRunning, StreamEndpoints, StreamNode
from core.node.volumes.base import VolumeError
from core.serving import AsgiServer

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


class Node(StreamNode, Protocol):
    """What the server asks of the agent."""

    def pods(self) -> list[views.Pod]: ...

    def log_source(self, namespace: str, pod: str, container: str, previous: bool) -> LogSource:
        """Raises `UnknownContainer`."""

    def healthy(self) -> str:
        """ "" or what is wrong."""

    async def remove_volume(self, handle: str) -> None:
        """Remove the folder of a volume that was reclaimed. Raises `VolumeError`, OSError."""

    async def usage_summary(self) -> Document:
        """The kubelet's stats Summary."""

    async def usage_counters(self) -> str:
        """What runs here and what it uses, as Prometheus' text."""


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


class AgentServer:
    def __init__(self, node: Node, serving: Serving, registry: CollectorRegistry) -> None:
        self.port = 0
        self._node = node
        self._serving = serving
        self._registry = registry
        self._server: AsgiServer | None = None

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/metrics/resource", self._resource_metrics),
                Route("/pods", self._pods),
                Route("/stats/summary", self._summary),
                Route("/volumes/{handle}", self._remove_volume, methods=["DELETE"]),
                *StreamEndpoints(self._node).routes(),
            ]
        )

    async def start(self) -> None:
        serving = self._serving
        family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((serving.host, serving.port))
        self.port = listener.getsockname()[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(serving.certificate, serving.key)
        context.load_verify_locations(serving.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = AsgiServer(_for_the_api(self.application()), listener, context, drain=1.0)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def _healthz(self, request: Request) -> Response:
        trouble = self._node.healthy()
        return PlainTextResponse(trouble or "ok", status_code=503 if trouble else 200)

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _resource_metrics(self, request: Request) -> Response:
        return Response(await self._node.usage_counters(), media_type=CONTENT_TYPE_LATEST)

    async def _summary(self, request: Request) -> Response:
        return Response(msgspec.json.encode(await self._node.usage_summary()), media_type="application/json")

    async def _remove_volume(self, request: Request) -> Response:
        handle = request.path_params["handle"]
        try:
            await self._node.remove_volume(handle)
        except VolumeError as error:
            return PlainTextResponse(str(error), status_code=400)
        except OSError as error:
            return PlainTextResponse(f"volume {handle} can't be removed: {error}", status_code=500)
        return PlainTextResponse("removed")

    async def _pods(self, request: Request) -> Response:
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._node.pods()}
        return Response(msgspec.json.encode(body), media_type="application/json")

    def _runs(self, namespace: str, pod: str, container: str) -> bool:
        try:
            self._node.running_container(namespace, pod, container)
        except NotRunning:
            return False
        return True

    async def _logs(self, request: Request) -> Response:
        names = request.path_params
        query = dict(request.query_params)
        try:
            options = log_options(query, wall())
            previous = query.get("previous", "").lower() in ("1", "true")
            source = self._node.log_source(names["namespace"], names["pod"], names["container"], previous)
            if not source.file.is_file():
                if previous or not self._runs(**names):
                    raise FileNotFoundError(source.file)
                # One that has only just started: its log is empty, though nobody has made it yet.
                source.file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                source.file.touch(mode=0o640)
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


def _for_the_api(app: Any) -> Any:
    """`app` for the API server alone: the CA's other clients, users among them, have to ask there, where they are authorised.

    Its certificate has the organization `system:masters`, which no signer of the cluster gives.
    """

    async def call(scope: Any, receive: Any, send: Any) -> None:
        chain = ((scope.get("extensions") or {}).get("tls") or {}).get("client_cert_chain")
        if not chain or not _is_master(chain[0]):
            await PlainTextResponse("Forbidden: only the API server is answered here", 403)(scope, receive, send)
            return
        await app(scope, receive, send)

    return call


@lru_cache(maxsize=256)
def _is_master(pem: str) -> bool:
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    return any(each.value == "system:masters" for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for each in rest:
        yield each
