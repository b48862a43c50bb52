"""The main job on Docker nodes, from the command line: started containers that become Pods, kills, and nothing left on the engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.docker

CODE = """
    import os, socket, time
    from pathlib import Path

    def handle(event, context):
        if "grow" in event.query:
            hoard = bytearray(int(event.query["grow"]) << 20)
            hoard[::4096] = b"x" * len(hoard[::4096])
        time.sleep(float(event.query.get("pause", 0)))
        secret = Path("/var/run/secrets/faaslite/db/password")
        writable = [each for each in ("/var/faaslite/package", "/run/faaslite", "/opt/faaslite") if os.access(each, os.W_OK)]
        return {
            "host": socket.gethostname(),
            "address": socket.gethostbyname(socket.gethostname()),
            "size": os.environ.get("SIZE"),
            "secret": secret.read_text() if secret.exists() else None,
            "user": os.getuid(),
            "writable": writable,
        }
"""


@pytest.fixture(scope="module")
def platform(docker_platforms: Callable[..., Any], python_image: str) -> Any:
    found = docker_platforms(python_image)
    found.up()
    found.filled()
    yield found
    found.down()
    assert not [line for line in found.noise() if "Traceback" in line], found.noise()


@pytest.fixture(scope="module")
def hello(platform: Any, wait_until: Callable[..., Any]) -> Any:
    platform.faas("secret", "create", "db", "--from-literal", "password=hush")
    platform.deploy("hello", CODE, "--env", "SIZE=7", "--secret", "db", "--min", "1")
    wait_until("an instance", lambda: platform.serving("hello"))
    return platform


def test_a_started_container_becomes_the_pod(hello: Any, wait_until: Callable[..., Any]) -> None:
    """It has the Pod's name, address, environment, package and secret, it may write none of them, and exec sees the same."""
    ((pod, container),) = hello.serving("hello").items()
    reply = hello.call("/function/hello").json
    (document,) = hello.pods("hello")
    assert reply == {
        "host": pod,
        "address": document["status"]["podIP"],
        "size": "7",
        "secret": "hush",
        "user": 65532,
        "writable": [],
    }
    inspected = hello.docker.inspect_container(container)
    assert "faaslite.dev/slot" in inspected["Config"]["Labels"], "it went the ordinary way"
    assert not [each for each in hello.events("NotAdopted") if each["involvedObject"]["name"] == pod]
    name = f"/faaslite-{document['metadata']['uid']}-function-0"
    wait_until("its name", lambda: hello.docker.inspect_container(container)["Name"] == name)
    assert hello.faas("logs", "hello").code == 0


def test_clients_look_into_an_adopted_pod(hello: Any, needs: Any) -> None:
    """With the Pod's environment, which the engine doesn't know: exec by kubectl and faas, a terminal, attach, port-forward."""
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")
    ((pod, container),) = hello.serving("hello").items()
    assert "faaslite.dev/slot" in hello.docker.inspect_container(container)["Config"]["Labels"]
    environment = {
        **hello.environment,
        "KUBECONFIG": hello.faas("kubeconfig", "--path").out.strip(),
        "HOME": str(hello.sources),
    }

    def kubectl(*arguments: str, stdin: bytes = b"", **more: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            ["kubectl", *arguments], env={**environment, **more}, input=stdin, capture_output=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    look = "echo $SIZE $(id -u 2>/dev/null || python3 -c 'import os; print(os.getuid())'); echo oops >&2; exit 5"
    said = (5, b"7 65532\n", b"oops\ncommand terminated with exit code 5\n")
    assert kubectl("exec", pod, "--", "sh", "-c", look) == said
    assert kubectl("exec", pod, "--", "sh", "-c", look, KUBECTL_REMOTE_COMMAND_WEBSOCKETS="false") == said
    much = os.urandom(1_000_000)
    assert kubectl("exec", "-i", pod, "--", "cat", stdin=much) == (0, much, b"")
    assert hello.faas("exec", "hello", "-t", "--", "sh", "-c", "[ -t 0 ] && echo $SIZE $TERM").out == "7 xterm\n"

    attached = subprocess.Popen(
        ["kubectl", "attach", pod], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    forwarded = subprocess.Popen(
        ["kubectl", "port-forward", pod, ":8012"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert attached.stderr is not None and forwarded.stdout is not None
        attached.stderr.readline()
        port = forwarded.stdout.readline().split()[2].rpartition(b":")[2].decode()
        assert hello.http(f"http://127.0.0.1:{port}/", b"{}", method="POST").json["host"] == pod
    finally:
        for each in (attached, forwarded):
            assert each.poll() is None, each.communicate()
            each.terminate()
            each.communicate(timeout=20)


def test_a_container_with_input_of_its_own(hello: Any, needs: Any) -> None:
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")
    environment = {
        **hello.environment,
        "KUBECONFIG": hello.faas("kubeconfig", "--path").out.strip(),
        "HOME": str(hello.sources),
    }
    command = [
        "kubectl",
        "run",
        "piped",
        "-i",
        "--rm",
        "--quiet",
        "--restart=Never",
        "--image=faaslite/python",
        "--",
        "sh",
        "-c",
        "cat; echo end",
    ]
    done = subprocess.run(command, env=environment, input=b"a line\n", capture_output=True, timeout=90)
    assert (done.returncode, done.stdout.splitlines()[:2]) == (0, [b"a line", b"end"]), done.stderr


def test_from_zero_and_back(hello: Any, wait_until: Callable[..., Any]) -> None:
    hello.deploy("zero", CODE, "--min", "0")
    hello.faas("scale", "zero", "--idle", "1s")
    wait_until("nothing of it", lambda: not hello.pods("zero"))
    hello.filled()
    reply = hello.call("/function/zero")
    assert reply.status == 200 and int(reply.headers["x-faaslite-cold-start"]) > 0
    wait_until("nothing of it again", lambda: not hello.pods("zero"))
    hello.faas("delete", "zero")


def test_a_pod_that_cant_be_adopted_says_so(hello: Any, wait_until: Callable[..., Any]) -> None:
    container = {"name": "a", "image": "faaslite/base", "command": ["sleep", "1000"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}  # fmt: skip
    assert hello.kube("POST", "/api/v1/namespaces/default/pods", pod).status == 201
    said = wait_until("the event", lambda: [each["message"] for each in hello.events("NotAdopted") if each["involvedObject"]["name"] == "plain"])  # fmt: skip
    assert "a command of its own" in said[0]
    wait_until("it to run", lambda: hello.kube("GET", "/api/v1/namespaces/default/pods/plain").json["status"].get("phase") == "Running")  # fmt: skip
    assert hello.kube("DELETE", "/api/v1/namespaces/default/pods/plain").status == 200


def test_memory_over_the_limit_is_killed_and_said_so(hello: Any, wait_until: Callable[..., Any]) -> None:
    hello.deploy("greedy", CODE, "--memory", "64Mi", "--min", "1")
    wait_until("an instance", lambda: hello.serving("greedy"))
    assert hello.call("/function/greedy?grow=256").status == 502

    def reason() -> str:
        (pod,) = hello.pods("greedy")
        (status,) = pod["status"]["containerStatuses"]
        ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}
        return str(ended.get("reason", ""))

    assert wait_until("the reason", reason) == "OOMKilled"
    wait_until("it to serve again", lambda: hello.call("/function/greedy").status == 200)
    assert hello.call("/function/greedy").json["size"] is None
    hello.faas("delete", "greedy")


def test_a_killed_agent_finds_its_pods(hello: Any, load: Any, wait_until: Callable[..., Any]) -> None:
    hello.filled()
    before, address = hello.serving("hello"), hello.call("/function/hello").json["address"]
    restarts = hello.restarts("node-1")
    with load(hello.url + "/function/hello", clients=2, pause=0.01) as calls:
        calls.wait(5)
        os.kill(hello.pid("node-1"), signal.SIGKILL)
        wait_until("the agent again", lambda: hello.restarts("node-1") > restarts and hello.status()["ready"])
        calls.wait(20)
    assert not calls.failed, calls.failed[:3]
    assert hello.serving("hello") == before
    hello.filled()
    assert hello.call("/function/hello").json["address"] == address
    running = [each["Id"] for each in hello.containers() if each["State"] == "running"]
    assert len(running) == len(hello.waiting()) + len(before), "containers that waited for the killed agent are left"


def test_a_killed_supervisor_leaves_pods_that_the_next_one_finds(hello: Any, wait_until: Callable[..., Any]) -> None:
    before = hello.serving("hello")
    hello.remember()
    os.kill(hello.status()["pid"], signal.SIGKILL)
    wait_until("its processes to end", lambda: hello.faas("status", check=False).code != 0 and not hello._processes())
    assert {each["Id"] for each in hello.containers() if each["State"] == "running"} >= set(before.values())
    hello.up()
    assert wait_until("the instance", lambda: hello.serving("hello")) == before
    wait_until("an answer", lambda: hello.call("/function/hello").status == 200)


def test_down_without_a_platform_takes_away_what_a_killed_one_left(docker_platforms: Callable[..., Any], python_image: str, wait_until: Callable[..., Any]) -> None:  # fmt: skip
    other = docker_platforms(python_image)
    other.up()
    other.filled()
    other.remember()
    os.kill(other.status()["pid"], signal.SIGKILL)
    wait_until("its processes to end", lambda: not other._processes())
    done = other.faas("down")
    assert "wasn't running" in done.err
    other.gone()
    other.faas("down", check=False).fails("not running", code=4)


def test_an_image_that_is_missing_says_what_to_do(hello: Any, wait_until: Callable[..., Any]) -> None:
    image = hello.docker.inspect_image("faaslite/python")["Id"]
    hello.docker.tag(image, "keep-faaslite-python", "latest")
    try:
        hello.docker.remove_image("faaslite/python:latest", force=True)
        wait_until("no container to wait", lambda: not hello.waiting())
        done = hello.deploy("lacking", CODE, "--min", "1", "--wait", "--timeout", "5s", check=False)
        assert done.code != 0 and "faas images build" in done.err, done.err
    finally:
        hello.docker.tag("keep-faaslite-python", "faaslite/python", "latest")
        hello.docker.remove_image("keep-faaslite-python:latest")
    hello.filled()
    hello.faas("delete", "lacking")


def test_status_says_what_isolation_there_is(hello: Any) -> None:
    (node,) = json.loads(hello.faas("status", "-o", "json").out)["nodes"]
    assert {"no_new_privs", "seccomp", "net", "pid", "cgroup"} <= set(node["isolation"])
