"""The HTTP edge without a network: slow clients, failures that nobody foresaw."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging

import pytest

from core.api import release
from core.apiserver import http, openapi, schema
from core.apiserver.request import Reply
from core.errors import NotFound

CM = "/api/v1/namespaces/default/configmaps"


def _scope(method="GET", path=CM, query=b"", token=b"Bearer secret"):
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"authorization", token)],
    }


async def _nothing_more():
    await asyncio.Event().wait()


async def test_a_watcher_that_does_not_read_is_dropped(api, admin, monkeypatch, caplog):
    monkeypatch.setattr(http, "_SLOW_SECONDS", 0.05)
    monkeypatch.setattr(api._authorizer, "check", _allow)
    await admin.post(CM, {"metadata": {"name": "a"}})
    sent = []

    async def stuck(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()
        sent.append(message["type"])

    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5):
            await api(_scope(query=b"watch=true"), _nothing_more, stuck)
    assert sent == ["http.response.start"] and "doesn't read" in caplog.text
    assert api.resources.watching == 0


async def _allow(user, info):
    return None


async def test_an_unforeseen_failure_is_a_status_and_is_logged(api, monkeypatch, caplog):
    async def broken(user, info):
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(api._authorizer, "check", broken)
    sent = []

    async def send(message):
        sent.append(message)

    await api(_scope(), _nothing_more, send)
    status = json.loads(sent[1]["body"])
    assert (sent[0]["status"], status["reason"], status["code"]) == (500, "InternalError", 500)
    assert "a secret detail" not in status["message"] and "a secret detail" in caplog.text


async def test_a_client_that_goes_within_its_body_gets_nothing(api):
    sent = []

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await api(_scope("POST"), gone, send)
    assert sent == []


async def _page(api, path, query=b"", **headers):
    """Status, headers and body of a page."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = _scope(path=path, query=query)
    scope |= {"headers": scope["headers"] + named, "raw_path": path.encode(), "root_path": "", "http_version": "1.1"}
    await api(scope, receive, send)
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:])


async def test_documents_are_made_once_and_kept_by_their_digest(api, monkeypatch):
    made = []
    make = openapi.document
    monkeypatch.setattr(openapi, "document", lambda *arguments: made.append(arguments[1]) or make(*arguments))
    _, _, body = await _page(api, "/openapi/v3")
    path, _, digest = json.loads(body)["paths"]["apis/apps/v1"]["serverRelativeURL"].partition("?hash=")
    assert made == [], "the index makes no document"
    status, headers, body = await _page(api, path, f"hash={digest}".encode())
    assert status == 200 and headers["etag"] == f'"{digest}"'
    assert "immutable" in headers["cache-control"] and headers["expires"].endswith("GMT")
    assert json.loads(body)["openapi"] == "3.0.0"
    status, headers, packed = await _page(api, path, accept_encoding="gzip")
    assert headers["content-encoding"] == "gzip" and gzip.decompress(packed) == body
    assert "immutable" not in headers["cache-control"], "who doesn't say which one must ask again"
    status, _, body = await _page(api, path, if_none_match=f'"{digest}"')
    assert (status, body) == (304, b"")
    assert made == ["apps"]
    status, headers, _ = await _page(api, path, b"hash=0123")
    assert (status, headers["location"]) == (301, f"{path}?hash={digest}")
    status, _, _ = await _page(api, "/openapi/v3/apis/nothing.example.com/v1")
    assert status == 404


@pytest.mark.parametrize(
    ("at", "served", "kind"),
    [
        ("version", "/version", None),
        ("api", "/api", "APIVersions"),
        ("apis", "/apis", "APIGroupList"),
        ("apis/apps", "/apis/apps", "APIGroup"),
    ],
)
async def test_what_isnt_a_resource_has_a_document_too(api, at, served, kind):
    index = json.loads((await _page(api, "/openapi/v3"))[2])["paths"]
    path, _, digest = index[at]["serverRelativeURL"].partition("?")
    status, headers, body = await _page(api, path, digest.encode())
    assert status == 200 and "immutable" in headers["cache-control"]
    found = json.loads(body)
    ((shown, operations),) = found["paths"].items()
    assert shown.rstrip("/") == served and set(operations) == {"get"}
    status, _, page = await _page(api, served)
    assert status == 200 and (kind is None or json.loads(page)["kind"] == kind)
    if at == "version":
        info = found["components"]["schemas"]["io.k8s.apimachinery.pkg.version.Info"]
        assert set(info["required"]) <= set(json.loads(page)) <= set(info["properties"])


def test_the_schema_has_all_that_the_release_has():
    major, _, minor = schema.load().version.partition(".")
    assert major == release.MAJOR and 0 <= int(minor) - int(release.MINOR) <= 2


async def test_a_definition_that_comes_changes_its_document_alone(api, admin):
    _, first, _ = await _page(api, "/openapi/v3/apis/apps/v1")
    names = {"plural": "toys", "kind": "Toy"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    body = {
        "metadata": {"name": "toys.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions},
    }
    await admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    _, second, _ = await _page(api, "/openapi/v3/apis/apps/v1")
    assert second["etag"] == first["etag"]
    status, _, found = await _page(api, "/openapi/v3/apis/example.com/v1")
    assert status == 200 and "com.example.v1.ToyList" in json.loads(found)["components"]["schemas"]


async def test_server_pages_through_the_local_transport(admin):
    assert (await admin.get("/version"))["gitVersion"].startswith("v1.35.")
    assert (await admin.transport.request("GET", "/readyz")) == b"ok"


async def test_warnings_hold_nothing_that_a_header_may_not(api):
    sent = []

    async def send(message):
        sent.append(message)

    await http.send_error(send, NotFound("x"), Reply(b""), ['unknown field "a\x7f\x00\r\nb: c\\é\u20ac"'])
    assert dict(sent[0]["headers"])[b"warning"] == b'299 - "unknown field \\"ab: c\\\\\xe9?\\""'
