"""Pods on a real engine: the agent, its volumes and probes, with the API in memory. Traffic goes to the test's own bridge only."""

from __future__ import annotations

import asyncio
import base64
import runpy
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.node.agent import Agent
from core.node.runtime.base import RuntimeUnavailable
from core.node.runtime.docker import DockerRuntime

_node = runpy.run_path(str(Path(__file__).parents[2] / "unit" / "core" / "node" / "conftest.py"))

pytestmark = pytest.mark.docker
IMAGE = "faaslite/base"
SERVE = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open("/secret/key").read() + " " + os.environ["POD_IP"]
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body.encode())
print("serving", flush=True)
http.server.HTTPServer(("0.0.0.0", 8080), H).serve_forever()
"""


@pytest.fixture(scope="session", autouse=True)
def engine(docker_url: str) -> str:
    return docker_url


class Node:
    def __init__(self, cluster: Any, folder: Path, url: str, subnet: str) -> None:
        self.cluster = cluster
        self.folder = folder
        self._name = f"t{uuid.uuid4().hex[:8]}"
        self._url, self._subnet = url, subnet
        self.runtime = self.driver()

    def driver(self) -> DockerRuntime:
        return DockerRuntime(self._name, state_dir=self.folder / "state", pod_cidr=self._subnet, base_url=self._url)

    async def start(self) -> Agent:
        self.runtime = self.driver()
        found: Agent = await self.cluster.agent(self.runtime)
        return found


@pytest.fixture
async def node(docker_url: str, docker_subnet: str) -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory(prefix="faaslite-") as name:
        cluster = _node["Cluster"](Path(name))
        found = Node(cluster, Path(name), docker_url, docker_subnet)
        try:
            yield found
        finally:
            await cluster.stack.aclose()
            last = found.driver()
            await last.start()
            await asyncio.gather(*(last.remove_sandbox(each.id) for each in await last.list()))
            await last.remove_network()
            await last.close()


async def fetch(address: str) -> str:
    reader, writer = await asyncio.open_connection(address, 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def test_a_pod_serves_survives_the_agent_and_goes(node: Node) -> None:
    cluster = node.cluster
    secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {"key": base64.b64encode(b"hush").decode()}}
    cluster.api.put("/api/v1/namespaces/default/secrets/s", secret)
    first = await node.start()
    path = cluster.pod(
        uid=str(uuid.uuid4()),
        terminationGracePeriodSeconds=5,
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
        containers=[
            {
                "name": "main",
                "image": IMAGE,
                "command": ["python3", "-c", SERVE],
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "s", "mountPath": "/secret"}],
                "readinessProbe": {"httpGet": {"port": 8080}},
                "securityContext": {"runAsUser": 1234, "runAsGroup": 1234, "readOnlyRootFilesystem": True},
            }
        ],
    )
    await cluster.api.until(lambda: cluster.ready(path), 30)
    status = cluster.status(path)
    assert await fetch(status["podIP"]) == f"hush {status['podIP']}"
    log = first.log_source("default", "a", "main", False).file
    assert log.read_text().splitlines()[0].split(" ", 3)[1:] == ["stdout", "F", "serving"]

    await first.stop()
    second = await node.start()
    await cluster.api.until(
        lambda: cluster.api.requests.count(("PATCH", f"{path}/status")) and second.running_pods == 1, 10
    )
    assert cluster.status(path)["containerStatuses"] == status["containerStatuses"]
    assert await fetch(status["podIP"]) == f"hush {status['podIP']}"
    assert log.read_text().count("serving") == 1

    cluster.api.delete_gracefully(path, 5)
    await cluster.until_gone(path, 20)
    assert await node.runtime.list() == []


async def test_crash_memory_and_missing_images_say_why(node: Node) -> None:
    cluster = node.cluster
    await node.start()

    def container(name: str, *command: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "image": IMAGE,
            "command": list(command),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **more,
        }

    crash = cluster.pod("crash", uid=str(uuid.uuid4()), restartPolicy="Never",
                        containers=[container("main", "sh", "-c", "echo no luck >&2; exit 4")])  # fmt: skip
    greedy = cluster.pod("greedy", uid=str(uuid.uuid4()), restartPolicy="Never", containers=[
        container("main", "python3", "-c", "b = bytearray(256 << 20)", resources={"limits": {"memory": "24Mi"}})])  # fmt: skip
    missing = cluster.pod("missing", uid=str(uuid.uuid4()), containers=[{"name": "main", "image": "faaslite/none"}])
    await cluster.api.until(lambda: cluster.status(crash)["phase"] == "Failed", 30)
    ended = cluster.state(crash)["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (4, "Error", "no luck")
    await cluster.api.until(lambda: cluster.status(greedy)["phase"] == "Failed", 30)
    assert cluster.state(greedy)["terminated"]["reason"] == "OOMKilled"
    waiting = await cluster.api.until(
        lambda: cluster.state(missing)["waiting"] if "faaslite/none" in str(cluster.state(missing)) else None, 30
    )
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "faas images build" in waiting["message"]
    assert await node.runtime.find_image("faaslite/base") == await node.runtime.find_image("faaslite/base:latest")


async def test_two_containers_share_a_network_and_exec_is_answered(node: Node) -> None:
    cluster = node.cluster
    await node.start()
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/').status)"
    serve = SERVE.replace('open("/secret/key").read()', '"x"')
    path = cluster.pod(
        uid=str(uuid.uuid4()),
        terminationGracePeriodSeconds=1,
        containers=[
            {
                "name": "server",
                "image": IMAGE,
                "command": ["python3", "-c", serve],
                "env": [{"name": "POD_IP", "value": "y"}],
            },
            {
                "name": "other",
                "image": IMAGE,
                "command": ["sleep", "1000"],
                "startupProbe": {"exec": {"command": ["python3", "-c", ask]}, "timeoutSeconds": 5},
            },
        ],
    )
    await cluster.api.until(lambda: cluster.ready(path), 30)
    (sandbox,) = await node.runtime.list()
    other = next(each for each in sandbox.containers if each.name == "other")
    assert await node.runtime.exec(other.id, ["python3", "-c", ask], 10.0) == (0, b"200\n")
    with pytest.raises(TimeoutError):
        await node.runtime.exec(other.id, ["sleep", "60"], 0.2)


async def test_no_engine_is_said_plainly(tmp_path: Path) -> None:
    runtime = DockerRuntime("x", state_dir=tmp_path, pod_cidr="10.9.9.0/28", base_url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(RuntimeUnavailable, match=r"none\.sock doesn't answer"):
        await runtime.start()
    await runtime.close()
