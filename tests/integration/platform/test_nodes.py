"""Another data dir becomes a node of the cluster by a token: it runs functions, tells their logs, and leaves without a call lost."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SLOW = 90.0
NODE = "/api/v1/nodes/{}"
CODE = """
    import os

    def handle(event):
        print("called", flush=True)
        return str(os.getppid())
"""


def joining(platform: Any, *flags: str) -> list[str]:
    made = platform.faas("node", "token", "-o", "json").json
    return ["node", "join", made["server"], "--token", made["token"], "--ca-hash", made["caHash"], *flags]


@pytest.fixture
def folder(platform: Any) -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="n-", dir=platform.home.parent))
    yield found
    left = [each.cmdline() for each in psutil.process_iter() if str(found) in " ".join(cmdline(each))]
    assert not left


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def started(platform: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a node and returns when it says that it has joined; whatever still runs at the end is told to go."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = platform.start(*words, stderr=subprocess.STDOUT)
        running.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "has joined" in said, said + process.stdout.read()
        return process

    yield start
    for each in running:
        if each.poll() is None:
            each.terminate()
        each.communicate(timeout=90)


def cordon(platform: Any, node: str, value: bool) -> None:
    change = {"spec": {"unschedulable": value}}
    assert platform.kube("PATCH", NODE.format(node), change, content_type="application/merge-patch+json").status == 200


def ready(platform: Any, node: str) -> str:
    reply = platform.kube("GET", NODE.format(node))
    found = (reply.json["status"].get("conditions") or ()) if reply.status == 200 else ()
    return next((each["status"] for each in found if each["type"] == "Ready"), "")


def nodes_of(pods: list[dict[str, Any]]) -> set[str]:
    return {each["spec"].get("nodeName", "") for each in pods if not each["metadata"].get("deletionTimestamp")}


@pytest.mark.timeout(300)
def test_a_node_joins_runs_functions_and_leaves(
    platform: Any, folder: Path, started: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    where = ("--data-dir", str(folder))
    node = started(*joining(platform, "--name", "far", "--label", "tier=far", *where))
    wait_until("the node being ready", lambda: ready(platform, "far") == "True", SLOW)

    # A Pod that selects it, and its log.
    container = {"name": "c", "image": "faaslite/python", "command": ["sh", "-c", "echo from far; exec sleep 1000"]}
    spec = {"nodeSelector": {"tier": "far"}, "tolerations": [{"operator": "Exists"}], "containers": [container]}
    pods = "/api/v1/namespaces/default/pods"
    assert platform.kube("POST", pods, {"metadata": {"name": "plain"}, "spec": spec}).status == 201
    wait_until("its log", lambda: platform.kube("GET", f"{pods}/plain/log").body == b"from far\n", SLOW)

    # A function, which the scheduler has no other node for: its package comes through the API.
    cordon(platform, "node-1", True)
    platform.deploy("fn", CODE, "--min", "1")
    assert platform.call("/function/fn").status == 200
    assert nodes_of(platform.pods("fn")) == {"far"}
    wait_until("the function's log", lambda: "called" in platform.faas("logs", "fn").out, SLOW)
    assert "far" in platform.faas("node", "list").out

    # It goes, and another takes its place.
    cordon(platform, "node-1", False)
    node.send_signal(signal.SIGINT)
    said, _ = node.communicate(timeout=90)
    assert node.returncode == 0, said
    assert ready(platform, "far") == "False"
    assert platform.call("/function/fn").status == 200
    assert nodes_of(platform.pods("fn")) == {"node-1"}
    assert platform.kube("GET", f"{pods}/plain").status == 404

    # It comes back by what it has kept, and is told to go from elsewhere.
    node = started("node", "join", *where)
    wait_until("the node being ready again", lambda: ready(platform, "far") == "True", SLOW)
    platform.faas("node", "remove", "far", check=False).fails("is well")
    platform.faas("down", *where)
    assert node.wait(timeout=90) == 0
    platform.faas("node", "remove", "far")
    assert platform.kube("GET", NODE.format("far")).status == 404


@pytest.mark.timeout(300)
def test_what_a_machine_hears_that_may_not_join(platform: Any, folder: Path) -> None:
    where = ("--data-dir", str(folder))
    good = joining(platform)

    def tried(*words: str) -> Any:
        return platform.faas(*words, *where, check=False)

    tried(*good, "--name", "node-1").fails("has a node of that name, and it is well")
    tried(*good, "--name", "far", "--label", "kubernetes.io/a=b").fails("not allowed to set the following labels")
    tried(*good[:-1], "sha256:" + "0" * 64).fails("this is not the cluster that you mean")
    tried(*good[:4], "abcdef.0123456789abcdef", *good[5:]).fails("the token: it is wrong or has expired")
    tried("node", "join", "https://127.0.0.1:1", *good[3:]).fails("nothing answers at https://127.0.0.1:1", code=4)
    assert not (folder / "node.json").exists()
