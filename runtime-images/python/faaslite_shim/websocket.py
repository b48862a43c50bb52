"""One WebSocket as an ASGI application sees it: the handshake, messages both ways, and its end.

A WebSocket is one call: it holds a slot as long as it is open, and its deadline is that of the handshake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from .frames import BINARY, CLOSE, PING, PONG, TEXT, Message, Parser, Violation, accept_key, close_payload, frame
from .http import Exchange
from .reply import InvalidResponse, Reply, failure

__all__ = ["WebSocket", "refusal"]

MAX_WAITING, MAX_WAITING_BYTES = 32, 1 << 20
"""What may wait for the application; beyond it nothing is read."""
PING_SECONDS = 20.0
"""A client that has said nothing for so long is asked; one that doesn't answer for as long again is gone."""
GONE_SECONDS = 10.0
"""What an application gets to end by itself once its client is gone."""
CLOSE_SECONDS = 5.0
"""What a client gets to answer a close frame before its connection is closed."""
ABNORMAL, GOING_AWAY, FAILED = 1006, 1001, 1011


def refusal(exchange: Exchange) -> Reply | None:
    """The reply to a handshake that is none; None where it is fine."""
    headers = dict(exchange.headers)
    if headers.get(b"sec-websocket-version") != b"13":
        reply = failure(426, "BadRequest", "the version of WebSocket here is 13", exchange.call_id)
        reply.headers.append((b"sec-websocket-version", b"13"))
        return reply
    if exchange.method != "GET" or accept_key(headers.get(b"sec-websocket-key", b"")) is None:
        return failure(400, "BadRequest", "not a WebSocket handshake: its key is missing or no key", exchange.call_id)
    return None


class WebSocket:
    """`receive` and `send` are the application's; the connection calls `feed`, `lost` and `drain`."""

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._connection = exchange.connection
        self._parser = Parser(limit)
        self._loop = asyncio.get_running_loop()
        self._events: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._bytes = 0
        self._deaf = False
        """The application has ended."""
        self._arrived = asyncio.Event()
        self._open = False
        self._over = False
        """Whether our close frame is out, or the handshake was refused, or the connection is gone."""
        self._denial: dict[str, Any] | None = None
        self._asked = False
        self._watching: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        exchange.on_disconnect = self.lost

    # The application's side

    async def receive(self) -> dict[str, Any]:
        """The next event; after `websocket.disconnect` that one again."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        if self._events[0]["type"] == "websocket.disconnect":
            return self._events[0]
        found = self._events.popleft()
        self._bytes -= _size(found)
        if not self._full():
            self._connection.resume()
        return found

    async def send(self, message: dict[str, Any]) -> None:
        """Raises OSError once the WebSocket is closed, as ASGI has it, and `InvalidResponse` for what can't be sent now."""
        kind = message["type"]
        if kind == "websocket.accept" and not self._exchange.started and not self._over:
            self._accept(message)
        elif kind == "websocket.close":
            self._close(message.get("code") or 1000, message.get("reason") or "")
        elif kind.startswith("websocket.http.response.") and not self._exchange.started and not self._over:
            self._deny(message)
        elif self._over:
            raise ConnectionResetError("the WebSocket is closed")
        elif kind == "websocket.send" and self._open:
            text = message.get("text")
            payload = text.encode() if text is not None else bytes(message["bytes"])
            self._connection.write(frame(TEXT if text is not None else BINARY, payload))
            await self._connection.drain()
        else:
            raise InvalidResponse(f"the application sent {kind} where it has no place")

    def ended(self) -> None:
        """The application returned. Raises `InvalidResponse` where it never answered the handshake."""
        if not self._exchange.started and not self._over:
            raise InvalidResponse("the application ended without an answer to the WebSocket's handshake")
        self._close(1000, "")

    def failed(self) -> None:
        """The application raised; where it hadn't answered the handshake yet, the reply is the caller's."""
        if self._open:
            self._close(FAILED, "the application failed")

    def discard(self) -> None:
        """The application has ended, however: nobody need be told of anything any more."""
        self._deaf = True
        self._events.clear()
        if self._open and self._over and not self._exchange.finished:
            self._ending = self._later(self._ending, CLOSE_SECONDS, self._exchange.finish)
        elif self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _accept(self, message: dict[str, Any]) -> None:
        headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers") or ()]
        lines = [b"%b: %b" % each for each in headers if each[0] not in (b"upgrade", b"connection")]
        protocol = message.get("subprotocol")
        if protocol:
            lines.append(b"sec-websocket-protocol: " + protocol.encode("latin-1"))
        key = accept_key(dict(self._exchange.headers)[b"sec-websocket-key"])
        lines += [b"sec-websocket-accept: %b" % key, b"upgrade: websocket", b"connection: Upgrade"]
        self._open = True
        self._exchange.switch(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n" % b"\r\n".join(lines))
        self._watching = self._loop.call_later(PING_SECONDS, self._ask)
        self._connection.take(self)

    def _deny(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.http.response.start":
            self._denial = {**message, "parts": []}
            return
        if self._denial is None:
            raise InvalidResponse("the application sent a body before its response's start")
        self._denial["parts"].append(bytes(message.get("body", b"")))
        if not message.get("more_body", False):
            headers = [(bytes(name).lower(), bytes(value)) for name, value in self._denial.get("headers", ())]
            kept = [each for each in headers if each[0] not in (b"content-length", b"connection", b"transfer-encoding")]
            self._refuse(Reply(self._denial["status"], kept, b"".join(self._denial["parts"])))

    def _refuse(self, reply: Reply) -> None:
        self._over = True
        self._exchange.keep_alive = False
        self._exchange.send(reply)

    def _close(self, code: int, reason: str) -> None:
        """Say that it is over. The connection is closed once the client has said so too, or after a while."""
        if self._over:
            return
        if not self._open:
            self._refuse(failure(403, "Forbidden", reason or "the application refused", self._exchange.call_id))
            return
        self._over = True
        self._unwatch()
        self._connection.write(frame(CLOSE, close_payload(code, reason)))

    # The client's side

    def feed(self, data: bytes) -> None:
        """What came over the connection."""
        self._asked = False
        try:
            for message in self._parser.feed(data):
                self._take(message)
        except Violation as violation:
            self._close(violation.code, str(violation))
            self._gone(violation.code, str(violation))
            self._exchange.finish()
        if self._full():
            self._connection.pause()

    def lost(self) -> None:
        """The connection is gone."""
        self._over = True
        self._unwatch()
        self._gone(ABNORMAL, "")

    def drain(self) -> None:
        """The instance goes away."""
        self._close(GOING_AWAY, "the instance ends")
        self._gone(GOING_AWAY, "the instance ends")

    def _take(self, message: Message) -> None:
        if message.kind == CLOSE:
            self._close(message.code, "")
            self._gone(message.code, str(message.data))
            self._exchange.finish()
        elif message.kind == PING and not self._over:
            self._connection.write(frame(PONG, bytes(message.data)))  # type: ignore[arg-type]
        elif message.kind in (TEXT, BINARY):
            self._event({"type": "websocket.receive", "text" if message.kind == TEXT else "bytes": message.data})

    def _gone(self, code: int, reason: str) -> None:
        """Tell the application; one that doesn't end by itself is ended after a while."""
        if self._event({"type": "websocket.disconnect", "code": code, "reason": reason}):
            self._ending = self._later(self._ending, GONE_SECONDS, self._exchange.call.cancel)

    def _event(self, event: dict[str, Any]) -> bool:
        """False where nothing follows any more."""
        if self._deaf or (self._events and self._events[-1]["type"] == "websocket.disconnect"):
            return False
        self._events.append(event)
        self._bytes += _size(event)
        self._arrived.set()
        return True

    def _full(self) -> bool:
        return len(self._events) >= MAX_WAITING or self._bytes > MAX_WAITING_BYTES

    # Whether anybody is there

    def _ask(self) -> None:
        if self._asked:
            self._connection.abort()
            return
        self._asked = True
        self._connection.write(frame(PING, b""))
        self._watching = self._loop.call_later(PING_SECONDS, self._ask)

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def _later(self, before: asyncio.TimerHandle | None, seconds: float, what: Any) -> asyncio.TimerHandle:
        if before is not None:
            before.cancel()
        return self._loop.call_later(seconds, what)


def _size(event: dict[str, Any]) -> int:
    return len(event.get("text") or event.get("bytes") or "")
