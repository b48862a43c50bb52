"""The gateway's data plane beside nginx as a reverse proxy, in the same run, before the same upstream.

    python -m benchmarks.gateway [--quick] [--workers N]

Both proxies have the same number of worker processes, keep-alive on both sides, and no access log. The upstream is another
nginx that answers from memory, so that the proxies are what is measured. Short rounds alternate between the two, so that
the machine's noise hits both, and a ratio is the median over pairs of neighbours. `workers2` are figures of two worker processes each. `gateway.cpu_ratio` (nginx' CPU time per request over the
gateway's) says what a core is worth, whatever else the machine does. The `varied` figures are of requests of which no two are alike, in
their paths and in two of their eight fields.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.harness import Load, arguments, main, need, note, wrk
from faaslite.api.names import PORT

VARIED = """
local n = 0
request = function()
  n = n + 1
  local headers = {
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", ["Accept"] = "application/json",
    ["Accept-Language"] = "en", ["Accept-Encoding"] = "gzip", ["Cache-Control"] = "no-cache",
    ["X-Request-Id"] = "request-" .. n * 7919, ["Cookie"] = "session=" .. n * 104729,
  }
  return wrk.format("GET", wrk.path .. "?item=" .. n, headers)
end
"""
SIZES = {"12": 12, "64k": 65536}

Targets = dict[str, tuple[str, list[int]]]
"""By name: the address, and the ids of the processes that are watched."""
Found = dict[tuple[str, str], list[Load]]
"""What wrk saw, by name and size."""


def run(options: argparse.Namespace) -> dict[str, float]:
    seconds, rounds = (1, 3) if options.quick else (3, 8)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        host = f"127.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}.1"
        stack.enter_context(nginx(folder / "upstream", upstream_config(host), [(host, PORT)]))
        script = folder / "varied.lua"
        script.write_text(VARIED)
        with proxies(folder / "proxy", host, options.workers) as targets:
            results = measure(
                {**targets, "direct": (f"http://{host}:{PORT}", [])}, seconds, rounds, options.connections, script
            )
        if options.workers == 1:
            with proxies(folder / "proxy-2", host, 2) as targets:
                found: Found = {}
                compare(found, targets, "12", seconds, rounds, options.connections)
            results |= {
                "gateway.workers2.rps": middle(found, "gateway", "12", "rps"),
                "nginx.workers2.rps": middle(found, "nginx", "12", "rps"),
                "gateway.workers2.ratio": ratio(found, "12", "rps"),
                "gateway.workers2.cpu_us": middle(found, "gateway", "12", "cpu_us"),
                "nginx.workers2.cpu_us": middle(found, "nginx", "12", "cpu_us"),
                "gateway.workers2.cpu_ratio": 1 / ratio(found, "12", "cpu_us"),
            }
            results["errors"] += sum(each.errors for loads in found.values() for each in loads)
        return results


@contextlib.contextmanager
def proxies(folder: Path, host: str, workers: int) -> Iterator[Targets]:
    """nginx and the gateway, each with that many worker processes, before the upstream on `host`."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", free_port())
        peers = stack.enter_context(nginx(folder, proxy_config(address, host, workers), [address]))
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        ours = stack.enter_context(gateway(listener.getsockname(), host, workers))
        port = listener.getsockname()[1]
        listener.close()
        targets = {
            "nginx": (f"http://{address[0]}:{address[1]}", peers),
            "gateway": (f"http://127.0.0.1:{port}", ours),
        }
        for base, _ in targets.values():
            await_http(f"{base}/function/hello/12")
        yield targets


def compare(
    found: Found,
    targets: Targets,
    size: str,
    seconds: float,
    rounds: int,
    connections: int,
    script: Path | None = None,
) -> None:
    for _ in range(rounds):
        for name in ("nginx", "gateway"):
            base, pids = targets[name]
            path = "12" if script else size
            load = wrk(
                f"{base}/function/hello/{path}", seconds=seconds, connections=connections, watch=pids, script=script
            )
            found.setdefault((name, size), []).append(load)
            note(f"{name:8} {size:>6}: {load.rps:8.0f}/s {load.cpu_us:6.1f} us CPU, p50 {load.p50_us:.0f} us")


def middle(found: Found, name: str, size: str, what: str) -> float:
    return median(getattr(each, what) for each in found[name, size])


def ratio(found: Found, size: str, what: str) -> float:
    """The gateway's over nginx', as the median of neighbours in time: what else the machine does is much the same for both."""
    pairs = zip(found["gateway", size], found["nginx", size], strict=True)
    return median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs)


def measure(targets: Targets, seconds: float, rounds: int, connections: int, script: Path) -> dict[str, float]:
    found: Found = {}
    for size in (*SIZES, "varied"):
        compare(found, targets, size, seconds, rounds, connections, script if size == "varied" else None)
    single: dict[str, list[Load]] = {}
    for _ in range(rounds):
        for name, (base, pids) in targets.items():
            load = wrk(f"{base}/function/hello/12", seconds=max(seconds / 2, 1), connections=1, watch=pids)
            single.setdefault(name, []).append(load)
    p99 = {name: median(each.p99_us for each in loads) for name, loads in single.items()}
    p50 = {name: median(each.p50_us for each in loads) for name, loads in single.items()}

    everything = [each for loads in (*found.values(), *single.values()) for each in loads]
    return {
        "gateway.rps": middle(found, "gateway", "12", "rps"),
        "nginx.rps": middle(found, "nginx", "12", "rps"),
        "gateway.ratio": ratio(found, "12", "rps"),
        "gateway.cpu_us": middle(found, "gateway", "12", "cpu_us"),
        "nginx.cpu_us": middle(found, "nginx", "12", "cpu_us"),
        "gateway.cpu_ratio": 1 / ratio(found, "12", "cpu_us"),
        "gateway.64k_rps": middle(found, "gateway", "64k", "rps"),
        "nginx.64k_rps": middle(found, "nginx", "64k", "rps"),
        "gateway.64k_ratio": ratio(found, "64k", "rps"),
        "gateway.64k_cpu_ratio": 1 / ratio(found, "64k", "cpu_us"),
        "gateway.p99_us": middle(found, "gateway", "12", "p99_us"),
        "nginx.p99_us": middle(found, "nginx", "12", "p99_us"),
        "gateway.varied_rps": middle(found, "gateway", "varied", "rps"),
        "nginx.varied_rps": middle(found, "nginx", "varied", "rps"),
        "gateway.varied_ratio": ratio(found, "varied", "rps"),
        "gateway.varied_cpu_us": middle(found, "gateway", "varied", "cpu_us"),
        "gateway.varied_cpu_ratio": 1 / ratio(found, "varied", "cpu_us"),
        "added_p50_us": p50["gateway"] - p50["direct"],
        "added_p99_us": p99["gateway"] - p99["direct"],
        "gateway.added_p50_us": p50["gateway"] - p50["direct"],
        "nginx.added_p50_us": p50["nginx"] - p50["direct"],
        "errors": float(sum(each.errors for each in everything)),
    }


# nginx, as upstream and as the peer


def upstream_config(host: str) -> str:
    return f"""
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    open_file_cache max=100;
    server {{
        listen {host}:{PORT} backlog=4096;
        sendfile on;
        default_type application/octet-stream;
        location ~ ^(/function/hello)?/12$ {{ return 200 "hello world\\n"; }}
        location ~ ^(/function/hello)?/64k$ {{ root .; try_files /64k =404; }}
    }}
}}
"""


def proxy_config(address: tuple[str, int], host: str, workers: int) -> str:
    return f"""
worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    upstream instance {{ server {host}:{PORT}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen {address[0]}:{address[1]} backlog=4096 reuseport;
        location /function/hello/ {{
            proxy_pass http://instance/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Call-Id $request_id;
            add_header X-Call-Id $request_id;
            proxy_buffers 16 16k;
            proxy_buffer_size 16k;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, config: str, addresses: list[tuple[str, int]]) -> Iterator[list[int]]:
    """Yields the ids of its worker processes."""
    folder.mkdir()
    (folder / "64k").write_bytes(b"x" * SIZES["64k"])
    temps = "".join(f"{each}_temp_path temp;\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head, brace, rest = config.partition("http {\n")
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid nginx.pid;\nerror_log error.log warn;\n{user}{head}{brace}{temps}{rest}"
    )
    with subprocess.Popen(
        [need("nginx"), "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for address in addresses:
                await_port(address, process)
            yield children(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


# The gateway, fed by a table


class Table:
    """A Transport with one function and one instance, which never change."""

    def __init__(self, host: str) -> None:
        labels = {"faaslite.dev/function": "hello", "faaslite.dev/revision": "hello-00001"}
        meta = {"namespace": "default", "resourceVersion": "1"}
        self._items = {
            "namespaces": {"metadata": {"name": "default", "resourceVersion": "1"}},
            "serviceaccounts": {"metadata": {**meta, "name": "default"}},
            "rolebindings": {"metadata": {**meta, "name": "none"}},
            "functions": {
                "metadata": {**meta, "name": "hello"},
                "status": {"traffic": [{"revision": "hello-00001", "percent": 100, "concurrency": 0, "timeout": 30.0}]},
            },
            "pods": {
                "metadata": {**meta, "name": "hello-00001-a", "labels": labels, "uid": "a"},
                "status": {"podIP": host, "conditions": [{"type": "Ready", "status": "True"}]},
            },
        }

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b"", content_type: str = ""
    ) -> bytes:
        return msgspec.json.encode(
            {"metadata": {"resourceVersion": "1"}, "items": [self._items[path.rpartition("/")[2]]]}
        )

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[object], None]:
        await asyncio.Event().wait()
        yield []

    async def close(self) -> None: ...


def serve(descriptor: int, host: str) -> None:
    """The process of one worker, until TERM."""
    import uvloop

    from core.client.rest import Client
    from gateway.worker.settings import Settings
    from gateway.worker.worker import Worker

    async def work() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        listener = socket.socket(fileno=descriptor)
        nowhere = Path("/nonexistent/socket")
        worker = Worker(Client(Table(host)), [listener], nowhere, nowhere, Settings(drain_grace=1), "bench")
        await worker.start()
        await stop.wait()
        await worker.stop()

    uvloop.run(work())


@contextlib.contextmanager
def gateway(address: tuple[str, int], host: str, workers: int) -> Iterator[list[int]]:
    """Yields the ids of the workers' processes."""
    with contextlib.ExitStack() as stack:
        pids = []
        for _ in range(workers):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(4096)
            descriptor = listener.fileno()
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.gateway", "--serve", str(descriptor), host],
                    pass_fds=[descriptor],
                )
            )
            stack.callback(process.terminate)
            listener.close()
            pids.append(process.pid)
        yield pids


# Odds and ends


def children(pid: int) -> list[int]:
    """nginx' workers appear a moment after its sockets."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        if found := path.read_text().split():
            return [int(each) for each in found]
        time.sleep(0.02)
    raise RuntimeError("nginx has no workers")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def await_port(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(address, 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {address}")


def await_http(url: str) -> None:
    limit = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                answer.read()
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        parser = arguments("the gateway beside nginx as a reverse proxy")
        parser.add_argument("--workers", type=int, default=1, help="worker processes of each proxy")
        parser.add_argument("--connections", type=int, default=32, help="clients of wrk")
        main("gateway", parser, run)
