"""The runtimes besides Python on Docker nodes: Node.js from its own image, and any container that listens on $PORT."""

from __future__ import annotations

import io
import os
import runpy
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

pytestmark = pytest.mark.docker
EXAMPLES = Path(__file__).parents[3] / "examples"
_engine: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("engine.py")))
NODE_BASE, NODE, WEB = "faaslite-test/node-base:latest", "faaslite/node:latest", "faaslite-test/web:latest"
SERVER = """
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).upper()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-path", self.path)
        self.end_headers()
        self.wfile.write(body)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def platform(docker_platforms: Callable[..., Any], python_image: str) -> Iterator[Any]:
    found = docker_platforms(python_image)
    found.up()
    yield found
    found.down()
    assert not [line for line in found.noise() if "Traceback" in line], found.noise()


@pytest.fixture(scope="module")
def node_image(docker_url: str, faas_command: str) -> Iterator[str]:
    """Made as a user makes it, of a base that has this machine's Node.js."""
    if not (shutil.which("node") and shutil.which("npm")):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("node or npm is missing: apt-get install nodejs npm")
    _engine["import_tools"](docker_url, NODE_BASE, "node")
    build = [faas_command, "images", "build", "node", "--base", NODE_BASE]
    done = subprocess.run(build, env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": docker_url}, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield NODE
    _remove(docker_url, NODE, NODE_BASE)


@pytest.fixture(scope="module")
def web_image(docker_url: str) -> Iterator[str]:
    context = io.BytesIO()
    dockerfile = f'FROM {_engine["BASE_IMAGE"]}\nCOPY server.py /\nCMD ["python3", "/server.py"]\n'
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in (("Dockerfile", dockerfile), ("server.py", SERVER)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    client = docker.from_env(environment={"DOCKER_HOST": docker_url})
    try:
        client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=WEB, network_mode="none")
    finally:
        client.close()
    yield WEB
    _remove(docker_url, WEB)


def _remove(url: str, *images: str) -> None:
    client = docker.APIClient(url, timeout=60)
    try:
        for each in images:
            client.remove_image(each, force=True)
    finally:
        client.close()


def test_a_node_function_with_a_dependency(platform: Any, node_image: str) -> None:
    platform.faas("deploy", str(EXAMPLES / "slugs"), timeout=120)
    assert platform.call("/function/slugs", b"Hello, World!").json == {"slug": "hello-world"}
    ((_, container),) = platform.serving("slugs").items()
    assert (
        platform.docker.inspect_container(container.partition("://")[2] or container)["Config"]["User"] == "65532:65532"
    )
    assert "slug of Hello, World!" in platform.faas("logs", "slugs").out


def test_any_container_that_listens(platform: Any, web_image: str, wait_until: Callable[..., Any]) -> None:
    folder = platform.sources / "web"
    folder.mkdir()
    (folder / "function.yaml").write_text(
        f"name: web\nspec:\n  runtime: image\n  image: {WEB}\n  scale: {{max: 2, idle: 2s}}\n"
    )
    platform.faas("deploy", str(folder))
    reply = platform.call("/function/web/a/b?c=d", b"shout")
    assert (reply.status, reply.body, reply.headers["x-path"]) == (200, b"SHOUT", "/a/b?c=d")
    wait_until("none is left", lambda: not platform.pods("web"), 60)
    assert platform.call("/function/web", b"again").body == b"AGAIN"


def test_a_base_without_node_is_refused_at_the_build(docker_url: str, faas_command: str, python_image: str) -> None:
    build = [faas_command, "images", "build", "node", "--base", _engine["BASE_IMAGE"]]
    done = subprocess.run(build, env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": docker_url}, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: faaslite/node can't be built"), (
        done.stderr
    )
