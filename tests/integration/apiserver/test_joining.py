"""A machine becomes a node with nothing but a bootstrap token: its certificate, its Node, its Pods, and the end of the token."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from core.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, NODE, POD, SECRET
from core.client.http import HttpTransport
from core.client.rest import Client
from core.clock import timestamp
from core.errors import Forbidden, NotFound, Unauthorized
from core.node.agent import Agent
from core.node.joining import JoinError, join, serving_certificate
from core.node.runtime.fake import FakeRuntime

TOKEN = "abcdef.0123456789abcdef"


def secret(end: float, **more: str) -> Any:
    data = {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "expiration": timestamp(end), **more,
    }  # fmt: skip
    return {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": data,
    }


async def test_from_a_token_to_a_running_pod(plane: Any, tmp_path: Path) -> None:
    admin = plane.client("admin-token")
    await admin.create(SECRET, secret(plane.now[0] + 600), "kube-system")
    newcomer = plane.client(TOKEN)
    for forbidden in (newcomer.list(SECRET, "kube-system"), newcomer.list(NODE), newcomer.list(POD, "default")):
        with pytest.raises(Forbidden):
            await forbidden
    made = await join(newcomer, "n7")
    file = tmp_path / "node.pem"
    file.write_bytes(made.certificate + made.key)
    context: ssl.SSLContext = plane.context()
    context.load_cert_chain(file)
    client = Client(HttpTransport(plane.url, ssl=context))
    capacity = {"cpu": "2", "memory": "4Gi", "pods": "10"}
    agent = Agent(
        client, "n7", FakeRuntime(), data_dir=tmp_path / "n7", log_root=tmp_path / "logs", address="127.0.0.1", capacity=capacity
    )  # fmt: skip
    await agent.start()
    try:
        async with asyncio.timeout(10):
            while not agent.heartbeat.uid:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        spec = {"nodeName": "n7", "containers": [{"name": "c", "image": "i"}]}
        await admin.create(POD, {"metadata": {"name": "a"}, "spec": spec}, "default")
        watch = admin.watch(POD, "default", version="", fields="status.phase=Running", seconds=10)
        async with asyncio.timeout(10):
            await anext(watch)
        await watch.aclose()
        serving = x509.load_pem_x509_certificate((await serving_certificate(client, "n7")).certificate)
        names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName("n7.nodes.faaslite.internal")]
        renewed = await join(client, "n7")
        assert renewed.certificate != made.certificate
        with pytest.raises(JoinError, match="can only create a node CSR with CN=system:node:n7"):
            await join(client, "n8")
    finally:
        await agent.stop()
        await client.close()


async def test_a_token_ends_and_is_taken_away(plane: Any) -> None:
    admin = plane.client("admin-token")
    await admin.create(SECRET, secret(plane.now[0] + 600), "kube-system")
    plane.now[0] += 601
    name = "bootstrap-token-abcdef"
    looked = await admin.patch(SECRET, name, "kube-system", {"metadata": {"labels": {"a": "b"}}})
    version = looked["metadata"]["resourceVersion"]
    watch = admin.watch(SECRET, "kube-system", version=version, fields=f"metadata.name={name}", seconds=10)
    async with asyncio.timeout(10), aclosing(watch) as events:
        assert (await anext(events))[0].type == "DELETED"
    with pytest.raises(NotFound):
        await admin.get(SECRET, name, "kube-system")
    with pytest.raises(Unauthorized):
        await plane.client(TOKEN).request("GET", "/version")


async def test_what_a_machine_hears_that_may_not_join(plane: Any) -> None:
    admin = plane.client("admin-token")
    with pytest.raises(JoinError, match="node n7: the cluster doesn't know the token: it is wrong or has expired"):
        await join(plane.client(TOKEN), "n7")
    with pytest.raises(JoinError, match="cannot create resource"):
        await join(plane.client("ann-token"), "n7")
    rule = {
        "verbs": ["create", "get", "watch"],
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests"],
    }
    await admin.create(CLUSTER_ROLE, {"metadata": {"name": "asker"}, "rules": [rule]})
    subject = {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {
        "metadata": {"name": "asker"},
        "roleRef": {"kind": "ClusterRole", "name": "asker"},
        "subjects": [subject],
    }
    await admin.create(CLUSTER_ROLE_BINDING, binding)
    with pytest.raises(JoinError, match="nobody has approved its certificate request; see `kubectl get csr`"):
        await join(plane.client("ann-token"), "n7", patience=0.3)
