"""Steady load while a revision is rolled out, the function is scaled down to one instance, one of two gateway workers is killed, and the other one told to stop.

    python -m benchmarks.rollout [--quick]

Clients with keep-alive connections ask without a pause longer than a few milliseconds, GET and POST in turn. Every request must be answered with 200, whatever
happens behind the gateway. The one exception is what was on its way through the worker that was killed with SIGKILL: those requests are told apart by
their connections (the sockets that the worker held when it died) and counted as `failed_in_flight_on_killed_worker`; `failed` are all the others.
No request is repeated by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster import Cluster, start
from benchmarks.harness import arguments, main, note, percentile
from faaslite.build.archive import pack

CLIENTS = 24
PAUSE = 0.01
SOURCE = (
    "import asyncio\n\n\nasync def handle(event, context):\n    await asyncio.sleep(0.005)\n    return {answer!r}\n"
)
PATH = "/apis/faaslite.dev/v1/namespaces/default/functions/steady"


def run(options: argparse.Namespace) -> dict[str, float]:
    seconds = 20.0 if options.quick else 60.0
    with start("--runtime", "process", "--workers", "2") as cluster:
        digest = package(cluster, "one")
        spec = {
            "handler": "handler:handle", "package": {"digest": digest}, "concurrency": 10,
            "scale": {"min": 4, "initial": 4, "max": 8, "window": "6s", "idle": "2s"},
        }  # fmt: skip
        cluster.request(
            "POST",
            "/apis/faaslite.dev/v1/namespaces/default/functions",
            {"metadata": {"name": "steady"}, "spec": spec},
        )
        await_pods(cluster, 4)
        second = package(cluster, "two")
        return asyncio.run(scenario(cluster, seconds, second))


async def scenario(cluster: Cluster, seconds: float, second: str) -> dict[str, float]:
    load = Load(cluster.address)
    clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
    began = time.monotonic()

    async def until(share: float) -> None:
        await asyncio.sleep(max(began + seconds * share - time.monotonic(), 0))

    await until(0.2)
    note("rolling out a revision")
    await patch(cluster, {"spec": {"package": {"digest": second}}})
    await until(0.5)
    note(f"answers so far: {dict(load.answers)}; scaling down to 1")
    await patch(cluster, {"spec": {"scale": {"min": 1, "max": 1, "initial": 1}}})
    await until(0.75)
    pods = await asyncio.to_thread(live_pods, cluster)
    revisions = Counter(each["metadata"]["labels"]["faaslite.dev/revision"] for each in pods)
    note(f"{dict(revisions)} instances; killing a gateway worker")
    pid = cluster.components["gateway-1"]
    held = {each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr}
    os.kill(pid, signal.SIGKILL)
    load.killed_at, load.killed_ports = time.monotonic(), held
    await until(0.88)
    note("telling the other gateway worker to stop; its successor takes its listener")
    os.kill(cluster.components["gateway-2"], signal.SIGTERM)
    await until(1.0)
    load.stopping = True
    await asyncio.gather(*clients)
    for line in load.errors[:20]:
        note(line)
    restarted = [each for each in cluster_status(cluster) if each["name"].startswith("gateway-")]
    return {
        "total": float(load.total),
        "failed": float(load.failed),
        "failed_in_flight_on_killed_worker": float(load.failed_on_killed),
        "rps": load.total / seconds,
        "p50_ms": percentile(load.took, 50),
        "p99_ms": percentile(load.took, 99),
        "max_ms": max(load.took),
        "answers_of_first_revision": float(load.answers[b"one"]),
        "answers_of_second_revision": float(load.answers[b"two"]),
        "instances_after_scale_down": float(len(pods)),
        "worker_restarts": float(sum(each["restarts"] for each in restarted)),
    }


@dataclass
class Load:
    """What the clients do and see."""

    address: tuple[str, int]
    total: int = 0
    failed: int = 0
    failed_on_killed: int = 0
    killed_at: float = float("inf")
    killed_ports: set[int] = field(default_factory=set)
    stopping: bool = False
    answers: Counter[bytes] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def client(self, number: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        turn = number
        while not self.stopping:
            turn += 1
            if connection is not None and connection[0].at_eof():
                connection[1].close()
                connection = None
            if connection is None:
                connection = await asyncio.open_connection(*self.address)
            began = time.monotonic()
            port = connection[1].get_extra_info("sockname")[1]
            self.total += 1
            try:
                keep, problem = await asyncio.wait_for(self._ask(*connection, post=turn % 2 == 0), 30)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                keep, problem = False, repr(error)
            self.took.append((time.monotonic() - began) * 1000)
            if problem:
                self._count_failure(port, problem)
            if not keep:
                connection[1].close()
                connection = None
            await asyncio.sleep(PAUSE)
        if connection is not None:
            connection[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, post: bool) -> tuple[bool, str]:
        """Whether the connection may be used again, and what was wrong."""
        if post:
            writer.write(b"POST /function/steady HTTP/1.1\r\nHost: bench\r\nContent-Length: 5\r\n\r\nhello")
        else:
            writer.write(b"GET /function/steady HTTP/1.1\r\nHost: bench\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        keep = b"connection: close" not in head
        if not head.startswith(b"http/1.1 200 "):
            return keep, f"{head[:40]!r} {body!r}"
        self.answers[body.strip(b'"')] += 1
        return keep, ""

    def _count_failure(self, port: int, problem: str) -> None:
        if port in self.killed_ports and time.monotonic() - self.killed_at < 1.0:
            self.failed_on_killed += 1
        else:
            self.failed += 1
            self.errors.append(problem)


async def patch(cluster: Cluster, change: dict[str, Any]) -> None:
    await asyncio.to_thread(cluster.request, "PATCH", PATH, change, "application/merge-patch+json")


def package(cluster: Cluster, answer: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "handler.py")
        file.write_text(SOURCE.format(answer=answer))
        archive = pack(file)
    cluster.gateway.put_package(archive.digest, archive.data, "default")
    return archive.digest


def live_pods(cluster: Cluster) -> list[dict[str, Any]]:
    return [each for each in cluster.pods() if not each["metadata"].get("deletionTimestamp")]


def await_pods(cluster: Cluster, count: int) -> None:
    limit = time.monotonic() + 30
    while True:
        ready = [
            each
            for each in cluster.pods()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"].get("conditions", ()))
        ]
        if len(ready) >= count:
            return
        if time.monotonic() > limit:
            raise RuntimeError(f"{len(ready)} of {count} instances are ready")
        time.sleep(0.05)


def cluster_status(cluster: Cluster) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = json.loads(cluster.faas("status", "-o", "json"))["components"]
    return found


if __name__ == "__main__":
    main("rollout", arguments("steady load through a rollout, a scale-down and a killed gateway worker"), run)
