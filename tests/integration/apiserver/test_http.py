"""What only HTTP shows: headers, sizes, streams, durability, and other clients than kubectl."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import kubernetes.client as official
import pytest
from aiohttp import web
from kubernetes import watch

from core.apiserver.authn import User
from core.apiserver.streams.log import KubeletConnector

CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
async def http(serving) -> AsyncIterator[aiohttp.ClientSession]:
    session = aiohttp.ClientSession(
        serving.url,
        connector=aiohttp.TCPConnector(ssl=serving.client_ssl()),
        headers={"Authorization": "Bearer admin-token"},
    )
    async with session:
        yield session


async def test_users_and_strangers(http):
    async with http.get("/api/v1/pods", headers={"Authorization": "Bearer wrong"}) as reply:
        status = await reply.json()
        assert (reply.status, status["kind"], status["reason"], status["code"]) == (401, "Status", "Unauthorized", 401)
    async with http.get("/api/v1/pods", headers={"Authorization": "Bearer nobody-token"}) as reply:
        assert reply.status == 403 and (await reply.json())["details"] == {"kind": "pods"}
    async with http.get("/healthz", headers={"Authorization": ""}) as reply:
        assert (reply.status, await reply.text()) == (200, "ok")


async def test_paths_that_nobody_serves(http):
    async with http.get("/apis/unknown.io/v1/things") as reply:
        assert (reply.status, await reply.text()) == (404, "404 page not found\n")
    async with http.get("/apis/apps/v1/things") as reply:
        assert (
            reply.status == 404
            and (await reply.json())["message"] == "the server could not find the requested resource"
        )
    for path in (
        "/version/",
        "/api/",
        "/apis/",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/openapi/v3",
        "/readyz/ping",
    ):
        async with http.get(path) as reply:
            assert reply.status == 200, path
    async with http.get("/metrics") as reply:
        text = await reply.text()
    told = 'apiserver_request_total{{code="{}",component="apiserver",dry_run="",group="",resource="{}",scope="{}",subresource="",verb="{}",version="{}"}}'
    assert told.format(404, "", "", "LIST", "") in text, "names that nobody serves are no labels"
    assert "things" not in text


async def test_aggregated_discovery_and_its_etag(http):
    media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with http.get("/apis", headers={"Accept": f"{media},application/json"}) as reply:
        assert reply.headers["Content-Type"] == media
        assert (await reply.json(content_type=None))["kind"] == "APIGroupDiscoveryList"
        tag = reply.headers["ETag"]
    async with http.get("/apis", headers={"Accept": media, "If-None-Match": tag}) as reply:
        assert reply.status == 304
    async with http.get("/apis", headers={"Accept": "application/json"}) as reply:
        assert (await reply.json())["kind"] == "APIGroupList"


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"metadata": {"name": 3}}', "application/json", 400),
        (b'{"metadata": {"name": "a"}, "data": "x"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"k8s\x00junk", "application/vnd.kubernetes.protobuf", 400),
        (b"a: [", "application/yaml", 400),
        (b"x", "text/html", 415),
        (b'{"kind": "Pod"}', "application/json", 400),
        (b'{"metadata": {}}', "application/json", 422),
        (b'"' + b"x" * (3 * 1024 * 1024) + b'"', "application/json", 413),
    ],
)
async def test_bad_bodies_never_break_the_server(http, body, content_type, code):
    async with http.post(CM, data=io.BytesIO(body), headers={"Content-Type": content_type}) as reply:
        assert (reply.status, (await reply.json())["code"]) == (code, code)


async def test_yaml_bodies_and_bodies_without_a_type(http):
    async with http.post(
        CM, data="metadata: {name: y}\ndata: {k: v}\n", headers={"Content-Type": "application/yaml"}
    ) as reply:
        assert (reply.status, (await reply.json())["data"]) == (201, {"k": "v"})
    async with http.post(CM, data=b'{"metadata": {"name": "n"}}', skip_auto_headers=["Content-Type"]) as reply:
        assert reply.status == 201


async def test_warnings_and_answers_that_are_not_to_be_had(http):
    body = {"metadata": {"name": "w"}, "datta": {}}
    async with http.post(CM, json=body) as reply:
        assert reply.headers["Warning"] == '299 - "unknown field \\"datta\\""'
    async with http.get(CM, headers={"Accept": "text/html"}) as reply:
        assert reply.status == 406


async def test_forms(http):
    await (await http.post(CM, json={"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}})).release()
    async with http.get(
        CM, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    ) as reply:
        table = await reply.json()
        assert table["kind"] == "Table" and table["rows"][0]["cells"][0] == "a"
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata" and table["metadata"]["resourceVersion"]
    async with http.get(
        f"{CM}/a", headers={"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    ) as reply:
        partial = await reply.json()
        assert partial["metadata"]["labels"] == {"x": "y"} and "data" not in partial
    async with http.head(f"{CM}/a") as reply:
        assert reply.status == 200 and await reply.read() == b""


async def test_large_replies_are_compressed(http, serving):
    for number in range(3):
        reply = await http.post(CM, json={"metadata": {"name": f"big{number}"}, "data": {"k": "x" * 100_000}})
        reply.release()
    async with http.get(CM, headers={"Accept-Encoding": "gzip"}) as reply:
        assert reply.headers["Content-Encoding"] == "gzip" and len((await reply.json())["items"]) == 3
    async with http.get(f"{CM}/big0", headers={"Accept-Encoding": "gzip"}) as reply:
        assert "Content-Encoding" not in reply.headers


async def test_watches_over_http(http):
    async with http.get(CM) as reply:
        since = (await reply.json())["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": "20"}
    async with (
        http.get(CM, params=query) as plain,
        http.get(CM, params=query, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}) as tables,
    ):
        for name in ("a", "b"):
            (await http.post(CM, json={"metadata": {"name": name}})).release()
        events = [json.loads(await plain.content.readline()) for _ in range(2)]
        assert [(each["type"], each["object"]["metadata"]["name"]) for each in events] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
        ]
        first, second = [json.loads(await tables.content.readline())["object"] for _ in range(2)]
        assert first["columnDefinitions"] and not second.get("columnDefinitions")
        assert [each["rows"][0]["cells"][0] for each in (first, second)] == ["a", "b"]


async def test_a_stale_watch_is_told_in_an_event(http, serving):
    for name in ("a", "b"):
        (await http.post(CM, json={"metadata": {"name": name}})).release()
    await serving.store.compact(serving.store.revision)
    async with http.get(CM, params={"watch": "true", "resourceVersion": "1"}) as reply:
        assert reply.status == 200
        event = json.loads(await reply.content.readline())
        assert (event["type"], event["object"]["reason"], event["object"]["code"]) == ("ERROR", "Expired", 410)
        assert await reply.content.readline() == b""


async def test_a_client_that_goes_takes_its_watch_along(http, serving, monkeypatch):
    ended, stream = asyncio.Event(), serving.api._edge._stream

    async def told(*arguments: object) -> None:
        await stream(*arguments)
        ended.set()

    monkeypatch.setattr(serving.api._edge, "_stream", told)
    reply = await http.get(CM, params={"watch": "true"})
    assert serving.api.resources.watching == 1
    reply.close()
    async with asyncio.timeout(5):
        await ended.wait()
    assert serving.api.resources.watching == 0


async def test_replies_to_writes_wait_until_they_are_durable(http, serving, monkeypatch):
    durable, waiting, waited = asyncio.Event(), asyncio.Event(), []

    async def wait(revision: int) -> None:
        waited.append(revision)
        waiting.set()
        await durable.wait()

    monkeypatch.setattr(serving.store, "durable", wait)
    posting = asyncio.create_task(http.post(CM, json={"metadata": {"name": "a"}}))
    local = serving.api.local(User("local", ("system:masters",)))
    await waiting.wait()
    assert json.loads(await local.request("GET", f"{CM}/a"))["metadata"]["resourceVersion"] == str(waited[0])
    assert not posting.done()
    durable.set()
    async with await posting as reply:
        assert reply.status == 201
    durable.clear()
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    async with http.post("/apis/coordination.k8s.io/v1/namespaces/default/leases", json=lease) as reply:
        assert reply.status == 201, "a soft write is acknowledged before"
    durable.set()


async def test_the_official_client(serving):
    """In a thread, as it blocks."""

    def work() -> dict[str, object]:
        configuration = official.Configuration(host=serving.url)
        configuration.ssl_ca_cert = str(serving.pki.authority)
        configuration.api_key = {"authorization": "Bearer admin-token"}
        with official.ApiClient(configuration) as api:
            core = official.CoreV1Api(api)
            container = official.V1Container(name="c", image="nginx")
            core.create_namespaced_pod(
                "default",
                official.V1Pod(
                    metadata=official.V1ObjectMeta(name="p"), spec=official.V1PodSpec(containers=[container])
                ),
            )
            core.patch_namespaced_pod("p", "default", {"metadata": {"labels": {"a": "b"}}})
            names = [each.metadata.name for each in core.list_namespaced_pod("default", label_selector="a=b").items]
            event = next(iter(watch.Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=5)))
            gone = core.delete_namespaced_pod("p", "default")
            core.create_namespaced_config_map(
                "default", official.V1ConfigMap(metadata=official.V1ObjectMeta(name="c"), data={"k": "v"})
            )
            status = core.delete_namespaced_config_map("c", "default")
            return {"names": names, "event": event["type"], "gone": gone.metadata.name, "status": status["status"]}

    found = await asyncio.to_thread(work)
    assert found == {"names": ["p"], "event": "ADDED", "gone": "p", "status": "Success"}


async def test_logs_are_streamed_from_the_node(http, serving):
    asked: list[tuple[str, dict[str, str]]] = []

    async def logs(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, dict(request.query)))
        if request.path.endswith("/waiting"):
            return web.Response(
                status=400, text='container "waiting" in pod "p" is waiting to start: ContainerCreating'
            )
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"one\n")
        await answer.write(b"two\n")
        return answer

    app = web.Application()
    app.router.add_get("/containerLogs/{rest:.*}", logs)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving.pki.certificate, serving.pki.key)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    connector = KubeletConnector(serving.client_ssl())
    serving.api.resources._subresources._logs._kubelet = connector
    try:
        containers = [{"name": "c", "image": "x"}, {"name": "waiting", "image": "x"}]
        pod = {"metadata": {"name": "p"}, "spec": {"containers": containers}}
        (await http.post(PODS, json=pod)).release()
        async with http.get(f"{PODS}/p/log") as reply:
            assert reply.status == 400
            assert (await reply.json())[
                "message"
            ] == "a container name must be specified for pod p, choose one of: [c waiting]"
        async with http.get(f"{PODS}/p/log", params={"container": "x"}) as reply:
            assert (await reply.json())["message"] == "container x is not valid for pod p"
        async with http.get(f"{PODS}/p/log", params={"container": "c"}) as reply:
            assert (reply.status, await reply.read()) == (200, b"")
        binding = {"target": {"kind": "Node", "name": "n1"}, "metadata": {"name": "p"}}
        (await http.post(f"{PODS}/p/binding", json=binding)).release()
        async with http.get(f"{PODS}/p/log", params={"container": "c"}) as reply:
            assert reply.status == 503
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
        (await http.post("/api/v1/nodes", json={"metadata": {"name": "n1"}, "status": status})).release()
        query = {"container": "c", "follow": "true", "tailLines": "5", "limitBytes": "100", "timestamps": "true"}
        async with http.get(f"{PODS}/p/log", params=query) as reply:
            assert (reply.status, reply.headers["Content-Type"], await reply.text()) == (
                200,
                "text/plain",
                "one\ntwo\n",
            )
        sent = {"follow": "true", "tailLines": "5", "limitBytes": "100", "timestamps": "true"}
        assert asked == [("/containerLogs/default/p/c", sent)]
        async with http.get(f"{PODS}/p/log", params={"container": "waiting"}) as reply:
            assert reply.status == 400 and "waiting to start: ContainerCreating" in (await reply.json())["message"]
        async with http.get(f"{PODS}/p/log", params={"container": "c", "tailLines": "-1"}) as reply:
            assert reply.status == 422
    finally:
        await connector.close()
        await runner.cleanup()
