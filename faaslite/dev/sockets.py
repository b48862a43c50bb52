"""WebSockets of local functions: one to the client, one to the instance, and what comes on either goes out on the other."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import WSMsgType, web
from yarl import URL

__all__ = ["bridge", "is_websocket"]

GOING_AWAY, NO_STATUS = 1001, 1000


def is_websocket(request: web.Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return web.WebSocketResponse().can_prepare(request).ok


async def bridge(
    request: web.Request, session: aiohttp.ClientSession, url: URL, headers: list[tuple[str, str]]
) -> web.StreamResponse:
    """Open the instance's side, then the client's, and pass messages on until one of them ends.

    Raises aiohttp.WSServerHandshakeError where the function refused, other aiohttp.ClientError where it can't be reached.
    """
    offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each.strip()]
    kept = [each for each in headers if not each[0].lower().startswith("sec-websocket-")]
    async with session.ws_connect(url, protocols=offered, headers=kept, max_msg_size=0, autoping=True) as inner:
        outer = web.WebSocketResponse(protocols=[inner.protocol] if inner.protocol else [], max_msg_size=0)
        await outer.prepare(request)
        pumps = [asyncio.ensure_future(_pump(outer, inner)), asyncio.ensure_future(_pump(inner, outer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await outer.close(code=GOING_AWAY)
        return outer


_Side = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


async def _pump(source: _Side, target: _Side) -> None:
    """Messages of one side until it closes; its code and reason go on to the other."""
    while True:
        message = await source.receive()
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is WSMsgType.CLOSE:
            await target.close(code=message.data or NO_STATUS, message=(message.extra or "").encode())
            return
        else:
            return
