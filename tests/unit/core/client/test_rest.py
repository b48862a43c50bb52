"""The client's calls, over the transport in memory and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from core.api.kinds import NODE, POD, REPLICA_SET
from core.api.views import Metadata, ObjectView, Pod
from core.client.http import HttpTransport
from core.client.rest import Client
from core.client.transport import JSON_PATCH
from core.errors import AlreadyExists, BadRequest, Conflict, Expired, NotFound, UnsupportedMediaType


@pytest.fixture(params=["memory", "http"])
async def client(request: pytest.FixtureRequest, api, app, serve) -> AsyncIterator[Client]:
    found = Client(api if request.param == "memory" else HttpTransport(await serve(app)))
    yield found
    await found.close()


def pod(name: str, **spec):
    return {"metadata": {"name": name}, "spec": spec}


async def test_create_and_get_give_documents_or_views(client: Client) -> None:
    made = await client.create(POD, pod("a", nodeName="n1"), "default")
    assert made["spec"] == {"nodeName": "n1"}
    assert await client.get(POD, "a", "default") == made
    view = await client.get(POD, "a", "default", as_=Pod)
    assert isinstance(view, Pod)
    assert (view.key, view.spec.node_name) == ("default/a", "n1")
    other = await client.create(POD, {"metadata": {"name": "b", "namespace": "team"}}, as_=Pod)
    assert other.namespace == "team"
    with pytest.raises(AlreadyExists):
        await client.create(POD, pod("a"), "default")


async def test_update_takes_name_and_namespace_from_the_document(client: Client, api) -> None:
    made = await client.create(POD, pod("a"), "team")
    changed = await client.update(POD, {**made, "spec": {"nodeName": "n2"}})
    assert changed["spec"] == {"nodeName": "n2"}
    with pytest.raises(Conflict):
        await client.update(POD, {**made, "spec": {"nodeName": "n3"}})
    status = await client.update(POD, {**changed, "status": {"phase": "Running"}}, subresource="status", as_=Pod)
    assert status.status.phase == "Running"
    assert api.calls[-1][:2] == ("PUT", "/api/v1/namespaces/team/pods/a/status")


async def test_patch_is_a_merge_patch_unless_said(client: Client, api) -> None:
    await client.create(POD, pod("a", nodeName="n1", priority=1), "default")
    changed = await client.patch(POD, "a", "default", {"spec": {"nodeName": None}})
    assert changed["spec"] == {"priority": 1}
    assert (await client.patch(POD, "a", "default", {"spec": {"priority": 5}}, as_=Pod)).spec.priority == 5
    with pytest.raises(UnsupportedMediaType):
        await client.patch(POD, "a", "default", [{"op": "remove", "path": "/spec"}], patch_type=JSON_PATCH)


async def test_scale_writes_replicas_through_the_subresource(client: Client, api) -> None:
    api.put(REPLICA_SET, {"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {}}})
    scaled = await client.scale(REPLICA_SET, "r", "default", 4)
    assert scaled["spec"] == {"replicas": 4, "selector": {}}
    assert api.calls[-1][:2] == ("PATCH", "/apis/apps/v1/namespaces/default/replicasets/r/scale")


async def test_a_subresource_is_created_below_an_object(client: Client) -> None:
    await client.create(POD, pod("a"), "default")
    binding = {"target": {"kind": "Node", "name": "n1"}}
    answer = await client.create(POD, binding, "default", name="a", subresource="binding")
    assert (answer["of"], answer["got"]) == ("a/binding", binding)


async def test_delete_says_what_it_was_told(client: Client, api) -> None:
    made = await client.create(POD, pod("a"), "default")
    meta = made["metadata"]
    with pytest.raises(Conflict):
        await client.delete(POD, "a", "default", uid="another")
    with pytest.raises(Conflict):
        await client.delete(POD, "a", "default", resource_version="1")
    gone = await client.delete(
        POD,
        "a",
        "default",
        grace=0,
        propagation="Foreground",
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
    )
    assert gone["status"] == "Success"
    with pytest.raises(NotFound):
        await client.get(POD, "a", "default")


async def test_delete_options_are_those_of_the_api(api) -> None:
    bodies = []

    class Listening(type(api)):
        async def request(self, method, path, query=None, body=b"", content_type=""):
            bodies.append(msgspec.json.decode(body))
            return b"{}"

    await Client(Listening()).delete(POD, "a", "x", grace=0, propagation="Orphan", uid="u", resource_version="7")
    await Client(Listening()).delete(POD, "a", "x")
    assert bodies == [
        {
            "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan",
            "preconditions": {"uid": "u", "resourceVersion": "7"},
        },
        {"kind": "DeleteOptions", "apiVersion": "v1"},
    ]  # fmt: skip


async def test_list_selects_and_gives_the_version(client: Client, api) -> None:
    for name, app in (("a", "x"), ("b", "y"), ("c", "x")):
        api.put(POD, {"metadata": {"name": name, "labels": {"app": app}}, "spec": {"nodeName": "n" + name}})
    api.put(POD, {"metadata": {"name": "d", "labels": {"app": "x"}}}, "team")
    version = str(api.revision)
    items, found = await client.list(POD, "default", labels="app=x", as_=Pod)
    assert ([each.name for each in items], found) == (["a", "c"], version)
    items, _ = await client.list(POD, labels="app=x", as_=Pod)
    assert [each.key for each in items] == ["default/a", "default/c", "team/d"]
    documents, _ = await client.list(POD, fields="spec.nodeName=nb")
    assert [each["metadata"]["name"] for each in documents] == ["b"]
    assert (await client.list(NODE, as_=ObjectView))[0] == []


async def test_a_long_list_is_fetched_in_pages_of_one_state(client: Client, api) -> None:
    for n in range(12):
        api.put(POD, pod(f"p{n:02}"))
    version = str(api.revision)
    transport, plain = client.transport, client.transport.request

    async def meddle(method, path, query=None, *rest):
        answer = await plain(method, path, query, *rest)
        api.put(POD, pod(f"later{api.revision}"))
        return answer

    transport.request = meddle  # Each page is followed by a write.
    items, found = await client.list(POD, "default", limit=5, as_=Pod)
    assert ([each.name for each in items], found) == ([f"p{n:02}" for n in range(12)], version)
    assert [query.get("limit") for _, _, query in api.calls] == ["5", "5", "5"]


async def test_pages_whose_state_is_gone_are_listed_anew_in_one_piece(client: Client, api) -> None:
    for n in range(6):
        api.put(POD, pod(f"p{n}"))
    plain = client.transport.request

    async def meddle(method, path, query=None, *rest):
        answer = await plain(method, path, query, *rest)
        api.put(POD, pod("later"))
        api.compact()
        return answer

    client.transport.request = meddle
    items, _ = await client.list(POD, "default", limit=5, as_=Pod)
    assert [each.name for each in items] == ["later"] + [f"p{n}" for n in range(6)]
    assert "limit" not in api.calls[-1][2]


async def test_an_expired_list_without_pages_is_an_error(client: Client, api) -> None:
    api.failures.append(Expired("gone"))
    with pytest.raises(Expired):
        await client.list(POD)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a%2fb"])
async def test_a_name_that_would_reach_something_else_is_refused(client: Client, api, name: str) -> None:
    calls = [
        client.get(POD, name, "default"),
        client.delete(POD, name, "default"),
        client.patch(POD, name, "default", {}),
        client.update(POD, {"metadata": {"name": name, "namespace": "default"}}),
        client.get(POD, "a", name),
    ]
    for call in calls:
        with pytest.raises(BadRequest):
            await call
    assert api.calls == []


async def test_a_raw_request_and_close(client: Client, api) -> None:
    api.put(POD, pod("a"))
    assert msgspec.json.decode(await client.request("GET", POD.path("default", "a")))["metadata"]["name"] == "a"
    await client.close()
    if client.transport is api:
        assert api.closed


async def test_views_are_decoded_with_their_defaults(client: Client) -> None:
    await client.create(NODE, {"metadata": {"name": "n"}, "unknown": {"field": 1}})
    node = await client.get(NODE, "n", as_=ObjectView)
    assert isinstance(node.metadata, Metadata)
    assert node.key == "n"
