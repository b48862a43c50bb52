"""ASGI applications as handlers: told apart by their signature, run with lifespan, http and websocket scopes."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any
from urllib.parse import unquote

from .discovery import StartFailure
from .http import Exchange
from .reply import InvalidResponse

__all__ = ["AsgiRunner", "is_asgi"]


def is_asgi(handler: Any) -> bool:
    """Whether `handler` takes (scope, receive, send)."""
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return False
    needed = [
        each
        for each in parameters
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) == 3


class AsgiRunner:
    """One application, its lifespan, and the state that this leaves for its requests. `max_message` bytes are a WebSocket's at once."""

    def __init__(self, application: Any, max_message: int) -> None:
        self._application = application
        self._max_message = max_message
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Raises `StartFailure`. An application that raises on the lifespan scope has none, as the specification has it."""
        self._task = asyncio.create_task(self._lifespan())
        self._inbox.put_nowait({"type": "lifespan.startup"})
        await self._started

    async def shutdown(self) -> None:
        """Let the application clean up; returns when it has."""
        if self._task is not None and not self._task.done():
            self._inbox.put_nowait({"type": "lifespan.shutdown"})
            await self._stopped.wait()

    async def _lifespan(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._application(scope, self._inbox.get, self._send_lifespan)
        except Exception:
            if not self._started.done():
                self._started.set_result(None)
        finally:
            if not self._started.done():
                self._started.set_result(None)
            self._stopped.set()

    async def _send_lifespan(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_exception(StartFailure(f"the application's startup failed: {message.get('message', '')}"))
        elif kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif kind.startswith("lifespan.shutdown."):
            self._stopped.set()

    async def run(self, exchange: Exchange) -> None:
        """One request, or one WebSocket from its handshake to its end."""
        await (self._websocket if exchange.websocket else self._request)(exchange)

    def _scope(self, exchange: Exchange, kind: str, scheme: str) -> dict[str, Any]:
        path, _, query = exchange.target.partition(b"?")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": exchange.version,
            "scheme": scheme,
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": exchange.headers,
            "client": None,
            "server": None,
            "state": self._state.copy(),
        }

    async def _websocket(self, exchange: Exchange) -> None:
        from .websocket import WebSocket, refusal

        reply = refusal(exchange)
        if reply is not None:
            exchange.keep_alive = False
            exchange.send(reply)
            return
        offered = b",".join(value for name, value in exchange.headers if name == b"sec-websocket-protocol")
        scope = self._scope(exchange, "websocket", "ws")
        scope["subprotocols"] = [each.strip() for each in offered.decode("latin-1").split(",") if each.strip()]
        scope["extensions"] = {"websocket.http.response": {}}
        socket = WebSocket(exchange, self._max_message)
        try:
            await self._application(scope, socket.receive, socket.send)
            socket.ended()
        except BaseException:
            socket.failed()
            raise
        finally:
            socket.discard()

    async def _request(self, exchange: Exchange) -> None:
        scope = self._scope(exchange, "http", "http")
        scope["method"] = exchange.method
        received = False
        begun: dict[str, Any] | None = None
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": exchange.body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message
            elif message["type"] == "http.response.body":
                if begun is None:
                    raise InvalidResponse("the application sent a body before its response's start")
                last = not message.get("more_body", False)
                body = bytes(message.get("body", b""))
                if not exchange.started:
                    headers, length = _split(begun.get("headers", ()))
                    exchange.start(begun["status"], headers, len(body) if last and length is None else length)
                await exchange.write(body)
                if last:
                    exchange.finish()
                    gone.set()

        await self._application(scope, receive, send)
        if not exchange.finished:
            raise InvalidResponse("the application ended without a whole reply")


def _split(headers: Any) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """Headers without those of the connection, and the length that they state."""
    kept: list[tuple[bytes, bytes]] = []
    length = None
    for name, value in headers:
        lower = bytes(name).lower()
        if lower == b"content-length" and value.isdigit():
            length = int(value)
        elif lower not in (b"connection", b"transfer-encoding", b"keep-alive"):
            kept.append((lower, bytes(value)))
    return kept, length
