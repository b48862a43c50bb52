"""What `exec`, `attach` and `portforward` refuse before any node is asked, and what of a request goes to the node."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.apiserver.streams.connect import exec_query, passed_headers, ports_query
from core.errors import ApiError, BadRequest
from core.serving import AsgiServer
from core.upgrade import Refused, ask

CORE = "/api/v1/namespaces/default"
WEBSOCKET = [
    ("Host", "x"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
]  # fmt: skip


def pod(name: str, *containers: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"containers": [{"name": each, "image": "i"} for each in containers]},
    }  # fmt: skip


@pytest.fixture
async def address(api: Any, admin: Any) -> AsyncIterator[tuple[str, int]]:
    """Of the server over HTTP, with Pods that no node has, and one on a node that says no address."""
    await admin.post(f"{CORE}/pods", pod("one", "main"))
    await admin.post(f"{CORE}/pods", pod("two", "main", "side"))
    said = {"kubectl.kubernetes.io/default-container": "side"}
    await admin.post(f"{CORE}/pods", pod("annotated", "main", "side", annotations=said))
    for name in ("lost", "ended"):
        await admin.post(f"{CORE}/pods", pod(name, "main"))
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}}  # fmt: skip
        await admin.post(f"{CORE}/pods/{name}/binding", binding)
    await admin.patch(f"{CORE}/pods/ended/status", {"status": {"phase": "Failed"}})
    listener = socket.create_server(("127.0.0.1", 0))
    server = AsgiServer(api, listener, drain=0.2)
    await server.start()
    yield listener.getsockname()
    await server.stop()


async def refusal(address: Any, path: str, headers: list[tuple[str, str]] = WEBSOCKET, token: str = "secret") -> dict[str, Any]:  # fmt: skip
    with pytest.raises(Refused) as refused:
        await ask(address, "GET", f"{CORE}/pods/{path}", [*headers, ("Authorization", f"Bearer {token}")])
    found: dict[str, Any] = json.loads(refused.value.body)
    assert found["code"] == refused.value.status and found["kind"] == "Status"
    return found


async def allow(admin: Any, *verbs: str) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": list(verbs)}
    await admin.post(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    await admin.post(f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": [subject]})


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("none/exec?command=x", 404, 'pods "none" not found'),
        ("one/exec?command=x&container=side", 400, "container side is not valid for pod one"),
        ("two/exec?command=x", 400, "a container name must be specified for pod two, choose one of: [main side]"),
        ("annotated/exec?command=x", 400, "pod annotated does not have a host assigned"),
        ("one/exec?stdin=true", 400, "you must specify at least 1 command for the container"),
        ("one/attach?stdout=false&stderr=false", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("one/attach", 400, "pod one does not have a host assigned"),
        ("one/portforward?ports=0", 400, "unable to parse '0' as a port: it is a number from 1 to 65535"),
        ("ended/exec?command=x", 400, "cannot exec into a container: pod ended has ended; its phase is Failed"),
        ("ended/portforward", 400, "cannot forward port: pod ended has ended; its phase is Failed"),
        ("lost/exec?command=x", 503, "this API server has no way to reach nodes"),
    ],
)
async def test_refusals(admin: Any, address: Any, path: str, code: int, message: str) -> None:
    await allow(admin, "get")
    found = await refusal(address, path)
    assert (found["code"], found["message"]) == (code, message)


async def test_a_get_needs_get_and_a_post_create(admin: Any, address: Any) -> None:
    """kubectl tries a GET for a WebSocket first and a POST for SPDY where that is refused, so a role with `create` alone works."""
    found = await refusal(address, "one/exec?command=x")
    assert (found["code"], found["reason"]) == (403, "Forbidden")
    assert 'cannot get resource "pods/exec"' in found["message"]
    await allow(admin, "create")
    assert (await refusal(address, "one/exec?command=x"))["code"] == 403
    with pytest.raises(Refused) as refused:
        await ask(address, "POST", f"{CORE}/pods/one/exec?command=x", [*WEBSOCKET, ("Authorization", "Bearer secret")])
    assert b"does not have a host assigned" in refused.value.body


async def test_without_an_upgrade_there_is_nothing_to_stream_to(admin: Any) -> None:
    await admin.post(f"{CORE}/pods", pod("one", "main"))
    with pytest.raises(BadRequest, match="at least 1 command"):
        await admin.get(f"{CORE}/pods/one/exec")
    with pytest.raises(BadRequest, match="Upgrade request required"):
        await admin.get(f"{CORE}/pods/one/attach")
    with pytest.raises(ApiError):
        await admin.delete(f"{CORE}/pods/one/exec")


def test_the_nodes_query() -> None:
    query = [
        ("container", "main"),
        ("command", "sh"),
        ("command", ""),
        ("stdin", "true"),
        ("stderr", "0"),
        ("tty", "1"),
    ]
    assert exec_query(query, command=True) == [
        ("input", "1"), ("output", "1"), ("tty", "1"), ("command", "sh"), ("command", ""),
    ]  # fmt: skip
    assert exec_query(query, command=False) == [("input", "1"), ("output", "1"), ("tty", "1")]
    assert ports_query([("ports", "80,81"), ("ports", "65535"), ("x", "y")]) == [
        ("port", "80"), ("port", "81"), ("port", "65535"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "http", "80,", "٣"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest):
        ports_query([("ports", text)])


def test_a_node_learns_nothing_of_who_asks() -> None:
    headers = [
        (b"host", b"api"), (b"authorization", b"Bearer secret"), (b"cookie", b"a=b"), (b"impersonate-user", b"root"), (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"), (b"sec-websocket-key", b"k"), (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"x-stream-protocol-version", b"v4"), (b"content-length", b"0"),
    ]  # fmt: skip
    assert passed_headers(headers) == [
        ("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-key", "k"), ("x-stream-protocol-version", "v4"),
    ]  # fmt: skip
