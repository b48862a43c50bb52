"""exec, cp, attach, run and port-forward by the clients that people have: kubectl, the official Python client, kr8s."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kubectl

CODE = """
    import os

    def handle(event, context):
        print("called", event.query.get("n", "-"), flush=True)
        return os.environ.get("COLOUR", "none")
"""
BARE = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
"""What makes kubectl speak SPDY without a WebSocket around it, as all its releases before 1.30 do."""


@pytest.fixture(scope="module")
def shown(platform: Any) -> Any:
    platform.deploy("shown", CODE, "--min", "1", "--max", "1", "--env", "COLOUR=green")
    return platform


@pytest.fixture(autouse=True)
def has_kubectl(needs: Any) -> None:
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")


@pytest.fixture(scope="module")
def environment(shown: Any) -> dict[str, str]:
    config = shown.faas("kubeconfig", "--path").out.strip()
    return {**shown.environment, "KUBECONFIG": config, "HOME": str(shown.sources)}


Kubectl = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def kubectl(environment: dict[str, str]) -> Kubectl:
    def run(*arguments: str, stdin: bytes = b"", code: int = 0, **more: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            ["kubectl", *arguments], env={**environment, **more}, input=stdin, capture_output=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.stderr!r}"
        return done

    return run


@pytest.fixture(scope="module")
def pod(shown: Any) -> str:
    return str(shown.pods("shown")[0]["metadata"]["name"])


@pytest.fixture(params=["websocket", "spdy"])
def transport(request: pytest.FixtureRequest) -> dict[str, str]:
    return BARE if request.param == "spdy" else {}


class TestExec:
    def test_output_errors_and_exit_code(self, kubectl: Kubectl, pod: str, transport: dict[str, str]) -> None:
        done = kubectl("exec", pod, "--", "sh", "-c", "echo $COLOUR; echo oops >&2; exit 5", code=5, **transport)
        assert done.stdout == b"green\n"
        assert done.stderr.splitlines() == [b"oops", b"command terminated with exit code 5"]

    def test_input(self, kubectl: Kubectl, pod: str, transport: dict[str, str]) -> None:
        wanted = os.urandom(2_000_000)
        assert kubectl("exec", "-i", pod, "--", "cat", stdin=wanted, **transport).stdout == wanted

    def test_much_output(self, kubectl: Kubectl, pod: str) -> None:
        assert len(kubectl("exec", pod, "--", "head", "-c", "20000000", "/dev/zero").stdout) == 20_000_000

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("-c", "none", "{pod}", "--", "id"), 1, "container none is not valid for pod {pod}"),
            (("no-such-pod", "--", "id"), 1, 'pods "no-such-pod" not found'),
            (("{pod}", "--", "no-such-command"), 127, "no-such-command: No such file or directory"),
        ],
    )
    def test_refusals(self, kubectl: Kubectl, pod: str, arguments: Any, code: int, words: str) -> None:
        done = kubectl("exec", *(each.format(pod=pod) for each in arguments), code=code)
        assert words.format(pod=pod) in done.stderr.decode()

    def test_whoever_may_not_is_told(self, kubectl: Kubectl, pod: str) -> None:
        kubectl("create", "role", "reader", "--verb=get", "--resource=pods")
        kubectl("create", "rolebinding", "reader", "--role=reader", "--user=eve")
        done = kubectl("--as", "eve", "exec", pod, "--", "id", code=1)
        assert b'cannot create resource "pods/exec"' in done.stderr
        kubectl("create", "role", "runner", "--verb=create", "--resource=pods/exec")
        kubectl("create", "rolebinding", "runner", "--role=runner", "--user=eve")
        assert kubectl("--as", "eve", "exec", pod, "--", "echo", "may").stdout == b"may\n"

    def test_a_terminal(self, environment: dict[str, str], pod: str) -> None:
        with terminal(environment, "exec", "-it", pod, "--", "sh") as session:
            session.until(b"$ ")
            session.type(b"stty size; echo $((40 + 2))\n")
            session.until(b"33 101\r\n42\r\n")
            session.resize(20, 60)
            session.type(b"while [ $(stty size | cut -d' ' -f1) != 20 ]; do sleep 0.05; done; stty size\n")
            session.until(b"20 60\r\n")
            # Said by the very process that is to be interrupted: between two commands of a shell the key is nobody's.
            session.type(b"sh -c 'echo go''ing; exec sleep 1000'\n")
            session.until(b"going\r\n")
            session.type(b"\x03")  # is for what runs in the Pod, not for kubectl
            session.until(b"^C")
            session.until(b"$ ")  # what is typed before it is thrown away with the line
            session.type(b"exit 9\n")
            assert session.wait() == 9

    def test_a_terminal_that_goes_takes_its_command_along(
        self, environment: dict[str, str], kubectl: Kubectl, pod: str
    ) -> None:
        script = "trap ': > $TMPDIR/hung-up; exit' HUP; echo set; while :; do sleep 0.05; done"
        with terminal(environment, "exec", "-it", pod, "--", "sh", "-c", script) as session:
            session.until(b"set\r\n")
            session.process.kill()
        kubectl("exec", pod, "--", "sh", "-c", "until [ -e $TMPDIR/hung-up ]; do sleep 0.05; done")


class TestCopy:
    def test_there_and_back(self, kubectl: Kubectl, pod: str, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "text").write_text("hello")
        (folder / "much").write_bytes(os.urandom(3_000_000))
        place = kubectl("exec", pod, "--", "printenv", "TMPDIR").stdout.decode().strip()
        kubectl("cp", str(folder), f"{pod}:{place}/there")
        kubectl("cp", f"{pod}:{place}/there", str(tmp_path / "back"))
        assert filecmp.cmpfiles(folder, tmp_path / "back", ["text", "much"], shallow=False)[0] == ["text", "much"]


class TestAttach:
    def test_what_the_function_says_is_seen(self, environment: dict[str, str], shown: Any, pod: str) -> None:
        process = subprocess.Popen(["kubectl", "attach", pod], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            process.stderr.readline()  # that it may wait for input
            found = b""
            for number in range(100):
                shown.call(f"/function/shown?n=attached-{number}")
                if select.select([process.stdout], [], [], 0.2)[0]:
                    found = process.stdout.readline()
                    break
            assert b"called attached-" in found
        finally:
            process.terminate()
            process.communicate(timeout=20)
        assert shown.pods("shown")[0]["status"]["phase"] == "Running"

    def test_run_with_input_until_its_end(self, kubectl: Kubectl) -> None:
        command = ("run", "piped", "-i", "--rm", "--quiet", "--restart=Never", "--image=faaslite/python")
        tolerations = '{"spec": {"tolerations": [{"operator": "Exists"}]}}'
        done = kubectl(*command, f"--overrides={tolerations}", "--", "sh", "-c", "cat; echo end", stdin=b"a line\n")
        assert done.stdout.splitlines()[:2] == [b"a line", b"end"]
        assert b"not found" in kubectl("get", "pod", "piped", code=1).stderr

    def test_run_with_a_terminal(self, environment: dict[str, str], kubectl: Kubectl) -> None:
        tolerations = '{"spec": {"tolerations": [{"operator": "Exists"}]}}'
        with terminal(
            environment, "run", "typed", "-it", "--rm", "--restart=Never", "--image=faaslite/python", f"--overrides={tolerations}",
            "--", "sh", "-c", "read line; stty size; echo got $line; read line; exit 3",
        ) as session:  # fmt: skip
            session.type(b"one\n")
            session.until(b"33 101\r\ngot one\r\n")
            session.type(b"two\n")
            session.until(b"deleted")
            session.wait()
        assert b"not found" in kubectl("get", "pod", "typed", code=1).stderr


class TestDebug:
    def test_a_container_is_added_and_attached_to(self, kubectl: Kubectl, pod: str) -> None:
        command = ("debug", pod, "-i", "--quiet", "--image=faaslite/python", "--profile=general", "-c", "looker")
        done = kubectl(*command, "--", "sh", "-c", "read line; echo got $line; exit 3", stdin=b"a line\n")
        assert done.stdout == b"got a line\n"
        path = "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}"
        kubectl("wait", f"--for=jsonpath={path}=3", f"pod/{pod}", "--timeout=30s")
        assert kubectl("logs", pod, "-c", "looker").stdout == b"got a line\n"
        assert b"container not found" in kubectl("exec", pod, "-c", "looker", "--", "id", code=1).stderr

    def test_commands_run_in_it(self, kubectl: Kubectl, pod: str) -> None:
        command = (
            "debug",
            pod,
            "--quiet",
            "--image=faaslite/python",
            "--profile=general",
            "-c",
            "stays",
            "--attach=false",
        )
        kubectl(*command, "--", "sleep", "1000")
        path = '{.status.ephemeralContainerStatuses[?(@.name=="stays")].state.running}'
        kubectl("wait", f"--for=jsonpath={path}", f"pod/{pod}", "--timeout=30s")
        assert kubectl("exec", pod, "-c", "stays", "--", "echo", "inside").stdout == b"inside\n"
        assert kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[*].ready}").stdout == b"true"


class TestPortForward:
    def test_requests_go_through(self, environment: dict[str, str], pod: str, transport: dict[str, str]) -> None:
        with forwarded({**environment, **transport}, pod, "8012") as (ports, _):
            for _ in range(5):
                with urllib.request.urlopen(f"http://127.0.0.1:{ports[8012]}/_/ready", timeout=10) as reply:
                    assert reply.status in (200, 204)

    def test_it_really_is_a_websocket(self, environment: dict[str, str], pod: str) -> None:
        with forwarded(environment, pod, "8012", "-v=8") as (ports, said):
            urllib.request.urlopen(f"http://127.0.0.1:{ports[8012]}/_/ready", timeout=10).close()
        assert "SPDY/3.1+portforward.k8s.io" in said() and "fallback" not in said()

    def test_several_ports_of_which_one_is_deaf(self, environment: dict[str, str], pod: str) -> None:
        with forwarded(environment, pod, "8012", "9999") as (ports, said):
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[8012]}/_/ready", timeout=10) as reply:
                assert reply.status in (200, 204)
            with pytest.raises(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{ports[9999]}/", timeout=10)
        assert "nothing listens at 127." in said()

    def test_by_service(self, environment: dict[str, str], shown: Any) -> None:
        with forwarded(environment, "service/shown", "80") as (ports, _):
            (port,) = ports.values()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_/ready", timeout=10) as reply:
                assert reply.status in (200, 204)


class TestFaas:
    def test_a_command_with_its_exit_code(self, shown: Any) -> None:
        done = shown.faas("exec", "shown", "--", "sh", "-c", "echo $COLOUR; echo oops >&2; exit 5", check=False)
        assert (done.code, done.out, done.err) == (5, "green\n", "oops\n")

    def test_input_is_passed_on_where_it_is_asked_for(self, shown: Any, pod: str) -> None:
        assert (
            shown.faas("exec", "shown", "-i", "--instance", pod, "--", "cat", input="a line\n" * 50_000).out
            == "a line\n" * 50_000
        )
        assert shown.faas("exec", "shown", "--", "cat", input="not for it\n").out == ""

    def test_a_shell_in_a_terminal(self, shown: Any) -> None:
        with terminal(shown.environment, "exec", "shown", program=shown.command[0]) as session:
            session.until(b"$ ")
            session.type(b"stty size; echo $COLOUR; exit 9\n")
            session.until(b"33 101\r\ngreen\r\n")
            assert session.wait() == 9

    def test_what_is_not_there(self, shown: Any) -> None:
        shown.faas("exec", "nothing", "--", "id", check=False).fails("nothing", code=3)
        shown.faas("exec", "shown", "--instance", "none", "--", "id", check=False).fails(
            "no instance none", "faas scale", code=3
        )


class TestPythonClients:
    """In processes of their own: they leave sockets and tasks behind."""

    @pytest.fixture
    def run(self, environment: dict[str, str], pod: str) -> Callable[[str], Any]:
        def call(which: str) -> Any:
            script = Path(__file__).with_name("stream_clients.py")
            done = subprocess.run(
                [sys.executable, str(script), which, environment["KUBECONFIG"], pod], capture_output=True, text=True, timeout=60, check=False
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        return call

    def test_the_official_client(self, run: Callable[[str], Any]) -> None:
        assert run("official") == {
            "said": ["green", "oops"], "stdout": "got it\n", "code": 4, "reply": "HTTP/1.1 204 No Content", "error": None,
        }  # fmt: skip

    def test_kr8s(self, run: Callable[[str], Any]) -> None:
        assert run("kr8s") == {"stdout": "green\n", "code": 0, "failed": 3, "status": 204}


class Session:
    """A command whose terminal is in our hands."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.seen = b""
        self._master = master

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, 28)  # WINCH: it isn't the terminal's own session

    def until(self, wanted: bytes, seconds: float = 30.0) -> None:
        """Read until that was seen; what came before it is of no interest any more."""
        deadline = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < deadline, f"{wanted!r} did not come, only {self.seen!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self._master, 4096)
        self.seen = self.seen.partition(wanted)[2]

    def wait(self) -> int:
        return self.process.wait(20)


@contextlib.contextmanager
def terminal(environment: dict[str, str], *arguments: str, program: str = "kubectl") -> Iterator[Session]:
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen(
        [program, *arguments], env={**environment, "TERM": "dumb"}, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )  # fmt: skip
    os.close(slave)
    try:
        yield Session(process, master)
    finally:
        process.kill()
        process.wait(20)
        os.close(master)


@contextlib.contextmanager
def forwarded(
    environment: dict[str, str], target: str, *more: str
) -> Iterator[tuple[dict[int, int], Callable[[], str]]]:
    """Local ports by those of the target, and what kubectl has said in the end."""
    ports = [f":{each}" if each.isdigit() else each for each in more]
    process = subprocess.Popen(["kubectl", "port-forward", target, *ports], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    said: list[str] = []
    found: dict[int, int] = {}
    try:
        while len(found) < sum(each.startswith(":") for each in ports):
            line = process.stdout.readline()
            assert line, f"kubectl port-forward ended: {process.communicate()[1]}"
            if match := re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)", line):
                found[int(match[2])] = int(match[1])
        yield found, lambda: "".join(said)
    finally:
        process.terminate()
        said += process.communicate(timeout=20)
