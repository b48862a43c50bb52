"""The Docker engine of a test session, and what the tests leave in it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

_engine: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("engine.py")))
_whole: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "integration" / "platform" / "conftest.py"))
PYTHON_IMAGE = "faaslite/python:latest"


@pytest.fixture(scope="session")
def docker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an engine that has the base image; skips with the reason where there can be none, fails in CI."""
    found = _engine["found_engine"]()
    if found:
        _engine["ensure_image"](found)
        yield found
        return
    reason = _engine["why_not"]()
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    with _engine["own_engine"](base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as url:
        _engine["ensure_image"](url)
        yield url


@pytest.fixture
def docker_subnet() -> str:
    found: str = _engine["free_subnet"](os.environ.get("PYTEST_XDIST_WORKER", ""))
    return found


@pytest.fixture(scope="module")
def own_docker() -> Iterator[Any]:
    """An engine that nobody else uses and that a test may stop and start; not started yet."""
    reason = "no engine of our own can be started: not root" if os.geteuid() else ""
    reason = reason or ("" if shutil.which("dockerd") else "no engine of our own can be started: there is no dockerd")
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with _engine["engine_folder"]() as folder:
        engine = _engine["OwnEngine"](folder)
        yield engine
        engine.stop()


@pytest.fixture(scope="session")
def python_image(docker_url: str) -> str:
    """The engine's URL, once it has the image of Python functions."""
    build_python(docker_url)
    return docker_url


def build_python(url: str) -> None:
    client = docker.APIClient(url, timeout=60)
    try:
        if client.images(PYTHON_IMAGE):
            return
    finally:
        client.close()
    command = [str(_whole["FAAS"]), "images", "build", "--base", _engine["BASE_IMAGE"]]
    done = subprocess.run(command, env={**os.environ, "DOCKER_HOST": url}, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.fail(f"the image of Python functions can't be built: {done.stderr}")


class Calls:
    """The engine's API with a connection per call, so that none is left open behind a test."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            client = docker.APIClient(self._url, timeout=60)
            try:
                return getattr(client, name)(*arguments, **more)
            finally:
                client.close()

        return call


class DockerPlatform(_whole["Platform"]):  # type: ignore[misc]
    """A platform whose nodes run their Pods on the engine at `engine`."""

    def __init__(self, folder: Path, engine: str, *flags: str) -> None:
        super().__init__(folder, "--runtime", "docker", "--api-port", "0", "--gateway-port", "0", *flags)
        self.environment["DOCKER_HOST"] = engine
        self.docker = Calls(engine)
        self.mark = ""

    def up(self, *flags: str) -> dict[str, Any]:
        found: dict[str, Any] = super().up(*flags)
        self.mark = json.loads((self.home / "engine.json").read_text())["cluster"]
        return found

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """Of this cluster, ended ones too."""
        wanted = [f"faaslite.dev/cluster={self.mark}", *labels]
        found: list[dict[str, Any]] = self.docker.containers(all=True, filters={"label": wanted})
        return found

    def serving(self, function: str) -> dict[str, str]:
        """Pod name -> container id of the function's ready instances."""
        return {
            each["metadata"]["name"]: each["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
            for each in self.pods(function)
            if any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"].get("conditions", ()))
            and not each["metadata"].get("deletionTimestamp")
        }

    def events(self, reason: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kube("GET", "/api/v1/namespaces/default/events").json["items"]
        return [each for each in found if each["reason"] == reason]

    def filled(self) -> None:
        """Until as many containers wait as shall."""
        _whole["until"]("a full pool", lambda: len(self.waiting()) >= 4, 30)

    def waiting(self) -> list[str]:
        """Ids of running containers that no Pod has."""
        return [each["Id"] for each in self.containers("faaslite.dev/slot")
                if each["State"] == "running" and each["Names"][0].startswith("/faaslite-waiting-")]  # fmt: skip

    def leftovers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = super().leftovers()
        found["containers"] = [each["Names"][0] for each in self.containers()]
        networks = self.docker.networks(filters={"label": [f"faaslite.dev/cluster={self.mark}"]})
        found["networks"] = [each["Name"] for each in networks]
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout.splitlines()
        found["rules"] = [line for line in rules if f"faaslite-{self.mark}" in line]
        found["share"] = [str(each) for each in self.home.glob("engine.json")]
        return {sort: things for sort, things in found.items() if things}


forked_commands = _whole["forked_commands"]


@pytest.fixture(scope="module")
def docker_platforms(forked_commands: Any) -> Iterator[Callable[..., DockerPlatform]]:
    """Make platforms; what still runs at the end is stopped."""
    made: list[DockerPlatform] = []

    def make(engine: str, *flags: str) -> DockerPlatform:
        folder = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
        folder.chmod(0o711)
        made.append(DockerPlatform(folder, engine, *flags))
        made[-1].forked = forked_commands
        return made[-1]

    yield make
    for each in made:
        each.faas("down", check=False)
        each.kill_rest()
        shutil.rmtree(each.home.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    found: Callable[..., Any] = _whole["until"]
    return found


@pytest.fixture
def load() -> Any:
    return _whole["Load"]


@pytest.fixture(scope="session")
def faas_command() -> str:
    """The path of the command."""
    return str(_whole["FAAS"])
