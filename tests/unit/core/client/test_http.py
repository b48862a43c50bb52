"""The HTTP transport against a real server on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tracemalloc

import msgspec
import pytest
from aiohttp import web

from core.api.kinds import CONFIG_MAP, POD
from core.client.http import HttpTransport
from core.client.transport import MERGE_PATCH, RawEvent
from core.errors import ApiError, Conflict, Expired, Forbidden, NotFound, ServiceUnavailable

PODS = POD.path("default")


def pod(name: str, **labels: str):
    return {"metadata": {"name": name, "labels": labels}}


async def answer(serve, handler, **options) -> HttpTransport:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return HttpTransport(await serve(app), **options)


async def test_a_request_carries_its_parts_and_brings_the_body(api, app, seen, serve) -> None:
    transport = HttpTransport(await serve(app), token="secret")
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


async def test_a_status_becomes_its_error(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    with pytest.raises(NotFound, match='pods "none" not found') as caught:
        await transport.request("GET", f"{PODS}/none")
    assert caught.value.details == {"name": "none"}
    api.failures.append(Conflict("changed"))
    with pytest.raises(Conflict, match="changed"):
        await transport.request("GET", f"{PODS}/none")
    await transport.close()


async def test_an_answer_of_something_else_keeps_its_words(serve) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.Response(status=403, text="blocked by the proxy")

    transport = await answer(serve, proxy)
    with pytest.raises(Forbidden, match="blocked by the proxy"):
        await transport.request("GET", "/api")
    await transport.close()


async def test_no_answer_is_unavailable(serve) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        request.transport.abort()
        return web.Response()

    transport = await answer(serve, hang_up)
    for stream in (transport.request("POST", "/api", None, b"{}"), anext(transport.watch("/api", {}))):
        with pytest.raises(ServiceUnavailable, match=f"no answer from {transport.base_url}"):
            await stream
    await transport.close()

    unused = asyncio.get_running_loop()
    server = await unused.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    nobody = HttpTransport(f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceUnavailable):
        await nobody.request("GET", "/api")
    await nobody.close()


async def test_a_request_that_takes_too_long_is_unavailable(serve) -> None:
    came = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        came.set()
        await asyncio.Event().wait()
        return web.Response()

    transport = await answer(serve, never, timeout=0.1)
    with pytest.raises(ServiceUnavailable):
        await transport.request("GET", "/api")
    assert came.is_set()
    await transport.close()


async def test_a_closed_transport_refuses(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    await transport.request("GET", PODS)
    await transport.close()
    await transport.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        await transport.request("GET", PODS)
    with pytest.raises(ServiceUnavailable, match="closed"):
        await anext(transport.watch(PODS, {}))


async def test_a_watch_replays_and_follows(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
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


async def test_closing_a_watch_hangs_up(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    query = {"resourceVersion": str(api.revision)}
    api.put(POD, pod("a"))
    async with asyncio.timeout(10), contextlib.aclosing(transport.watch(PODS, query)) as events:
        await anext(events)
        assert len(api.watching) == 1
    async with asyncio.timeout(10):
        await api.watch_ended.wait()
    assert not api.watching
    await transport.close()


async def test_a_watch_from_an_expired_version_raises_it(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    api.compact()
    with pytest.raises(Expired):
        await anext(transport.watch(PODS, {"resourceVersion": "1"}))
    await transport.close()


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
async def test_a_watch_is_cut_into_lines_wherever_the_chunks_end(serve, size: int) -> None:
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

    transport = await answer(serve, handle)
    events: list[RawEvent] = []
    with pytest.raises(Expired):
        async for batch in transport.watch("/watch", {"resourceVersion": "1"}):
            assert batch
            events += batch
    assert [(event.type, msgspec.json.decode(event.object)["n"]) for event in events] == [
        ("ADDED", 0), ("ADDED", 5), ("ADDED", 300),
    ]  # fmt: skip
    await transport.close()


async def test_a_large_object_is_one_event(serve) -> None:
    size = 8 << 20

    async def handle(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b'{"type":"ADDED","object":{"data":"' + b"x" * size + b'"}}\n')
        return reply

    transport = await answer(serve, handle)
    tracemalloc.start()
    try:
        batches = [batch async for batch in transport.watch("/watch", {})]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(event.object) for batch in batches for event in batch] == [size + len('{"data":""}')]
    assert peak < 8 * size, "the copies grow with the number of chunks"
    await transport.close()


async def test_something_else_on_a_watch_is_an_error(serve) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="<html>\n")

    transport = await answer(serve, handle)
    with pytest.raises(ServiceUnavailable, match="not a watch event"):
        await anext(transport.watch("/watch", {}))
    await transport.close()


async def test_a_stream_is_not_held_back(serve) -> None:
    more = asyncio.Event()

    async def log(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b"first, without an end of line")
        await more.wait()
        await reply.write(b" second\n")
        return reply

    transport = await answer(serve, log)
    async with asyncio.timeout(10), contextlib.aclosing(transport.stream("/log", {"follow": "true"})) as chunks:
        assert await anext(chunks) == b"first, without an end of line"
        more.set()
        assert b"".join([chunk async for chunk in chunks]) == b" second\n"
    await transport.close()


async def test_many_watches_leave_requests_alone(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    query = {"resourceVersion": str(api.revision)}
    api.put(CONFIG_MAP, pod("a"))
    async with asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
        for _ in range(150):
            events = transport.watch(CONFIG_MAP.path("default"), query)
            await stack.enter_async_context(contextlib.aclosing(events))
            await anext(events)
        assert await transport.request("GET", PODS)
    await transport.close()


async def test_tls_is_verified(app, serve, authority) -> None:
    url = await serve(app, authority.server_context(*authority.issue("server", "127.0.0.1")))
    trusting = HttpTransport(url, ssl=ssl.create_default_context(cafile=str(authority.ca)))
    assert await trusting.request("GET", PODS)
    await trusting.close()
    careless = HttpTransport(url, ssl=False)
    assert await careless.request("GET", PODS)
    await careless.close()
    strict = HttpTransport(url)
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
