"""Queued calls while processes are killed: is every accepted call in exactly one record that ends?

A cluster runs; clients post to `/async-function/` over kept connections and note the id of every 202. Meanwhile gateway workers and the
jobs process are killed at random (SIGKILL; the supervisor starts them again). A client whose connection breaks posts again with
the same `X-Call-Id`, as one should. In the end each noted id is looked up: `lost` have no record or one that doesn't end, `doubled` have
more than one record. A share of the calls fails by itself, so that retries and dead letters are part of it. The same with Redis as the queue.
`accepted_per_s` and the latency of an accept are measured over the whole run, kills included.
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

import aiohttp
import uvloop

from benchmarks import cluster as clusters
from benchmarks.harness import arguments, main, note, percentile

SOURCE = """
def handle(request):
    if request.headers.get("x-fail"):
        raise ValueError("told to fail")
    return "done"
"""
FUNCTIONS = 4
CONNECTIONS = 32
FAILING = 0.01
FINISH = 600.0
"""Seconds that the backlog is given to end."""


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
            found = uvloop.run(_Run(cluster, names, count, options.every).run())
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


class _Run:
    def __init__(self, cluster: clusters.Cluster, names: list[str], count: int, every: float) -> None:
        self.cluster, self.names, self.every = cluster, names, every
        self.left = count
        self.accepted: dict[str, bool] = {}
        """By id, whether it was told to fail."""
        self.latencies: list[float] = []
        self.repeats = 0
        self.kills: Counter[str] = Counter()
        self.random = random.Random(4)
        self.url = f"http://{cluster.address[0]}:{cluster.address[1]}"
        self.token = {"Authorization": f"Bearer {cluster.token}"}

    async def run(self) -> dict[str, float]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
            killer = asyncio.create_task(self._kill())
            count, began = self.left, time.perf_counter()
            await asyncio.gather(*(self._client(session) for _ in range(CONNECTIONS)))
            took = time.perf_counter() - began
            note(f"accepted {count} in {took:.1f} s ({self.repeats} repeated), killed {dict(self.kills)}")
            await asyncio.sleep(self.every)  # some kills while the backlog is worked off
            killer.cancel()
            await asyncio.wait([killer])
            drained = time.perf_counter()
            await self._drained(session)
            note(f"all ended {time.perf_counter() - began:.1f} s after the first was accepted")
            found = await self._judge(session)
        return {
            **found,
            "accepted": count,
            "accepted_per_s": count / took,
            "p50_ms": percentile(self.latencies, 50) * 1000,
            "p99_ms": percentile(self.latencies, 99) * 1000,
            "kills": sum(self.kills.values()),
            "repeated": self.repeats,
            "seconds_to_the_last_end": time.perf_counter() - began,
            "drain_s": time.perf_counter() - drained,
        }

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while self.left > 0:
            self.left -= 1
            call, failing = uuid.uuid4().hex, self.random.random() < FAILING
            headers = {"X-Call-Id": call, **({"X-Fail": "1"} if failing else {})}
            url = f"{self.url}/async-function/{self.random.choice(self.names)}"
            began = time.perf_counter()
            while True:
                try:
                    async with session.post(url, data=b"x" * 32, headers=headers) as reply:
                        await reply.read()
                        if reply.status == 202:
                            break
                        if reply.status < 500:
                            raise SystemExit(f"{reply.status} for a call that should be accepted")
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                self.repeats += 1
                await asyncio.sleep(0.02)
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

    async def _get(self, session: aiohttp.ClientSession, path: str) -> Any:
        while True:
            try:
                async with session.get(f"{self.url}{path}", headers=self.token) as reply:
                    if reply.status in (200, 404):
                        return await (reply.json() if "json" in reply.content_type else reply.text())
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.1)

    async def _drained(self, session: aiohttp.ClientSession) -> None:
        until = time.monotonic() + FINISH
        while time.monotonic() < until:
            text = await self._get(session, "/system/metrics/jobs")
            counts = {
                line.split('"')[1]: float(line.rsplit(" ", 1)[1])
                for line in text.splitlines()
                if line.startswith("faaslite_calls{")
            }
            if not counts.get("Queued") and not counts.get("Running"):
                return
            await asyncio.sleep(0.25)

    async def _judge(self, session: aiohttp.ClientSession) -> dict[str, float]:
        seen: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        wrong = attempts = 0
        ids = list(self.accepted)
        gate = asyncio.Semaphore(CONNECTIONS)

        async def look(call: str) -> None:
            nonlocal wrong, attempts
            async with gate:
                record = await self._get(session, f"/system/calls/{call}")
            if "status" not in record:
                return
            seen[record["id"]] += 1
            ends[record["status"]] += 1
            attempts += record["attempts"]
            wrong += (record["status"] == "Succeeded") == self.accepted[call]

        await asyncio.gather(*map(look, ids))
        total = sum((await self._totals(session)).values())
        ended = ends["Succeeded"] + ends["DeadLetter"]
        note(f"ends: {dict(ends)}, {attempts} executions, {total} records in all")
        return {
            "lost": len(ids) - ended,
            "doubled": max(total - len(ids), 0),
            "dead_letters": ends["DeadLetter"],
            "wrong_end": wrong,
            "executions_per_call": attempts / max(len(ids), 1),
        }

    async def _totals(self, session: aiohttp.ClientSession) -> dict[str, float]:
        text = await self._get(session, "/system/metrics/jobs")
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
