"""Queued calls while processes are killed: is every accepted call in exactly one record that ends?

A cluster runs; clients post to `/async-function/` over kept connections and note the id of every 202. Meanwhile gateway workers and the
jobs process are killed at random (SIGKILL; the supervisor starts them again). A client whose connection breaks posts again with
the same `X-Call-Id`, as one should. In the end each noted id is looked up: `lost` have no record or one that doesn't end, `doubled` have
more than one record. A share of the calls fails by itself, so that retries and dead letters are part of it. The same with Redis as the queue.
`accepted_per_s` and the latency of an accept are measured over the whole run, kills included. Before, a tenth of the calls is made in peace:
`calm.accepted_per_s`, `calm.ended_per_s`, and the CPU time that jobs and the gateway workers take for a call, from its acceptance to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import cluster as clusters
from benchmarks.harness import arguments, cpu_seconds, main, note, percentile

SOURCE = """
def handle(request):
    if request.headers.get("x-fail"):
        raise ValueError("told to fail")
    return "done"
"""
FUNCTIONS = 4
CONNECTIONS = 64
FAILING = 0.01
FINISH = 600.0
"""Seconds that the backlog is given to end."""
ANSWER = 30.0
"""Seconds that an answer is waited for."""


def run(options: argparse.Namespace) -> dict[str, float]:
    count = 5_000 if options.quick else options.calls
    results: dict[str, float] = {}
    queues = [each for each in ("embedded", "redis") if options.queue in ("both", each)]
    for queue in queues:
        if queue == "redis" and shutil.which("redis-server") is None:
            note("redis-server is not installed: only the embedded queue is measured")
            continue
        with ExitStack() as stack:
            flags = ["--runtime", "process", "--workers", str(options.workers)]
            if queue == "redis":
                flags += ["--redis", stack.enter_context(_Redis())]
            cluster = stack.enter_context(clusters.start(*flags))
            names = [f"worker-{number}" for number in range(FUNCTIONS)]
            spec = {
                "runtime": "python",
                "concurrency": 50,
                "scale": {"min": 1, "max": 2},
                "async": {"retries": 1, "maxAge": "1h"},
            }
            cluster.deploy(names, lambda name: SOURCE, spec)
            note(f"{queue}: {count} calls, processes are killed every {options.every:g} s")
            found = uvloop.run(_both(cluster, names, count, options.every))
        results |= {f"{queue}.{name}": value for name, value in found.items()}
    return results


class _Redis:
    """A redis-server with an append-only file that is flushed each time, as the embedded queue is."""

    def __enter__(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="faas-bench-redis-")
        path = Path(self._folder.name, "redis.sock")
        self._process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", self._folder.name, "--save", "", "--appendonly", "yes",
             "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 10
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return f"unix://{path}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class _Connection(asyncio.Protocol):
    """A kept connection for one request at a time: a client that takes little of the machine that it measures."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._buffer = self._buffer + data
        head, found, body = data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length and self._answer is not None and not self._answer.done():
            self._buffer = b""
            if b"\r\nconnection: close" in head.lower():
                self.close()
            self._answer.set_result((int(data[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection broke"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError, TimeoutError."""
        if self.transport is None:
            raise ConnectionResetError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(ANSWER):
            return await self._answer

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


class _Client:
    """Asks again over a new connection for as long as it gets no answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: _Connection | None = None
        self.repeats = 0

    async def ask(self, request: bytes, *statuses: int) -> tuple[int, bytes]:
        """An answer with one of these statuses."""
        while True:
            try:
                if self._connection is None:
                    loop = asyncio.get_running_loop()
                    _, self._connection = await loop.create_connection(_Connection, *self._address)
                status, body = await self._connection.ask(request)
                if status in statuses:
                    return status, body
                if status < 500:
                    raise SystemExit(f"{status} for a request that should be taken: {body[:200]!r}")
            except (TimeoutError, OSError):
                self.close()
            self.repeats += 1
            await asyncio.sleep(0.02)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _both(cluster: clusters.Cluster, names: list[str], count: int, every: float) -> dict[str, float]:
    calm = await _Run(cluster, names, max(count // 10, 1000), 0.0).run()
    found = await _Run(cluster, names, count, every).run()
    kept = (
        "accepted_per_s",
        "ended_per_s",
        "p50_ms",
        "p99_ms",
        "jobs_cpu_us_per_call",
        "gateway_cpu_us_per_call",
        "lost",
    )
    return found | {f"calm.{name}": calm[name] for name in kept}


class _Run:
    """`every` 0: nothing is killed, and CPU time is measured."""

    def __init__(self, cluster: clusters.Cluster, names: list[str], count: int, every: float) -> None:
        self.cluster, self.names, self.every = cluster, names, every
        self.left = count
        self.accepted: dict[str, bool] = {}
        """By id, whether it was told to fail."""
        self.latencies: list[float] = []
        self.kills: Counter[str] = Counter()
        self.random = random.Random(4)
        self.clients = [_Client(cluster.address) for _ in range(CONNECTIONS)]
        self.token = cluster.token

    async def run(self) -> dict[str, float]:
        killer = asyncio.create_task(self._kill()) if self.every else None
        before = await self._total()
        cpu, count, began = self._cpu(), self.left, time.perf_counter()
        await asyncio.gather(*map(self._post, self.clients))
        took = time.perf_counter() - began
        repeats = sum(each.repeats for each in self.clients)
        note(f"accepted {count} in {took:.1f} s ({repeats} repeated), killed {dict(self.kills)}")
        if killer is not None:
            await asyncio.sleep(self.every)  # some kills while the backlog is worked off
            killer.cancel()
            await asyncio.wait([killer])
        drained = time.perf_counter()
        await self._drained()
        ended, used = time.perf_counter() - began, self._cpu()
        note(f"all ended {ended:.1f} s after the first was accepted")
        found = await self._judge(before)
        for each in self.clients:
            each.close()
        return {
            **found,
            "accepted": count,
            "accepted_per_s": count / took,
            "ended_per_s": count / ended,
            "p50_ms": percentile(self.latencies, 50) * 1000,
            "p99_ms": percentile(self.latencies, 99) * 1000,
            "kills": sum(self.kills.values()),
            "repeated": repeats,
            "seconds_to_the_last_end": ended,
            "drain_s": began + ended - drained,
            **(
                {f"{name}_cpu_us_per_call": (used[name] - cpu[name]) / count * 1e6 for name in cpu}
                if not self.every
                else {}
            ),
        }

    def _cpu(self) -> dict[str, float]:
        if self.every:
            return {}
        processes = self.cluster.components
        return {
            name: cpu_seconds(pid for each, pid in processes.items() if each.startswith(name))
            for name in ("jobs", "gateway")
        }

    async def _post(self, client: _Client) -> None:
        while self.left > 0:
            self.left -= 1
            call, failing = uuid.uuid4().hex, self.random.random() < FAILING
            fail = "X-Fail: 1\r\n" if failing else ""
            head = f"POST /async-function/{self.random.choice(self.names)} HTTP/1.1\r\nHost: gateway\r\nX-Call-Id: {call}\r\n{fail}"
            began = time.perf_counter()
            await client.ask(f"{head}Content-Length: 32\r\n\r\n{'x' * 32}".encode(), 202)
            self.latencies.append(time.perf_counter() - began)
            self.accepted[call] = failing

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self.every * (0.5 + self.random.random()))
            status = json.loads(await asyncio.to_thread(self.cluster.faas, "status", "-o", "json"))
            found = [
                each for each in status["components"] if each["pid"] and each["name"].startswith(("gateway", "jobs"))
            ]
            victim = self.random.choice(found)
            try:
                os.kill(victim["pid"], signal.SIGKILL)
                self.kills[victim["name"].split("-")[0]] += 1
            except ProcessLookupError:
                continue

    async def _get(self, client: _Client, path: str) -> bytes:
        head = f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        return (await client.ask(head.encode(), 200, 404))[1]

    async def _drained(self) -> None:
        until = time.monotonic() + FINISH
        while time.monotonic() < until:
            counts = await self._counts()
            if not counts.get("Queued") and not counts.get("Running"):
                return
            await asyncio.sleep(0.25)

    async def _judge(self, before: float) -> dict[str, float]:
        seen: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        wrong = attempts = 0
        left = list(self.accepted)

        async def look(client: _Client) -> None:
            nonlocal wrong, attempts
            while left:
                call = left.pop()
                record = json.loads(await self._get(client, f"/system/calls/{call}"))
                if "status" not in record:
                    continue
                seen[record["id"]] += 1
                ends[record["status"]] += 1
                attempts += record["attempts"]
                wrong += (record["status"] == "Succeeded") == self.accepted[call]

        await asyncio.gather(*map(look, self.clients))
        total, count = await self._total() - before, len(self.accepted)
        note(f"ends: {dict(ends)}, {attempts} executions, {total:g} records in all")
        return {
            "lost": count - ends["Succeeded"] - ends["DeadLetter"],
            "doubled": max(total - count, 0),
            "dead_letters": ends["DeadLetter"],
            "wrong_end": wrong,
            "executions_per_call": attempts / max(count, 1),
        }

    async def _total(self) -> float:
        return sum((await self._counts()).values())

    async def _counts(self) -> dict[str, float]:
        text = (await self._get(self.clients[0], "/system/metrics/jobs")).decode()
        return {
            line.split('"')[1]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith("faaslite_calls{")
        }


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--calls", type=int, default=100_000, help="how many are accepted")
    parser.add_argument("--queue", choices=("both", "embedded", "redis"), default="both")
    parser.add_argument("--workers", type=int, default=2, help="gateway workers")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills, on average")
    main("async_calls", parser, run)
