"""The API server under load, over TLS and with the embedded store: durable creates, gets, lists, updates, watchers, memory.

The server runs alone in a process, load comes from wrk (C, one thread) and from processes of watchers. While requests are
counted, ten watchers are open on the same kind. A create is counted when its reply came, which is when it is on the disk.
`etcd_put_c64_per_s` is what an etcd on the same disk does with 64 clients in the same run, over HTTP and without TLS or
an API server before it; `fanout_1000_bare_*` is what TLS over asyncio alone takes for the same fan-out.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import psutil

from benchmarks.harness import arguments, cpu_seconds, main, need, note, percentile

CORE = "/api/v1/namespaces/default"
WATCHERS = 10


class Bare(NamedTuple):
    """A server that is no API server, to be watched all the same."""

    url: str
    token: str = "-"


class _ListMeta(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta


class Server:
    """A running server and one connection to it."""

    def __init__(self, process: subprocess.Popen[str], url: str, token: str, node_token: str) -> None:
        self.process, self.url, self.token, self.node_token = process, url, token, node_token
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        where = urlsplit(url)
        self._connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=context, timeout=60)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, path, data, {**self._headers, **headers})
        reply = self._connection.getresponse()
        found = reply.read()
        if reply.status >= 300:
            sys.exit(f"{method} {path}: {reply.status} {found[:200].decode()}")
        return found

    def rss_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def close(self) -> None:
        self._connection.close()


@contextmanager
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="faas-api-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.api_server", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        made = Server(process, *process.stdout.readline().split())
        try:
            yield made
        finally:
            made.close()
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


@contextmanager
def watchers(found: Server | Bare, path: str, count: int) -> Iterator[list[float]]:
    """Open watches; the list is filled with latencies in ms when they are closed."""
    latencies: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.api_watchers", found.url, found.token, path, str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    if process.stdout.readline() != "ready\n":
        sys.exit("the watchers didn't connect")
    try:
        yield latencies
    finally:
        process.stdin.close()
        latencies += json.loads(process.stdout.readline() or "[]")
        process.wait(30)
        process.stdout.close()


SCRIPT = """
local count = 0
local head = {{ {headers} }}
function request()
  count = count + 1
  return wrk.format("{method}", string.format({path}, count), head, string.format({body}, count))
end
"""


def load(url: str, seconds: float, clients: int, *, method: str, path: str, body: str = "", token: str = "") -> float:
    """Requests answered in a second; `path` and `body` are Lua strings that may have one `%d`: the request's number."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    script = SCRIPT.format(
        method=method,
        path=json.dumps(path),
        body=_lua(body),
        headers=", ".join(f'["{key}"] = "{value}"' for key, value in headers.items()),
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [need("wrk"), "-t", "1", "-c", str(clients), "-d", f"{max(round(seconds), 1)}s", "-s", file.name, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = done.stdout
    if "Non-2xx" in text:
        sys.exit(f"{method} {path} failed:\n{text}")
    return float(text.partition("Requests/sec:")[2].split()[0])


def _lua(text: str) -> str:
    return "[[" + text + "]]"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data or {"key": "value"}}


def pod(name: str) -> dict[str, Any]:
    """A Pod as a ReplicaSet's are: two containers' worth of fields, labels, environment, resources, a probe."""
    container = {
        "name": "main",
        "image": "registry.example.dev/team/service:1.2.3",
        "env": [{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
    }
    metadata = {"name": name, "labels": {"app": "service", "tier": "backend", "version": "1.2.3"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def create_pods(found: Server, first: int, count: int) -> None:
    for index in range(first, first + count):
        found.request("POST", f"{CORE}/pods", pod(f"pod-{index:05d}"))


def timed(found: Server, path: str, **headers: str) -> float:
    """Median milliseconds of three whole requests."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        found.request("GET", path, **headers)
        taken.append((time.perf_counter() - began) * 1000)
    return percentile(taken, 50)


def chunks(found: Server) -> float:
    taken = []
    for _ in range(3):
        began, token = time.perf_counter(), ""
        while True:
            page = found.request("GET", f"{CORE}/pods?limit=500" + (f"&continue={token}" if token else ""))
            # What the server takes is asked for: the objects aren't parsed here, as they aren't by the other lists.
            token = msgspec.json.decode(page, type=_Page).metadata.token
            if not token:
                break
        taken.append((time.perf_counter() - began) * 1000)
    return percentile(taken, 50)


def fan_out(found: Server, seconds: float, count: int) -> tuple[list[float], float]:
    """Ten writes a second, watched by `count`; how late each event came, in ms, and the server's CPU time for one, in us."""
    half = f"{CORE}/configmaps?watch=true&fieldSelector=metadata.name%3Dfan"
    found.request("POST", f"{CORE}/configmaps", config_map("fan", at=str(time.monotonic_ns())))
    with watchers(found, half, count) as latencies:
        began, used = time.monotonic(), cpu_seconds([found.process.pid])
        for index in range(round(seconds * 10)):
            time.sleep(max(0.0, began + index / 10 - time.monotonic()))
            found.request("PUT", f"{CORE}/configmaps/fan", config_map("fan", at=str(time.monotonic_ns())))
        time.sleep(1.0)  # for what is still on its way
        used = cpu_seconds([found.process.pid]) - used
    # Each began with the object as it was then.
    late = latencies[count:]
    return late, used / max(len(late), 1) * 1e6


def bare_fan_out(seconds: float, count: int) -> tuple[list[float], float]:
    """The same from a TLS server that does nothing but write (`benchmarks.bare_fanout`)."""
    with tempfile.TemporaryDirectory(prefix="faas-bare-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare_fanout", folder, str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            with watchers(Bare(process.stdout.readline().strip()), "/", count) as latencies:
                used = cpu_seconds([process.pid])
                process.stdin.write(".")
                process.stdin.flush()
                process.stdout.readline()
                time.sleep(1.0)
                used = cpu_seconds([process.pid]) - used
        finally:
            process.stdin.close()
            process.wait(30)
            process.stdout.close()
    late = latencies[count:]
    return late, used / max(len(late), 1) * 1e6


def etcd(seconds: float) -> float | None:
    """Durable puts a second of an etcd with 64 clients, None where there is none."""
    if shutil.which("etcd") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="etcd-bench-") as folder, ExitStack() as stack:
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ports.append(listener.getsockname()[1])
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        log = stack.enter_context(open(f"{folder}/log", "wb"))
        process = subprocess.Popen(
            ["etcd", "--data-dir", f"{folder}/data", "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
             "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _until_listening(ports[0])
            value = base64.b64encode(json.dumps(config_map("x")).encode()).decode()
            body = json.dumps({"key": base64.b64encode(b"/configmaps/default/x").decode(), "value": value})
            return load(urls[0], seconds, 64, method="POST", path="/v3/kv/put", body=body)
        finally:
            process.terminate()
            process.wait(20)


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")
                if b"true" in connection.recv(4096) + connection.recv(4096):
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def run(options: argparse.Namespace) -> dict[str, float]:
    seconds = 2.0 if options.quick else 8.0
    results: dict[str, float] = {}
    with server() as found:
        results["rss_empty_mb"] = found.rss_mb()
        with watchers(found, f"{CORE}/configmaps?watch=true", WATCHERS):
            for clients in (1, 16, 64):
                rate = load(
                    found.url, seconds, clients, method="POST", path=f"{CORE}/configmaps", token=found.token,
                    body=json.dumps(config_map(f"c{clients}-%d")),
                )  # fmt: skip
                results[f"create_c{clients}_per_s"] = rate
                note(f"durable creates, {clients} clients: {rate:.0f}/s")
            for index in range(100):
                found.request("POST", f"{CORE}/configmaps", config_map(f"u-{index}"))
            body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"key": "%d"}})
            results["update_per_s"] = load(
                found.url, seconds, 64, method="PUT", path=f"{CORE}/configmaps/u-1", body=body, token=found.token
            )
            note(f"updates: {results['update_per_s']:.0f}/s")
        if (peer := etcd(seconds)) is not None:
            results["etcd_put_c64_per_s"] = peer
            results["create_c64_to_etcd"] = results["create_c64_per_s"] / peer
            note(f"etcd alone, 64 clients: {peer:.0f}/s")
    with server() as found:
        create_pods(found, 0, 5000)
        with watchers(found, f"{CORE}/pods?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dnone", WATCHERS):
            results["get_per_s"] = load(
                found.url, seconds, 64, method="GET", path=f"{CORE}/pods/pod-00100", token=found.token
            )
            note(f"gets: {results['get_per_s']:.0f}/s")
            table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
            results["list_5000_full_ms"] = timed(found, f"{CORE}/pods")
            began = time.perf_counter()
            found.request("GET", f"{CORE}/pods", Accept=table)
            results["list_5000_table_first_ms"] = (time.perf_counter() - began) * 1000
            results["list_5000_table_ms"] = timed(found, f"{CORE}/pods", Accept=table)
            results["list_5000_chunks_ms"] = chunks(found)
            note(
                f"lists: {results['list_5000_full_ms']:.0f}, as Table {results['list_5000_table_first_ms']:.0f} and again "
                f"{results['list_5000_table_ms']:.0f}, in chunks {results['list_5000_chunks_ms']:.0f} ms"
            )
        create_pods(found, 5000, 5000)
        results["rss_10000_pods_mb"] = found.rss_mb()
        note(f"memory with 10,000 Pods: {results['rss_10000_pods_mb']:.0f} MB")
    with server() as found:
        duration = 3.0 if options.quick else 10.0
        latencies, each = fan_out(found, duration, 1000)
        results["fanout_1000_p50_ms"], results["fanout_1000_p99_ms"] = (
            percentile(latencies, 50),
            percentile(latencies, 99),
        )
        results["fanout_1000_events"], results["fanout_1000_cpu_us"] = float(len(latencies)), each
        bare, results["fanout_1000_bare_cpu_us"] = bare_fan_out(duration, 1000)
        results["fanout_1000_bare_p99_ms"] = percentile(bare, 99)
        note(
            f"fan-out to 1,000 watchers: p50 {results['fanout_1000_p50_ms']:.1f}, p99 {results['fanout_1000_p99_ms']:.1f} ms, "
            f"{each:.0f} us CPU time each; a TLS server that only writes: {results['fanout_1000_bare_p99_ms']:.1f} ms, {results['fanout_1000_bare_cpu_us']:.0f} us"
        )
    return results


if __name__ == "__main__":
    main("api", arguments(__doc__ or ""), run)
