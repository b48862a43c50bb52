"""What a node decides that has joined: where it is, what that means for Pods, when its certificates are made anew, what it asks packages of."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.requests import Request

from core.apiserver.authz import _path_allowed
from core.errors import NotFound, ServiceUnavailable
from core.node.joining import Credentials, JoinError
from faaslite.api.names import NO_ROUTE_TAINT, PROCESS_TAINT
from faaslite.launch import renewal
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.joined import Place, place_of, taints
from faaslite.launch.membership import load
from faaslite.launch.packages import RemotePackages, package_routes

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_functions_stay_away_from_where_they_could_not_be_reached():
    assert [each["key"] for each in taints(Place("127.0.0.1", True))] == [PROCESS_TAINT]
    assert [each["key"] for each in taints(Place("10.0.0.2", False))] == [PROCESS_TAINT, NO_ROUTE_TAINT]


def test_a_node_is_beside_the_api_that_it_reaches_at_its_own_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert place_of(f"https://127.0.0.1:{port}") == Place("127.0.0.1", True)
        assert place_of(f"https://127.0.0.1:{port}", "10.0.0.9") == Place("10.0.0.9", True)
    with pytest.raises(ServiceUnavailable, match=f"nothing answers at https://127.0.0.1:{port}"):
        place_of(f"https://127.0.0.1:{port}")


def test_what_a_node_keeps(tmp_path):
    home = Home(tmp_path)
    assert load(home) is None
    home.joined.write_text('{"server": "https://a:1", "name": "n"}')
    found = load(home)
    assert (found.server, found.name, found.slice) == ("https://a:1", "n", 0)
    for broken in ("nonsense", '{"server": "x"}', '{"other": 1}'):
        home.joined.write_text(broken)
        with pytest.raises(LaunchError, match="join again"):
            load(home)


def test_certificates_are_due_when_two_thirds_of_their_time_are_over():
    end = NOW + timedelta(days=90)
    assert renewal.due(NOW, end, NOW) == timedelta(days=60).total_seconds()
    assert renewal.due(NOW, end, NOW + timedelta(days=59)) == timedelta(days=1).total_seconds()
    assert renewal.due(NOW, end, NOW + timedelta(days=61)) == 0.0


async def test_new_certificates_are_kept_before_the_agent_starts_again(monkeypatch):
    steps: list[Any] = []
    started = asyncio.Event()
    made = Credentials(b"c", b"k")

    async def certified(client: Any, name: str) -> Credentials:
        steps.append(name)
        return made

    def restart() -> None:
        steps.append("restart")
        started.set()

    monkeypatch.setattr(renewal, "join", certified)
    monkeypatch.setattr(renewal, "serving_certificate", certified)
    begin = datetime.now(UTC) - timedelta(days=3)
    component = renewal.Renewal(
        None, "n", begin, begin + timedelta(days=4), lambda *pair: steps.append(pair), restart
    )  # fmt: skip
    await component.start()
    await asyncio.wait_for(started.wait(), 30)
    await component.stop()
    assert steps == ["n", "n", (made, made), "restart"]


async def test_a_renewal_that_fails_is_tried_again_later(monkeypatch, caplog):
    tried = asyncio.Event()

    async def refused(client: Any, name: str) -> Credentials:
        tried.set()
        raise JoinError("the API is away")

    monkeypatch.setattr(renewal, "join", refused)
    begin = datetime.now(UTC) - timedelta(days=3)
    component = renewal.Renewal(
        None, "n", begin, begin + timedelta(days=4), lambda *_: None, lambda: pytest.fail("ended")
    )
    await component.start()
    await asyncio.wait_for(tried.wait(), 30)
    await component.stop()
    assert "are not renewed yet: the API is away" in caplog.text


class Store:
    """A package store with one package of one namespace."""

    async def fetch(self, digest: str, namespace: str) -> AsyncIterator[bytes]:
        await self.check(digest, namespace)
        yield b"one"
        yield b"two"

    async def check(self, digest: str, namespace: str) -> None:
        if (digest, namespace) != ("sha256:a", "team"):
            raise NotFound(f"no {digest} of {namespace}")


@pytest.mark.parametrize(
    ("method", "digest", "namespace", "status", "body"),
    [
        ("GET", "sha256:a", "team", 200, b"onetwo"),
        ("HEAD", "sha256:a", "team", 200, b""),
        ("GET", "sha256:a", "other", 404, b"no sha256:a of other"),
        ("HEAD", "sha256:b", "team", 404, b"no sha256:b of team"),
    ],
)
async def test_packages_go_through_the_api(method, digest, namespace, status, body):
    (route,) = package_routes(Store())  # type: ignore[arg-type]
    scope = {
        "type": "http", "method": method, "path": f"/packages.faaslite.dev/{digest}", "headers": [],
        "query_string": f"namespace={namespace}".encode(), "path_params": {"digest": digest},
    }  # fmt: skip
    response = await route.endpoint(Request(scope))
    sent: list[Any] = []

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    await response({**scope, "asgi": {"spec_version": "2.4"}}, receive, send)
    assert sent[0]["status"] == status
    assert body in b"".join(each.get("body", b"") for each in sent)


class Transport:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def stream(self, path: str, query: Any) -> AsyncIterator[bytes]:
        self.asked.append((path, query))
        yield b"one"
        yield b"two"

    async def request(self, method: str, path: str, query: Any) -> bytes:
        self.asked.append((method, path, query))
        return b""


async def test_a_node_asks_the_api_for_packages():
    transport = Transport()
    packages = RemotePackages(transport)  # type: ignore[arg-type]
    assert b"".join([each async for each in packages.fetch("sha256:a", "team")]) == b"onetwo"
    await packages.check("sha256:a", "team")
    path, query = "/packages.faaslite.dev/sha256:a", {"namespace": "team"}
    assert transport.asked == [(path, query), ("HEAD", path, query)]


def test_nodes_alone_may_have_packages_from_the_api():
    path = "/packages.faaslite.dev/sha256:a"
    assert _path_allowed("system:node:n", ("system:nodes", "system:authenticated"), "get", path)
    assert not _path_allowed("system:node:n", ("system:nodes",), "put", path)
    assert not _path_allowed("ann", ("system:authenticated",), "get", path)
    assert not _path_allowed("system:bootstrap:abcdef", ("system:bootstrappers",), "get", path)
