"""Two teams on one cluster, and everything that a developer of the one tries against the other and the platform.

`Campaign` sets the scene on a running platform and runs the attacks; what they come to is compared with the tables of docs/security.md, which
claim an outcome for each attack and kind of node: `refused`, `bounded` or `open`.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "security.md"
LEVELS = ("process node, root", "process node, not root", "Docker node")
API = "any node"
ATTACKERS, VICTIMS = "red", "blue"
_requests = runpy.run_path(str(HERE / "requests.py"))
HOST = _requests["HOST"]
PASSWORD = "blue-and-nobody-elses"
SMALL = 96 << 20
"""Memory limit of the function that takes memory without end."""


def claims(column: str) -> dict[str, str]:
    """Attack -> outcome, as the tables of the document claim it in the column of that name."""
    found: dict[str, str] = {}
    columns: list[str] = []
    for line in DOCUMENT.read_text().splitlines():
        cells = [each.strip() for each in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            columns = []
        elif "attack" in cells[0]:
            columns = cells
        elif column in columns and (named := re.fullmatch(r"`([a-z-]+)`.*", cells[0])):
            found[named[1]] = cells[columns.index(column)].split(":")[0].split(" ")[0]
    return found


def attacks() -> list[str]:
    return list(runpy.run_path(str(HERE / "breach.py"))["ATTACKS"])


def shown(title: str, outcomes: dict[str, tuple[str, str]]) -> str:
    width = max(map(len, outcomes))
    rows = (f"{name.ljust(width)}   {outcome.ljust(8)}  {by[:110]}" for name, (outcome, by) in outcomes.items())
    return "\n".join([f"--- {title}", *rows])


def check(column: str, outcomes: dict[str, tuple[str, str]], *, without: str = "") -> None:
    """Fails where the document claims something else, or says nothing of an attack, or something of one that there isn't. `without` is how the
    names end of attacks that weren't made."""
    print(shown(column, outcomes))
    claimed = {name: each for name, each in claims(column).items() if not (without and name.endswith(without))}
    found = {name: outcome for name, (outcome, _) in outcomes.items()}
    differ = {
        name: f"the document says {claimed.get(name)}, it is {found.get(name)} ({outcomes.get(name, ('', ''))[1]})"
        for name in {*claimed, *found}
        if claimed.get(name) != found.get(name)
    }
    assert not differ, json.dumps(differ, indent=2, sort_keys=True)


class Campaign:
    """On a platform (the fixture's class of tests/integration/platform) that is up."""

    def __init__(self, platform: Any, until: Callable[..., Any]) -> None:
        self.platform = platform
        self.until = until

    def prepare(self) -> None:
        """Both teams, the victim's secret, function and call, the attackers' function and token."""
        platform = self.platform
        for team in (ATTACKERS, VICTIMS):
            platform.faas("namespace", "create", team, "--pods", "20", "--functions", "10")
        platform.faas("secret", "create", "theirs", "--from-literal", f"password={PASSWORD}", "-n", VICTIMS)
        victim, breach = (HERE / each for each in ("victim.py", "breach.py"))
        platform.deploy("victim", victim.read_text(), "-n", VICTIMS, "--secret", "theirs", "--min", "1")
        platform.deploy("breach", breach.read_text(), "-n", ATTACKERS, "--min", "1", "--timeout", "60s")
        self._another("glutton", "breach", ATTACKERS, resources={"limits": {"memory": f"{SMALL >> 20}Mi"}})
        self.token = platform.faas(
            "token", "create", "-n", ATTACKERS, "--role", "developer", "--name", "mallory"
        ).out.strip()

    def prepare_to_ask(self) -> None:
        """What the attacks with a token are about beside that: functions that not everybody may call, on a host of their own."""
        self.platform.deploy("shop", "def handle(event, context):\n    return 'hush'\n", "-n", VICTIMS)
        self._another("vault", "shop", VICTIMS, http={"visibility": "private"})
        self._another("locked", "shop", VICTIMS, http={"visibility": "key"})
        self._another("private", "breach", ATTACKERS, http={"visibility": "private"})
        place = f"/apis/faaslite.dev/v1/namespaces/{VICTIMS}/functions/shop"
        routes = {"spec": {"http": {"routes": [{"host": HOST, "path": "/"}]}}}
        done = self.platform.kube("PATCH", place, routes, content_type="application/merge-patch+json")
        assert done.status == 200, done.body

    def _another(self, name: str, like: str, team: str, **changes: Any) -> None:
        """A function of the same code as `like`."""
        place = f"/apis/faaslite.dev/v1/namespaces/{team}/functions"
        spec = {**self.platform.kube("GET", f"{place}/{like}").json["spec"], "scale": {}, **changes}
        made = self.platform.kube("POST", place, {"metadata": {"name": name}, "spec": spec})
        assert made.status == 201, made.body

    def facts(self, listener: dict[str, Any]) -> dict[str, Any]:
        """What an attacker could find out or guess of the others, and more: he is to fail all the same."""
        platform = self.platform
        said = platform.call(f"/function/victim.{VICTIMS}").json
        assert said["secret"] == PASSWORD and said["segment"] >= 0, "the victim is not what the attackers think"
        (pod,) = (each for each in platform.pods("victim", VICTIMS) if each["status"].get("phase") == "Running")
        pid = self._process(pod)
        assert pid, "the victim has no process"
        inside = [f"{said['place']}/theirs/password", f"/run/secrets/faaslite/{VICTIMS}/password"]
        outside = [
            str(each) for each in platform.home.glob(f"nodes/*/pods/{pod['metadata']['uid']}/volumes/*/password")
        ]
        slots = [str(each) for each in platform.home.glob("nodes/*/sandboxer/zygotes/*")]
        node = platform.kube("GET", "/api/v1/nodes/node-1").json
        api = urlsplit(platform.api)
        status = platform.status()
        names = ("api", "supervisor", "autoscaler", "jobs", "gateway-1", "sandboxer-node-1")
        through = [f"/proc/{pid}/root{inside[0]}"]
        return {
            "home": str(platform.home),
            "sockets": [str(platform.home / "run" / f"{each}.sock") for each in names],
            "platform": {each["name"]: each["pid"] for each in status["components"] if each["pid"]},
            "victim": {
                **said, "pid": pid, "address": pod["status"]["podIP"], "secrets": [*inside[1:], *outside, *through],
                "folders": [said["tmp"] + "/..", *slots, str(platform.home / "nodes")] if not self._own_tree else slots,
            },
            "listener": listener,
            "api": [api.hostname, api.port],
            "agent": [node["status"]["addresses"][0]["address"], node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]],
            "processes": 4500, "disk": 600 << 20, "memory": 4 * SMALL,
        }  # fmt: skip

    @property
    def _own_tree(self) -> bool:
        """Whether Pods see paths of their own (containers), so that the victim's are the attacker's own too."""
        return hasattr(self.platform, "docker")

    def _process(self, pod: dict[str, Any]) -> int:
        """The victim's process as this machine numbers it."""
        if self._own_tree:
            container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
            return int(self.platform.docker.inspect_container(container)["State"]["Pid"])
        address = pod["status"]["podIP"]
        found = (
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.ip == address
        )
        return int(next(found) or 0)

    def ask(self) -> dict[str, tuple[str, str]]:
        """Every attack with a token."""
        found: dict[str, tuple[str, str]] = _requests["Requests"](self).run()
        assert self.platform.call(f"/function/victim.{VICTIMS}").json["secret"] == PASSWORD
        return found

    def run(self) -> dict[str, tuple[str, str]]:
        """Every attack from within the Pod: how it went, and by what it was barred."""
        outcomes = {}
        with listening() as listener:
            facts = self.facts(listener)
            for name in attacks():
                function = "glutton" if name == "memory-without-end" else "breach"
                reply = self.platform.call(
                    f"/function/{function}.{ATTACKERS}?attack={name}",
                    json.dumps(facts).encode(),
                    method="POST",
                    timeout=90,
                )
                if reply.status == 200:
                    outcomes[name] = (reply.json["outcome"], reply.json["by"])
                else:
                    # The Pod that went too far was ended, and only that.
                    assert name == "memory-without-end", (name, reply.status, reply.body)
                    outcomes[name] = ("bounded", f"{reply.status} {reply.json['error']}")
        again = self.platform.call(f"/function/victim.{VICTIMS}").json
        assert again["secret"] == PASSWORD
        return outcomes

    def run_by_exec(self) -> dict[str, tuple[str, str]]:
        """The attacks that leave the Pod as it is, by a command that the developer has run in it (`kubectl exec`)."""
        platform = self.platform
        own = platform.call(f"/function/breach.{ATTACKERS}").json
        pod = next(
            each["metadata"]["name"] for each in platform.pods("breach", ATTACKERS)
            if each["status"].get("phase") == "Running" and not each["metadata"].get("deletionTimestamp")
        )  # fmt: skip
        config = platform.sources / "config"
        login = ("--kubeconfig", str(config), "--ca-file", str(platform.home / "pki" / "ca.crt"), "-n", ATTACKERS)
        platform.faas("login", platform.api, *login, input=self.token)
        command = [
            "kubectl",
            "--kubeconfig",
            str(config),
            "exec",
            "-i",
            pod,
            "--",
            own["python"],
            f"{own['package']}/handler.py",
        ]
        with listening() as listener:
            wanted = [each for each in attacks() if not each.endswith("-without-end")]
            sent = json.dumps({"facts": self.facts(listener), "attacks": wanted})
            done = subprocess.run(command, input=sent, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return {name: (each["outcome"], each["by"]) for name, each in json.loads(done.stdout).items()}


@contextmanager
def listening() -> Iterator[dict[str, Any]]:
    """A server on the machine that is nobody's business, at its loopback address and the ones of its bridges."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", 0))
        server.listen()
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"the machine's own")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        own = [
            each.address
            for found in psutil.net_if_addrs().values()
            for each in found
            if each.family == socket.AF_INET and os.environ.get("FAASLITE_ANY", "1")
        ]
        try:
            yield {"port": server.getsockname()[1], "addresses": own}
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
