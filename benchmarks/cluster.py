"""A cluster for one benchmark: its own data dir, free ports, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cli.gateway import Gateway
from faaslite.build.archive import Archive, pack

__all__ = ["Cluster", "Reply", "first_byte", "pss_mb", "start"]

FAAS = str(Path(sys.executable).with_name("faas"))


class Cluster:
    """A running platform, by its command line and its APIs."""

    def __init__(self, home: Path, up_seconds: float, environment: Mapping[str, str]) -> None:
        self.home = home
        self.trace = home / "trace"
        self.up_seconds = up_seconds
        self._environment = environment
        status = json.loads(self.faas("status", "-o", "json"))
        self.supervisor: int = status["pid"]
        self.components: dict[str, int] = {each["name"]: each["pid"] for each in status["components"]}
        host, port = status["gateway"].removeprefix("http://").rsplit(":", 1)
        self.address = (host, int(port))
        users = subprocess.run(
            [sys.executable, "-c", "import yaml,sys; print(yaml.safe_load(open(sys.argv[1]))['users'][0]['user']['token'])",
             str(home / "kubeconfig")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.token = users.stdout.strip()
        self.gateway = Gateway(status["gateway"], self.token)
        self.api: str = status["api"]

    def faas(self, *arguments: str) -> str:
        """Run the command; its output. Ends the benchmark with the command's error where it fails."""
        done = subprocess.run(
            [FAAS, *arguments], env=dict(self._environment), capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"faas {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """One request to the cluster's API with the admin's token; the reply's document."""
        import ssl
        import urllib.request

        context = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.crt"))
        request = urllib.request.Request(
            self.api + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        with urllib.request.urlopen(request, context=context, timeout=60) as reply:
            return json.load(reply)

    def deploy(
        self, names: list[str], source: Callable[[str], str], spec: Mapping[str, Any], layer: Archive | None = None
    ) -> None:
        """Make functions of one file each, with code of their own, and wait until all are Ready. Nothing of them is started
        where `spec.scale.initial` is 0."""
        if layer is not None:
            self.gateway.put_package(layer.digest, layer.data, "default")

        def make(name: str) -> None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "handler.py")
                file.write_text(source(name))
                archive = pack(file)
            self.gateway.put_package(archive.digest, archive.data, "default")
            package = {"digest": archive.digest, **({"layer": layer.digest} if layer else {})}
            self.request(
                "POST",
                "/apis/faaslite.dev/v1/namespaces/default/functions",
                {"metadata": {"name": name}, "spec": {**spec, "handler": "handler:handle", "package": package}},
            )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make, names))
        wanted, deadline = set(names), time.monotonic() + 60
        while wanted:
            items = self.request("GET", "/apis/faaslite.dev/v1/namespaces/default/functions")["items"]
            ready = {
                each["metadata"]["name"]
                for each in items
                if any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in (each.get("status") or {}).get("conditions", ())
                )
            }
            wanted -= ready
            if wanted and time.monotonic() > deadline:
                sys.exit(f"{len(wanted)} functions did not become ready, {sorted(wanted)[0]} among them")
            time.sleep(0.05)

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.request("GET", "/api/v1/namespaces/default/pods")["items"]
        return found

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything below it."""
        root = psutil.Process(self.supervisor)
        return [root, *root.children(recursive=True)]


@contextmanager
def start(*flags: str, trace: bool = False) -> Iterator[Cluster]:
    """`faas up --detach` with these flags; `faas down` at the end, whatever happens. `trace`: its processes leave marks in `Cluster.trace`."""
    with tempfile.TemporaryDirectory(prefix="faas-bench-") as folder:
        environment = {**os.environ, "FAASLITE_HOME": folder}
        for each in ("FAASLITE_GATEWAY", "FAASLITE_KUBECONFIG"):
            environment.pop(each, None)
        if trace:
            Path(folder, "trace").mkdir(mode=0o700)
            environment["FAASLITE_TRACE_DIR"] = f"{folder}/trace"
        began = time.perf_counter()
        command = [FAAS, "up", "--detach", "--api-port", "0", "--gateway-port", "0", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        took = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"faas up: {done.stderr.strip()}")
        try:
            yield Cluster(Path(folder), took, environment)
        finally:
            subprocess.run([FAAS, "down"], env=environment, capture_output=True, check=False)


def pss_mb(processes: list[psutil.Process]) -> float:
    """Proportional set size of these processes together, in MB (10^6 bytes)."""
    total = 0
    for each in processes:
        try:
            text = Path(f"/proc/{each.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024 / 1e6


class Reply:
    """What came back: status, CLOCK_MONOTONIC at the begin and at the first byte, milliseconds that it waited for an instance, body."""

    __slots__ = ("began", "body", "done", "status", "waited_ms")

    def __init__(self, status: int, began: int, done: int, waited_ms: float, body: bytes) -> None:
        self.status, self.began, self.done, self.waited_ms, self.body = status, began, done, waited_ms, body

    @property
    def first_byte_ms(self) -> float:
        return (self.done - self.began) / 1e6


def first_byte(address: tuple[str, int], path: str, timeout: float = 60.0) -> Reply:
    """One GET on a connection of its own, timed from before the connect to the first byte of the reply."""
    began = time.monotonic_ns()
    with socket.create_connection(address, timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
        data = connection.recv(65536)
        done = time.monotonic_ns()
        while more := connection.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Reply(int(lines[0].split()[1]), began, done, float(headers.get("x-faaslite-cold-start", "nan")), body)
