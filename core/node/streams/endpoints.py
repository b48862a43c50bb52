"""The kubelet's streaming paths: `/exec/N/P/C`, `/attach/N/P/C`, `/portForward/N/P`, over WebSockets and bare SPDY.

Everything that can be said against a request is said before the connection is taken over, as plain HTTP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core.node.runtime.base import Runtime, RuntimeFailure, Streams
from core.node.streams.channels import ERROR, RESIZE, STDERR, STDIN, STDOUT, V4, V5, SpdyChannels, WebSocketChannels
from core.node.streams.links import BareLink, HandshakeRefused, WebSocket
from core.node.streams.listeners import listens_here
from core.node.streams.multiplex import Multiplexer
from core.node.streams.ports import forward_channels, forward_streams
from core.node.streams.terminal import Wants, converse
from core.serving import Take, take_over

__all__ = ["NotRunning", "StreamEndpoints", "StreamNode"]

SPDY = "SPDY/3.1"
FORWARD = "portforward.k8s.io"
TUNNEL = f"{SPDY}+{FORWARD}"
"""SPDY's frames inside of WebSocket messages (KEP-4006)."""
_DIAL_SECONDS = 10.0


class NotRunning(Exception):
    """There is no such Pod or container here, or it doesn't run."""


class StreamNode(Protocol):
    """What is asked of the agent."""

    @property
    def runtime(self) -> Runtime: ...

    def running_container(self, namespace: str, pod: str, container: str) -> str:
        """The id of its newest attempt. Raises `NotRunning`."""

    def pod_address(self, namespace: str, pod: str) -> str:
        """Of a Pod that runs. Raises `NotRunning`."""


class _Taken(Response):
    """The connection isn't HTTP any more: there is nothing to send."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        return


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handshake:
    """What the client wants to speak, checked, and not answered yet."""

    def __init__(self, request: Request, protocols: tuple[str, ...], bare: tuple[str, ...]) -> None:
        take = take_over(request.scope)
        wanted = request.headers.get("upgrade", "").lower()
        if take is None or wanted not in ("websocket", SPDY.lower()):
            raise _Refused(400, f"Upgrade request required: to websocket or {SPDY}")
        self.take: Take = take
        self.socket: WebSocket | None = None
        self.protocol = ""
        if wanted == "websocket":
            try:
                self.socket = WebSocket(request.scope, protocols)
            except HandshakeRefused as refused:
                raise _Refused(400, f"unable to upgrade: {refused}") from refused
            return
        offered = [
            each.strip() for line in request.headers.getlist("x-stream-protocol-version") for each in line.split(",")
        ]
        self.protocol = next((each for each in bare if each in offered), "")
        if not self.protocol:
            raise _Refused(403, f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(offered)}], server accepts [{' '.join(bare)}]")  # fmt: skip

    def open_socket(self) -> WebSocket:
        assert self.socket is not None
        self.socket.open(self.take)
        return self.socket

    def open_bare(self) -> BareLink:
        reader, writer = self.take()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: SPDY/3.1", "Connection: Upgrade", f"X-Stream-Protocol-Version: {self.protocol}"]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return BareLink(reader, writer)


class StreamEndpoints:
    def __init__(self, node: StreamNode) -> None:
        self._node = node

    def routes(self) -> list[Route]:
        container = "{namespace}/{pod}/{container}"
        methods = ["GET", "POST"]
        return [
            Route(f"/exec/{container}", self._exec, methods=methods),
            Route(f"/attach/{container}", self._attach, methods=methods),
            Route("/portForward/{namespace}/{pod}", self._forward, methods=methods),
        ]

    async def _exec(self, request: Request) -> Response:
        query = request.query_params

        async def begin(container_id: str, wants: Wants) -> Streams:
            command = query.getlist("command")
            if not command or not command[0]:
                raise _Refused(400, "you must specify at least 1 command for the container")
            return await self._node.runtime.open_exec(container_id, command, stdin=wants.stdin, tty=wants.tty)

        return await self._stream(request, begin)

    async def _attach(self, request: Request) -> Response:
        async def begin(container_id: str, wants: Wants) -> Streams:
            return await self._node.runtime.attach(container_id, stdin=wants.stdin)

        return await self._stream(request, begin)

    async def _stream(self, request: Request, begin: Any) -> Response:
        names = request.path_params
        try:
            wants = Wants.read(dict(request.query_params))
            container_id = self._node.running_container(names["namespace"], names["pod"], names["container"])
            shake = _Handshake(request, (V5, V4), (V4,))
            streams: Streams = await begin(container_id, wants)
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        except _Refused as refused:
            return PlainTextResponse(str(refused), refused.status)
        except NotRunning as error:
            return PlainTextResponse(f"unable to upgrade connection: {error}", 500)
        except RuntimeFailure as error:
            return PlainTextResponse(f"error executing command in container: {error}", 500)
        try:
            if shake.socket is not None:
                await converse(WebSocketChannels(shake.open_socket()), streams, wants)
            else:
                multiplexer = Multiplexer(shake.open_bare())
                channels = SpdyChannels(multiplexer, _wanted(wants))
                if await channels.ready():
                    await converse(channels, streams, wants)
                else:
                    await multiplexer.close()
        except ConnectionError:
            return _Taken()
        finally:
            await streams.close()
        return _Taken()

    async def _forward(self, request: Request) -> Response:
        names: Mapping[str, str] = request.path_params
        pod = f"{names['namespace']}/{names['pod']}"
        try:
            address = self._node.pod_address(names["namespace"], names["pod"])
            ports = [int(each) for each in request.query_params.getlist("port")]
            shake = _Handshake(request, (TUNNEL, V4, ""), (FORWARD,))
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        except _Refused as refused:
            return PlainTextResponse(str(refused), refused.status)
        except NotRunning as error:
            return PlainTextResponse(f"unable to upgrade connection: {error}", 500)
        if shake.socket is not None and shake.socket.subprotocol != TUNNEL and not 0 < len(ports) <= 100:
            return PlainTextResponse('query parameter "port" is required, 100 times at most', 400)

        async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            if address.startswith("127.") and not await asyncio.to_thread(listens_here, address, port):
                raise OSError(f"nothing listens at {address}:{port}, the Pod's own address")
            try:
                async with asyncio.timeout(_DIAL_SECONDS):
                    return await asyncio.open_connection(address, port)
            except TimeoutError:
                raise OSError(f"connection to {address}:{port} timed out") from None
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise OSError(f"connect to {address}:{port}: {why}") from error

        try:
            if shake.socket is None:
                await forward_streams(Multiplexer(shake.open_bare()), dial, pod)
            elif shake.socket.subprotocol != TUNNEL:
                await forward_channels(shake.open_socket(), ports, dial, pod)
            else:
                await forward_streams(Multiplexer(shake.open_socket()), dial, pod)
        except ConnectionError:
            return _Taken()
        return _Taken()


def _wanted(wants: Wants) -> frozenset[int]:
    """The streams that a SPDY client opens for that: `resize` where it asks for a terminal."""
    found = {ERROR} | ({STDIN} if wants.stdin else set()) | ({STDOUT} if wants.stdout else set())
    return frozenset(found | ({STDERR} if wants.stderr else set()) | ({RESIZE} if wants.tty else set()))
