"""Two nodes on one engine: a bridge each, and a way between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.root]

SERVE = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("0.0.0.0", 8080), H).serve_forever()
"""
ASK = "import urllib.request; print(urllib.request.urlopen('http://{}:8080/', timeout=5).read().decode())"
WHO = """
    import socket, time
    def handle(event, context):
        time.sleep(0.2)
        return socket.gethostname()
"""


def ready(pod: dict[str, Any]) -> bool:
    """Whether it listens: running alone says nothing of that."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions") or ())


@pytest.fixture(scope="module")
def platform(docker_platforms: Callable[..., Any], python_image: str) -> Any:
    found = docker_platforms(python_image, "--nodes", "2")
    found.up()
    yield found
    found.down()


def test_pods_of_different_nodes_reach_each_other_by_their_own_addresses(platform: Any, wait_until: Callable[..., Any]) -> None:  # fmt: skip
    ids: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for node in ("node-1", "node-2"):
        listens = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        container = {
            "name": "a",
            "image": "faaslite/base",
            "command": ["python3", "-c", SERVE],
            "readinessProbe": listens,
        }
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node}, "spec": spec}
        assert platform.kube("POST", "/api/v1/namespaces/default/pods", pod).status == 201
    for node in ("node-1", "node-2"):
        path = f"/api/v1/namespaces/default/pods/{node}"
        wait_until(f"the Pod on {node}", lambda path=path: ready(platform.kube("GET", path).json))
        status = platform.kube("GET", path).json["status"]
        addresses[node] = status["podIP"]
        ids[node] = status["containerStatuses"][0]["containerID"].partition("://")[2]
    assert addresses["node-1"].rsplit(".", 1)[0] != addresses["node-2"].rsplit(".", 1)[0]
    for here, there in (("node-1", "node-2"), ("node-2", "node-1")):
        command = ["python3", "-c", ASK.format(addresses[there])]
        started = platform.docker.exec_create(ids[here], command)
        said = wait_until("an answer", lambda started=started: platform.docker.exec_start(started)).decode().strip()
        assert said == addresses[here], "the sender's address was changed on the way, or nobody answered"


def test_the_gateway_reaches_instances_on_both(platform: Any, wait_until: Callable[..., Any]) -> None:
    platform.deploy("who", WHO, "--min", "4", "--concurrency", "1")
    wait_until("four instances", lambda: len(platform.serving("who")) == 4)
    nodes = {each["metadata"]["name"]: each["spec"]["nodeName"] for each in platform.pods("who")}
    assert set(nodes.values()) == {"node-1", "node-2"}
    with ThreadPoolExecutor(4) as clients:
        seen = list(clients.map(lambda _: platform.call("/function/who").body.decode(), range(12)))
    assert {nodes[each] for each in seen} == {"node-1", "node-2"}
