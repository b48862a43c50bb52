"""The transports over HTTP against a real server on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
import tracemalloc

import msgspec
import pytest
from aiohttp import web

from core.api.kinds import CONFIG_MAP, POD
from core.client.http import HttpTransport
from core.client.light import LightTransport
from core.client.transport import MERGE_PATCH, RawEvent
from core.errors import ApiError, Conflict, Expired, Forbidden, NotFound, ServiceUnavailable

PODS = POD.path("default")


def pod(name: str, **labels: str):
    return {"metadata": {"name": name, "labels": labels}}


@pytest.fixture(params=[HttpTransport, LightTransport], ids=["aiohttp", "light"])
def speaks(request):
    """One contract, two transports."""
    return request.param


async def answer(speaks, serve, handler, **options):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return speaks(await serve(app), **options)


async def test_a_request_carries_its_parts_and_brings_the_body(speaks, api, app, seen, serve) -> None:
    transport = speaks(await serve(app), token="secret")
    made = msgspec.json.decode(await transport.request("POST", PODS, None, msgspec.json.encode(pod("a"))))
    assert made["metadata"]["namespace"] == "default"
    headers = seen["headers"]
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/json"
    patch = b'{"metadata":{"labels":{"x":"y"}}}'
    changed = await transport.request("PATCH", f"{PODS}/a", None, patch, MERGE_PATCH)
    assert msgspec.json.decode(changed)["metadata"]["labels"] == {"x": "y"}
    query = {"labelSelector": "x in (y,z),a!=b c", "fieldSelector": "metadata.name=a"}
    with contextlib.suppress(ApiError):
        await transport.request("GET", PODS, query)
    assert api.calls[-1] == ("GET", PODS, query)
    await transport.close()


async def test_a_status_becomes_its_error(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    with pytest.raises(NotFound, match='pods "none" not found') as caught:
        await transport.request("GET", f"{PODS}/none")
    assert caught.value.details == {"name": "none"}
    api.failures.append(Conflict("changed"))
    with pytest.raises(Conflict, match="changed"):
        await transport.request("GET", f"{PODS}/none")
    await transport.close()


async def test_an_answer_of_something_else_keeps_its_words(speaks, serve) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.Response(status=403, text="blocked by the proxy")

    transport = await answer(speaks, serve, proxy)
    with pytest.raises(Forbidden, match="blocked by the proxy"):
        await transport.request("GET", "/api")
    await transport.close()


async def test_no_answer_is_unavailable(speaks, serve) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        request.transport.abort()
        return web.Response()

    transport = await answer(speaks, serve, hang_up)
    for stream in (transport.request("POST", "/api", None, b"{}"), anext(transport.watch("/api", {}))):
        with pytest.raises(ServiceUnavailable, match=f"no answer from {transport.base_url}"):
            await stream
    await transport.close()

    unused = asyncio.get_running_loop()
    server = await unused.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    nobody = speaks(f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceUnavailable):
        await nobody.request("GET", "/api")
    await nobody.close()


async def test_a_request_that_takes_too_long_is_unavailable(speaks, serve) -> None:
    came = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        came.set()
        await asyncio.Event().wait()
        return web.Response()

    transport = await answer(speaks, serve, never, timeout=0.1)
    with pytest.raises(ServiceUnavailable):
        await transport.request("GET", "/api")
    assert came.is_set()
    await transport.close()


async def test_a_closed_transport_refuses(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    await transport.request("GET", PODS)
    await transport.close()
    await transport.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        await transport.request("GET", PODS)
    with pytest.raises(ServiceUnavailable, match="closed"):
        await anext(transport.watch(PODS, {}))


async def test_a_watch_replays_and_follows(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    since = str(api.revision)
    api.put(POD, pod("a"))
    async with asyncio.timeout(10), contextlib.aclosing(transport.watch(PODS, {"resourceVersion": since})) as events:
        first = await anext(events)
        assert [(event.type, msgspec.json.decode(event.object)["metadata"]["name"]) for event in first] == [
            ("ADDED", "a")
        ]
        api.remove(POD, "a")
        assert [event.type for event in await anext(events)] == ["DELETED"]
        api.end_watches()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    await transport.close()


async def test_closing_a_watch_hangs_up(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    query = {"resourceVersion": str(api.revision)}
    api.put(POD, pod("a"))
    async with asyncio.timeout(10), contextlib.aclosing(transport.watch(PODS, query)) as events:
        await anext(events)
        assert len(api.watching) == 1
    async with asyncio.timeout(10):
        await api.watch_ended.wait()
    assert not api.watching
    await transport.close()


async def test_a_watch_from_an_expired_version_raises_it(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    api.compact()
    with pytest.raises(Expired):
        await anext(transport.watch(PODS, {"resourceVersion": "1"}))
    await transport.close()


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
async def test_a_watch_is_cut_into_lines_wherever_the_chunks_end(speaks, serve, size: int) -> None:
    lines = [b'{"type":"ADDED","object":{"n":%d,"t":"%s"}}' % (n, b"x" * n) for n in (0, 5, 300)]
    stream = b"\n".join(
        [*lines, b"", b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}', b""]
    )

    async def handle(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        for at in range(0, len(stream), size):
            await reply.write(stream[at : at + size])
        return reply

    transport = await answer(speaks, serve, handle)
    events: list[RawEvent] = []
    with pytest.raises(Expired):
        async for batch in transport.watch("/watch", {"resourceVersion": "1"}):
            assert batch
            events += batch
    assert [(event.type, msgspec.json.decode(event.object)["n"]) for event in events] == [
        ("ADDED", 0), ("ADDED", 5), ("ADDED", 300),
    ]  # fmt: skip
    await transport.close()


async def test_a_large_object_is_one_event(speaks, serve) -> None:
    size = 8 << 20

    async def handle(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b'{"type":"ADDED","object":{"data":"' + b"x" * size + b'"}}\n')
        return reply

    transport = await answer(speaks, serve, handle)
    tracemalloc.start()
    try:
        batches = [batch async for batch in transport.watch("/watch", {})]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(event.object) for batch in batches for event in batch] == [size + len('{"data":""}')]
    assert peak < 8 * size, "the copies grow with the number of chunks"
    await transport.close()


async def test_something_else_on_a_watch_is_an_error(speaks, serve) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="<html>\n")

    transport = await answer(speaks, serve, handle)
    with pytest.raises(ServiceUnavailable, match="not a watch event"):
        await anext(transport.watch("/watch", {}))
    await transport.close()


async def test_a_stream_is_not_held_back(speaks, serve) -> None:
    more = asyncio.Event()

    async def log(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b"first, without an end of line")
        await more.wait()
        await reply.write(b" second\n")
        return reply

    transport = await answer(speaks, serve, log)
    async with asyncio.timeout(10), contextlib.aclosing(transport.stream("/log", {"follow": "true"})) as chunks:
        assert await anext(chunks) == b"first, without an end of line"
        more.set()
        assert b"".join([chunk async for chunk in chunks]) == b" second\n"
    await transport.close()


async def test_many_watches_leave_requests_alone(speaks, api, app, serve) -> None:
    transport = speaks(await serve(app))
    query = {"resourceVersion": str(api.revision)}
    api.put(CONFIG_MAP, pod("a"))
    async with asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
        for _ in range(150):
            events = transport.watch(CONFIG_MAP.path("default"), query)
            await stack.enter_async_context(contextlib.aclosing(events))
            await anext(events)
        assert await transport.request("GET", PODS)
    await transport.close()


async def test_tls_is_verified(speaks, app, serve, authority) -> None:
    url = await serve(app, authority.server_context(*authority.issue("server", "127.0.0.1")))
    trusting = speaks(url, ssl=ssl.create_default_context(cafile=str(authority.ca)))
    assert await trusting.request("GET", PODS)
    await trusting.close()
    careless = speaks(url, ssl=False)
    assert await careless.request("GET", PODS)
    await careless.close()
    strict = speaks(url)
    with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
        await strict.request("GET", PODS)
    await strict.close()


async def test_a_client_certificate_is_shown(app, seen, serve, authority) -> None:
    url = await serve(app, authority.server_context(*authority.issue("server", "127.0.0.1"), clients=True))
    cert, key = authority.issue("client")
    trust = ssl.create_default_context(cafile=str(authority.ca))
    transport = HttpTransport(url, ssl=trust, client_cert=(str(cert), str(key)))
    assert await transport.request("GET", PODS)
    assert seen["certificate"]["subject"] == ((("commonName", "client"),),)
    await transport.close()


async def scripted(*answers: bytes):
    """A server that gives these answers to connections in turn, whatever is asked, and then hangs up; and its URL."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if left else b"")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nTrailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
        (b"", None),
    ],
)  # fmt: skip
async def test_replies_of_every_form_are_read_or_refused(speaks, text: bytes, found: bytes | None) -> None:
    server, url = await scripted(text)
    transport = speaks(url)
    async with server, asyncio.timeout(10):
        if found is None:
            with pytest.raises(ServiceUnavailable, match="no answer from"):
                await transport.request("GET", "/api")
        else:
            assert await transport.request("GET", "/api") == found
        await transport.close()


async def test_a_connection_that_ended_while_it_was_idle_is_no_failure(speaks, serve) -> None:
    """The server says that it keeps it, and doesn't."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    server, url = await scripted(reply, reply)
    transport = speaks(url)
    async with server, asyncio.timeout(10):
        assert await transport.request("GET", "/api") == b"ok"
        assert await transport.request("GET", "/api") == b"ok"
        await transport.close()


async def test_requests_side_by_side_have_connections_of_their_own(speaks, serve) -> None:
    both = asyncio.Barrier(2)

    async def handle(request: web.Request) -> web.Response:
        await both.wait()
        return web.Response(text=request.path)

    transport = await answer(speaks, serve, handle)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(transport.request("GET", each) for each in ("/a", "/b"))) == [b"/a", b"/b"]
    await transport.close()


async def test_a_websocket_of_the_light_one_is_the_others(serve) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        reply = web.WebSocketResponse()
        await reply.prepare(request)
        async for message in reply:
            await reply.send_str(message.data + request.headers["Authorization"])
        return reply

    transport = await answer(LightTransport, serve, echo, token="secret")
    async with asyncio.timeout(10), transport.connect("/exec", [("command", "a")], []) as connection:
        await connection.send("hello ")
        assert await connection.recv() == "hello Bearer secret"
    await transport.close()


def test_commands_load_no_more_than_they_need() -> None:
    code = (
        "import sys, cli.functions, cli.deploy, core.client.light, core.client.rest; sys.exit('aiohttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
