"""The HTTP edge without a network: slow clients, failures that nobody foresaw."""

from __future__ import annotations

import asyncio
import json
import logging

from core.apiserver import http

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


async def test_server_pages_through_the_local_transport(admin):
    assert (await admin.get("/version"))["gitVersion"].startswith("v1.32.")
    assert (await admin.transport.request("GET", "/readyz")) == b"ok"
