"""The agent's server over TLS: who may ask, and what it answers."""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.node.runtime.fake import Behaviour, FakeRuntime
from core.node.server import Serving


def issue(
    folder: Path, name: str, ca: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None, group: str = ""
) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            *([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca[0].subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(ca[1] if ca else key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    ca = issue(tmp_path, "ca")
    issue(tmp_path, "node", ca)
    issue(tmp_path, "client", ca, "system:masters")
    issue(tmp_path, "user", ca, "developers")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as found:
        yield found


async def test_logs_health_pods_metrics_and_no_strangers(
    cluster: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    serving = Serving("127.0.0.1", 0, tmp_path / "node.crt", tmp_path / "node.key", tmp_path / "ca.crt")
    runtime = FakeRuntime(lambda spec: Behaviour(output="one\ntwo"))
    await cluster.agent(runtime, serving=serving)
    path = cluster.pod()
    await cluster.until_ready(path)
    node = await cluster.api.until(
        lambda: cluster.api.objects["/api/v1/nodes/n1"] if "status" in cluster.api.objects["/api/v1/nodes/n1"] else None
    )
    root = f"https://localhost:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}"

    async def get(path: str) -> tuple[int, str]:
        async with session.get(root + path) as reply:
            return reply.status, await reply.text()

    assert await get("/healthz") == (200, "ok")
    assert await get("/containerLogs/default/a/main") == (200, "one\ntwo\n")
    assert await get("/containerLogs/default/a/main?tailLines=1") == (200, "two\n")
    assert (await get("/containerLogs/default/a/main?tailLines=x"))[0] == 400
    assert (await get("/containerLogs/default/a/main?previous=true"))[0] == 404
    assert (await get("/containerLogs/default/a/none"))[0] == 404
    assert (await get("/containerLogs/default/none/main"))[0] == 404
    (log,) = tmp_path.rglob("main/0.log")  # noqa: ASYNC240 - a runtime makes it some time after the start
    log.rename(tmp_path / "0.log")
    assert await get("/containerLogs/default/a/main") == (200, "")
    (tmp_path / "0.log").rename(log)
    assert '"name":"a"' in (await get("/pods"))[1]
    metrics = (await get("/metrics"))[1]
    assert "kubelet_running_pods 1.0" in metrics
    assert 'kubelet_runtime_operations_duration_seconds_count{operation_type="start_container"} 1.0' in metrics
    told = json.loads((await get("/stats/summary"))[1])
    assert told["node"]["nodeName"] == "n1"
    assert told["pods"][0]["containers"][0]["cpu"]["usageNanoCores"] == pytest.approx(1_000_000, rel=0.2)
    assert 'pod_memory_working_set_bytes{namespace="default",pod="a"} 1048576.0' in (await get("/metrics/resource"))[1]
    async with session.get(f"{root}/containerLogs/default/a/main?follow=true") as reply:
        assert await reply.content.readline() == b"one\n"
        runtime.finish(runtime.container("uid-a", "main").id)
        assert await reply.content.read() == b"two\n"
    user = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    user.load_cert_chain(tmp_path / "user.crt", tmp_path / "user.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=user)) as other:
        for refused in ("/containerLogs/default/a/main", "/pods", "/healthz"):
            async with other.get(root + refused) as reply:
                assert reply.status == 403, "users ask the API server, which authorises them"
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger)) as other:
        with pytest.raises(aiohttp.ClientError):
            await other.get(f"{root}/healthz")
