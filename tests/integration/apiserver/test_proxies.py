"""A WebSocket of a Pod, through the API server: over TLS, as browsers and dashboards have it."""

from __future__ import annotations

import json

import aiohttp
import pytest
from aiohttp import web

from core.api.kinds import POD

ADMIN = {"Authorization": "Bearer admin-token"}


@pytest.fixture
async def echo():
    async def answer(request):
        if request.path != "/ws":
            return web.Response(status=404, text="no such page")
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        await socket.send_str(json.dumps({name.lower(): value for name, value in request.headers.items()}))
        async for message in socket:
            await socket.send_str(message.data[::-1])
        return socket

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_a_connection_is_upgraded_through_a_proxy(plane, echo):
    client = plane.client("admin-token")
    container = {"name": "c", "image": "x", "ports": [{"containerPort": echo}]}
    await client.create(
        POD, {"metadata": {"name": "web"}, "spec": {"containers": [container], "nodeName": "n1"}}, "default"
    )
    await client.patch(POD, "web", "default", {"status": {"podIP": "127.0.0.1"}}, subresource="status")
    path = f"{plane.url}/api/v1/namespaces/default/pods/web/proxy"
    async with aiohttp.ClientSession(headers=ADMIN) as session:
        async with session.ws_connect(f"{path}/ws", ssl=plane.context(), protocols=("chat",)) as socket:
            assert socket.protocol == "chat"
            headers = json.loads(await socket.receive_str(timeout=5))
            assert "authorization" not in headers
            assert headers["x-forwarded-uri"] == "/api/v1/namespaces/default/pods/web/proxy/ws"
            await socket.send_str("abc")
            assert await socket.receive_str(timeout=5) == "cba"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{path}/other", ssl=plane.context())
        assert refused.value.status == 404
        async with session.get(f"{path}/other", ssl=plane.context()) as reply:
            assert (reply.status, await reply.text()) == (404, "no such page")
