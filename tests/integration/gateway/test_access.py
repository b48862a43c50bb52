"""Who may call what: keys, tokens, pages of other origins; and where a function is found."""

from __future__ import annotations

import asyncio
import hashlib
import time

KEY = "fk_secret"
HASH = hashlib.sha256(KEY.encode()).hexdigest()


async def test_a_key_opens_its_function_and_stays_with_the_gateway(world):
    rows = {"keys": [{"name": "ci", "hash": HASH}]}
    world.function(http={"visibility": "key"}, status=rows)
    world.function("other", http={"visibility": "key"})
    instance = await world.instance()
    await world.serve()
    refused = await world.ask()
    assert (refused.status, refused.error["error"]) == (401, "Unauthorized")
    assert refused.fields["www-authenticate"].startswith("Bearer")
    assert (await world.ask("/function/hello", "GET", b"", "X-Faaslite-Key: fk_wrong")).status == 401
    wrong = await world.ask("/function/other", "GET", b"", f"X-Faaslite-Key: {KEY}")
    assert (wrong.status, wrong.error["error"]) == (403, "Forbidden")
    assert not instance.requests
    for field in (f"X-Faaslite-Key: {KEY}", f"Authorization: Bearer {KEY}"):
        assert (await world.ask("/function/hello", "POST", b"body", field)).status == 200
        assert KEY.encode() not in instance.requests[-1].head
        assert instance.requests[-1].body == b"body"
    assert not world.api.reviews


async def test_a_key_that_has_expired_or_is_gone_opens_nothing(world):
    world.function(
        http={"visibility": "key"}, status={"keys": [{"name": "ci", "hash": HASH, "expires": time.time() - 1}]}
    )
    await world.instance()
    await world.serve()
    old = await world.ask("/function/hello", "GET", b"", f"X-Faaslite-Key: {KEY}")
    assert (old.status, old.error["message"]) == (401, "the key has expired")
    world.function(
        http={"visibility": "key"}, status={"keys": [{"name": "ci", "hash": HASH, "expires": time.time() + 60}]}
    )
    await world.settled()
    assert (await world.ask("/function/hello", "GET", b"", f"X-Faaslite-Key: {KEY}")).status == 200
    world.function(http={"visibility": "key"})
    await world.settled()
    gone = await world.ask("/function/hello", "GET", b"", f"X-Faaslite-Key: {KEY}")
    assert (gone.status, gone.error["message"]) == (401, "the key is not valid")


async def test_a_private_function_asks_the_cluster_once(world):
    world.function(http={"visibility": "private"})
    instance = await world.instance()
    await world.serve()
    assert (await world.ask("/function/hello", "GET", b"", "Authorization: Bearer unknown")).status == 401
    refused = await world.ask("/function/hello", "GET", b"", "Authorization: Bearer bob")
    assert (refused.status, refused.error["error"]) == (403, "Forbidden")
    world.api.reviews.clear()
    replies = await asyncio.gather(
        *(world.ask("/function/hello", "GET", b"", "Authorization: Bearer may-ann") for _ in range(5))
    )
    assert [each.status for each in replies] == [200] * 5
    assert [each["kind"] for each in world.api.reviews] == ["TokenReview", "SubjectAccessReview"]
    assert all(b"may-ann" not in each.head for each in instance.requests)
    fields = ("Authorization: Basic mine", "X-Faaslite-Token: Bearer may-ann")
    assert (await world.ask("/function/hello", "GET", b"", *fields)).status == 200
    assert instance.requests[-1].fields["authorization"] == "Basic mine"


async def test_a_client_that_leaves_while_its_token_is_reviewed_leaves_nothing(world):
    world.function(http={"visibility": "private"})
    instance = await world.instance()
    worker = await world.serve()
    gate = asyncio.Event()
    request = world.api.request

    async def slow(method, path, *arguments):
        if method == "POST":
            await gate.wait()
        return await request(method, path, *arguments)

    world.api.request = slow
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer may\r\n\r\n")
    await world.until(lambda: bool(worker.gateway.access._asking))
    await peer.close()
    await world.until(lambda: not worker.gateway.connections)
    gate.set()
    await world.until(lambda: not worker.gateway.access._asking)
    assert not instance.requests
    assert worker.gateway.router.revisions["default/hello-00001"].load.active == 0


async def test_calls_by_the_workers_own_socket_were_allowed_before(world):
    world.function(http={"visibility": "private"})
    await world.instance()
    await world.serve()
    reader, writer = await asyncio.open_unix_connection(world.folder / "gateway-1.sock")
    writer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()


async def test_cross_origin_requests(world):
    cors = {"origins": ["https://app.example"], "methods": ["GET", "PUT"], "maxAge": 600}
    world.function(http={"cors": cors})
    instance = await world.instance()
    await world.serve()
    asked = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: X-A")
    preflight = await world.ask("/function/hello", "OPTIONS", b"", "Origin: https://app.example", *asked)
    assert preflight.status == 204
    assert preflight.fields["access-control-allow-origin"] == "https://app.example"
    assert preflight.fields["access-control-allow-methods"] == "GET, PUT"
    assert preflight.fields["access-control-allow-headers"] == "X-A"
    assert preflight.fields["access-control-max-age"] == "600"
    assert not instance.requests
    reply = await world.ask("/function/hello", "GET", b"", "Origin: https://app.example")
    assert (reply.status, reply.fields["access-control-allow-origin"], reply.fields["vary"]) == (
        200,
        "https://app.example",
        "Origin",
    )
    stranger = await world.ask("/function/hello", "GET", b"", "Origin: https://evil.example")
    assert stranger.status == 200
    assert "access-control-allow-origin" not in stranger.fields
    refused = await world.ask("/function/hello", "OPTIONS", b"", "Origin: https://evil.example", *asked)
    assert "access-control-allow-origin" not in refused.fields
    plain = await world.ask("/function/hello", "OPTIONS", b"", "Origin: https://app.example")
    assert plain.status == 200
    assert len(instance.requests) == 3


async def test_tags_numbers_hosts_routes_and_a_named_revision(world):
    traffic = [
        {"revision": "hello-00002", "percent": 100},
        {"revision": "hello-00001", "percent": 0, "tags": ["old"]},
    ]
    rows = [{"revision": "hello-00001"}, {"revision": "hello-00002"}]
    world.function(
        traffic=traffic, status={"revisions": rows}, http={"routes": [{"host": "img.example", "path": "/thumb"}]}
    )
    old = await world.instance(revision="hello-00001")
    new = await world.instance(revision="hello-00002")
    await world.serve(domain="fn.example")
    for target in ("/function/hello:1/x", "/function/hello@old/x", "/function/hello.default:00001/x"):
        assert (await world.ask(target)).status == 200
        assert old.requests[-1].target == "/x"
    assert (await world.ask("/function/hello", "GET", b"", "X-Faaslite-Revision: hello-00001")).status == 200
    assert len(old.requests) == 4
    peer = await world.peer()
    peer.write(
        b"GET /thumb/a?b HTTP/1.1\r\nHost: img.example\r\n\r\nGET /metrics HTTP/1.1\r\nHost: hello.default.fn.example\r\n\r\n"
    )
    assert (await peer.reply()).status == (await peer.reply()).status == 200
    assert [each.target for each in new.requests] == ["/thumb/a?b", "/metrics"]
    assert (await world.ask("/function/hello:9")).error["error"] == "FunctionNotFound"


async def test_calls_that_wait_for_a_deleted_function_fail_at_once(world):
    world.function()
    worker = await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
    await world.until(lambda: bool(worker.gateway.router.revisions["default/hello-00001"].waiting))
    world.api.remove("functions", "default/hello")
    assert (await peer.reply()).error["error"] == "FunctionNotFound"


async def test_a_trace_begins_at_the_gateway_where_none_came(world):
    world.function()
    instance = await world.instance()
    await world.serve()
    reply = await world.ask()
    version, trace, span, flags = instance.requests[-1].fields["traceparent"].split("-")
    assert (version, trace, len(span), flags) == ("00", reply.fields["x-call-id"], 16, "01")
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    await world.ask("/function/hello", "GET", b"", f"traceparent: {given}")
    assert instance.requests[-1].fields["traceparent"] == given
    assert instance.requests[-1].fields["forwarded"] == "for=127.0.0.1;host=test;proto=http"


async def test_metrics_of_any_worker_are_those_of_all(world):
    world.function()
    await world.instance()
    await world.serve()

    async def sibling(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        text = (
            "# HELP faaslite_function_invocations_total x\n# TYPE faaslite_function_invocations_total counter\n"
            'faaslite_function_invocations_total{function="hello",namespace="default",code="2xx"} 41\n'
            "# HELP faaslite_function_instances x\n# TYPE faaslite_function_instances gauge\n"
            'faaslite_function_instances{function="hello",namespace="default",revision="hello-00001"} 1\n'
        )
        writer.write(f"HTTP/1.1 200 OK\r\n\r\n{text}".encode())
        writer.close()

    (world.folder / "gateway-3.sock").touch()  # what a dead worker left
    async with await asyncio.start_unix_server(sibling, world.folder / "gateway-2.sock"):
        assert (await world.ask()).status == 200
        text = (await world.ask("/metrics")).body.decode()
    assert 'faaslite_function_invocations_total{function="hello",namespace="default",code="2xx"} 42' in text
    assert 'faaslite_function_instances{function="hello",namespace="default",revision="hello-00001"} 1' in text


async def test_what_must_not_be_sent_twice_goes_on_a_fresh_connection(world):
    world.function()
    instance = await world.instance()
    await world.serve(reuse_unsafe=0.0)
    peer = await world.peer()
    for method, connections in (("GET", 1), ("GET", 1), ("POST", 2), ("GET", 2), ("POST", 3)):
        assert (await peer.ask("/function/hello", method)).status == 200
        assert instance.connections == connections


async def test_a_function_for_the_cluster_alone_is_not_at_the_gateway(world):
    world.function(http={"visibility": "cluster"})
    instance = await world.instance()
    await world.serve()
    reply = await world.ask("/function/hello", "GET", b"", "Authorization: Bearer may")
    assert (reply.status, reply.error["error"]) == (404, "FunctionNotFound")
    assert not instance.requests
