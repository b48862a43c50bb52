"""One control plane for all transcripts, in a process of its own, and the real kubectl."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kubectl_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


transcript = _load("transcript")


@dataclass
class Plane:
    folder: Path
    port: int

    def kubeconfig(self, namespace: str, token: str = "admin-token") -> Path:
        path = self.folder / f"config-{namespace}"
        authority = self.folder / "pki/ca.crt"
        path.write_text(
            f"""apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {{server: "https://127.0.0.1:{self.port}", certificate-authority: "{authority}"}}
users:
- name: admin
  user: {{token: {token}}}
- name: dev
  user: {{token: dev-token}}
contexts:
- name: test
  context: {{cluster: test, user: admin, namespace: {namespace}}}
"""
        )
        return path


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("plane")
    with (folder / "plane.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "plane.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=HERE.parents[2],
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip(), (folder / "plane.log").read_text()
        yield Plane(folder, int(line))
        said = (folder / "plane.log").read_text()
        assert "Traceback" not in said, said[-6000:]
    finally:
        process.communicate(timeout=30)


LANES = (
    ("deployments", "sets", "pods", "get"),
    ("change", "bad", "describe", "discovery", "jobs", "top", "volumes"),
)
"""Transcripts of different lanes run at the same time; those that look at nodes or change them are in one, and so are those
with a default StorageClass; the rest is a third."""


@pytest.fixture(scope="module")
def mismatches(request: pytest.FixtureRequest, plane: Plane) -> Callable[[str], list[str]]:
    """Of a transcript, by its name. All that are to be tested run here, before the first test looks."""
    own = [each for each in request.session.items if each.path == request.path and hasattr(each, "callspec")]
    wanted = {each.callspec.params["name"] for each in own if "name" in each.callspec.params}
    known = {name for names in LANES for name in names}
    lanes = [[name for name in names if name in wanted] for names in (*LANES, tuple(sorted(wanted - known)))]

    def lane(names: list[str]) -> dict[str, list[str]]:
        return {name: run_transcript(plane, name) for name in names}

    results: dict[str, list[str]] = {}
    with ThreadPoolExecutor(len(lanes)) as pool:
        for found in pool.map(lane, lanes):
            results.update(found)
    return results.__getitem__


def run_transcript(plane: Plane, name: str) -> list[str]:
    """Run a transcript in a namespace and a home of its own; its mismatches, readable."""
    home = plane.folder / f"home-{name}"
    home.mkdir()
    config = plane.kubeconfig(name)
    environment = {"KUBECONFIG": str(config), "HOME": str(home), "PATH": os.environ["PATH"], "TZ": "UTC"}
    environment["GOGC"] = "off"  # a command ends before there is anything to collect, and starts a fifth sooner

    def call(arguments: list[str], stdin: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, timeout=40, cwd=home, env={**environment, **extra}, check=False
        )  # fmt: skip

    call(["kubectl", "create", "namespace", name], "")
    call(
        ["kubectl", "wait", "--for=create", "serviceaccount/default", "configmap/kube-root-ca.crt", "--timeout=10s"], ""
    )
    found = []
    for step in transcript.parse((HERE / "cases" / f"{name}.txt").read_text()):
        done = call(step.arguments, step.stdin, **step.environment)
        out, err = transcript.lines_of(done.stdout), transcript.lines_of(done.stderr)
        same = transcript.agree(step.out, out) and transcript.agree(step.err, err)
        if not same or done.returncode != step.code:
            shown = [*out, *(f"! {each}" for each in err)]
            wanted = [*step.out, *(f"! {each}" for each in step.err)]
            found.append(
                f"{name}.txt:{step.line}: $ {step.command}\n  expected (exit {step.code}):\n"
                + "".join(f"    {each}\n" for each in wanted)
                + f"  found (exit {done.returncode}):\n"
                + "".join(f"    {each}\n" for each in shown)
            )
    return found


@pytest.fixture(name="transcript")
def _transcript() -> ModuleType:
    return transcript
