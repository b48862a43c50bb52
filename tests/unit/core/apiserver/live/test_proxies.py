"""Proxies of Pods and Services, to a server that says what it was asked."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

CORE = "/api/v1/namespaces/default"


@pytest.fixture
async def backend():
    """Its port. It answers JSON of what it was asked, HTML below /page, a redirect below /away, and streams below /slow."""

    async def answer(request):
        if request.path == "/page":
            return web.Response(text='<a href="/rewriteme">test</a>', content_type="text/html")
        if request.path == "/away":
            raise web.HTTPFound("/there")
        if request.path == "/bad":
            return web.Response(status=418, text="no coffee", headers={"X-Own": "1"})
        said = {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": (await request.read()).decode(),
        }
        return web.json_response(said)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def call(api, admin, backend, monkeypatch):
    """A request over ASGI: (status, headers, body). There are a Pod `web` and a Service `web` that lead to the backend."""

    async def allow(user, info):
        seen.append((info.verb, info.full_resource, info.name))

    seen = []
    container = {"name": "c", "image": "x", "ports": [{"containerPort": backend}]}
    await admin.post(
        f"{CORE}/pods", {"metadata": {"name": "web"}, "spec": {"containers": [container], "nodeName": "n"}}
    )
    await admin.patch(f"{CORE}/pods/web/status", {"status": {"podIP": "127.0.0.1"}})
    ports = [{"name": "http", "port": 80, "targetPort": backend}]
    await admin.post(f"{CORE}/services", {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    one = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": backend}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }
    await admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", one)
    monkeypatch.setattr(api._authorizer, "check", allow)

    async def ask(method, path, body=b"", query=b"", **headers):
        sent = []

        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return left.pop() if left else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        raw = [(b"authorization", b"Bearer secret"), (b"host", b"api")]
        raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "headers": raw}  # fmt: skip
        await api(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:])

    ask.seen = seen
    return ask


@pytest.mark.parametrize("what", ["pods/web", "services/web:http", "services/http:web:80"])
async def test_a_request_goes_there_and_its_answer_comes_back(call, backend, what):
    path = f"{CORE}/{what}/proxy/a%2Fb/c/"
    status, headers, body = await call(
        "POST", path, b"hello", b"x=1&y=%20", content_type="text/x", impersonate_user="bob"
    )
    said = json.loads(body)
    assert status == 200 and headers["content-type"].startswith("application/json")
    assert (said["method"], said["path"], said["body"]) == ("POST", "/a%2Fb/c/?x=1&y=%20", "hello")
    assert said["headers"]["content-type"] == "text/x"
    assert said["headers"]["x-forwarded-uri"] == path
    assert said["headers"]["host"] == f"127.0.0.1:{backend}"
    assert not {"authorization", "impersonate-user"} & said["headers"].keys(), "who asks is nobody else's business"
    resource, _, name = what.partition("/")
    assert call.seen[-1] == ("create", f"{resource}/proxy", name)


async def test_every_method_and_status(call):
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        status, _, body = await call(method, f"{CORE}/pods/web/proxy/x")
        assert (status, json.loads(body)["method"]) == (200, method)
    status, headers, body = await call("GET", f"{CORE}/pods/web/proxy/bad")
    assert (status, headers["x-own"], body) == (418, "1", b"no coffee")


async def test_pages_and_redirects_lead_back_through_the_proxy(call):
    prefix = f"{CORE}/services/web:http/proxy"
    status, headers, body = await call("GET", f"{prefix}/page")
    assert body == f'<a href="{prefix}/rewriteme">test</a>'.encode()
    assert headers["content-length"] == str(len(body))
    status, headers, _ = await call("GET", f"{prefix}/away")
    assert (status, headers["location"]) == (302, f"{prefix}/there")
    status, headers, _ = await call("GET", prefix, query=b"a=b")
    assert (status, headers["location"]) == (301, f"{prefix}/?a=b")


async def test_what_leads_nowhere(call, admin, backend):
    async def reason(path):
        status, _, body = await call("GET", path)
        return status, json.loads(body)["message"]

    assert await reason(f"{CORE}/pods/none/proxy/") == (404, 'pods "none" not found')
    assert await reason(f"{CORE}/services/web:81/proxy/") == (503, 'no service port "81" found for service "web"')
    assert await reason(f"{CORE}/pods/ftp:web:1/proxy/") == (400, 'invalid request "ftp:web:1"')
    status, message = await reason(f"{CORE}/pods/web:1/proxy/")
    assert status == 503 and message.startswith("error trying to reach service: ")
    await admin.post(f"{CORE}/services", {"metadata": {"name": "lone"}, "spec": {"ports": [{"port": 80}]}})
    assert await reason(f"{CORE}/services/lone/proxy/") == (503, 'no endpoints available for service "lone"')


async def test_slices_don_t_lead_to_what_listens_on_this_machine(call, admin, backend):
    """Who may write EndpointSlices and ask Services could otherwise reach every port of the host's loopback."""
    await admin.post(f"{CORE}/services", {"metadata": {"name": "sly"}, "spec": {"ports": [{"port": 80}]}})
    one = {
        "metadata": {"name": "sly-1", "labels": {"kubernetes.io/service-name": "sly"}},
        "addressType": "IPv4",
        "ports": [{"port": backend}],
        "endpoints": [{"addresses": ["127.0.0.2"]}],
    }
    await admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", one)
    status, _, body = await call("GET", f"{CORE}/services/sly/proxy/")
    assert (status, json.loads(body)["message"]) == (400, "address not allowed")
