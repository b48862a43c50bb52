"""A trace of real life's shape, replayed: how many calls meet no instance, how long calls take, what idle instances cost in memory.

    python -m benchmarks.trace [--quick] [--csv FILE] [--seed N] [--functions N] [--minutes N] [--second-per-minute S]

A trace is a CSV in the format of the Azure Functions dataset (Shahrad et al., USENIX ATC 2020): a row per function, the columns `HashOwner,
HashApp,HashFunction,Trigger` and then one per minute, `1`, `2` and so on, with the invocations in that minute. Without `--csv` a small one is made by a seed:
most functions are called seldom, a few often, some by the clock, some in bursts. A minute of the trace takes `--second-per-minute` seconds; instances are
kept idle for ten of its minutes, as that dataset's keep-alive was.

`cold_share` is the share of calls that found no instance (`faaslite_function_cold_starts_total` of the gateway), `waited_share` that of calls that waited, be it for an
instance or for a slot of one. `idle_mb_seconds` is the memory (PSS of what runs below the sandboxers, over that without instances) times the share of their lives in which
instances were at work on nothing: each reply says which instance had the call from when to when, and what overlaps counts once. Instances and memory are sampled each second.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from benchmarks.cluster import Cluster, pss_mb, start
from benchmarks.harness import arguments, main, note, percentile

KEEP_MINUTES = 10
WORK = 0.02
PATIENCE = 120.0
"""Seconds until a call that isn't answered has failed."""
SOURCE = """
import asyncio, os, time

INSTANCE = os.urandom(8).hex()

async def handle(event, context):
    began = time.monotonic()
    await asyncio.sleep({work})
    return f"{name} {{INSTANCE}} {{began!r}} {{time.monotonic()!r}}"
"""
_WAITED = re.compile(rb"\r\nx-faaslite-cold-start: (\d+)", re.IGNORECASE)
_COLD = re.compile(r"^faaslite_function_cold_starts_total\{.*\} (\d+)$", re.MULTILINE)
_PHASE = re.compile(r'^faaslite_function_cold_start_seconds_(sum|count)\{.*phase="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass
class Seen:
    """What the replay measured; times in ms."""

    took: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    at_work: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By instance: from when to when it had each of its calls, in seconds of the machine's monotonic clock."""
    cold: int = 0
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of starts from zero, by the gateway's metrics: seconds in all, and how many."""
    failed: int = 0
    late: float = 0.0
    instance_seconds: float = 0.0
    mb_seconds: float = 0.0


def run(options: argparse.Namespace) -> dict[str, float]:
    functions = options.functions or (10 if options.quick else 30)
    minutes = options.minutes or (20 if options.quick else 60)
    scale = options.second_per_minute
    if options.csv:
        with options.csv.open(newline="") as file:
            rows = read(file, functions, minutes)
    else:
        rows = synthetic(Random(options.seed), functions, minutes)
    calls = schedule(rows, Random(options.seed), scale)
    note(f"{len(calls)} calls of {len(rows)} functions in {minutes * scale:.0f} s")
    with start("--runtime", "process") as cluster:
        names = [f"trace-{number}" for number in range(len(rows))]
        idle = f"{KEEP_MINUTES * scale:g}s"
        spec = {"concurrency": 4, "scale": {"min": 0, "initial": 0, "max": 20, "idle": idle, "window": "6s"}}
        cluster.deploy(names, lambda name: SOURCE.format(work=WORK, name=name), spec)
        seen = asyncio.run(replay(cluster, calls, minutes * scale))
    total = len(calls)
    busy = sum(map(covered, seen.at_work.values()))
    idle_share = max(1 - busy / seen.instance_seconds, 0.0) if seen.instance_seconds else 0.0
    return {
        "calls": float(total),
        "functions": float(len(rows)),
        "failed": float(seen.failed),
        "cold_share": seen.cold / total if total else math.nan,
        "starts_from_zero": max((count for _, count in seen.phases.values()), default=0.0),
        **{
            f"{phase}_mean_ms": seconds / count * 1000 if count else math.nan
            for phase, (seconds, count) in seen.phases.items()
        },
        "waited_share": len(seen.waited) / total if total else math.nan,
        "waited_p50_ms": percentile(seen.waited, 50),
        "waited_p99_ms": percentile(seen.waited, 99),
        "p50_ms": percentile(seen.took, 50),
        "p95_ms": percentile(seen.took, 95),
        "p99_ms": percentile(seen.took, 99),
        "sent_late_max_ms": seen.late * 1000,
        "instances": float(len(seen.at_work)),
        "instance_seconds": seen.instance_seconds,
        "idle_instance_seconds": seen.instance_seconds * idle_share,
        "idle_mb_seconds": seen.mb_seconds * idle_share,
    }


def phases(metrics: str) -> dict[str, tuple[float, float]]:
    """Of all functions' starts from zero: phase -> (seconds, count)."""
    found: dict[str, dict[str, float]] = defaultdict(Counter)
    for kind, phase, value in _PHASE.findall(metrics):
        found[phase][kind] += float(value)
    return {phase: (each["sum"], each["count"]) for phase, each in found.items()}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in at least one of these spans."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total


def read(lines: Iterable[str], functions: int, minutes: int) -> list[list[int]]:
    """The first functions of a trace that are called in its first minutes: counts per minute."""
    found = []
    for row in csv.DictReader(lines):
        counts = [int(row.get(str(minute)) or 0) for minute in range(1, minutes + 1)]
        if any(counts):
            found.append(counts)
        if len(found) == functions:
            break
    return found


def synthetic(random: Random, functions: int, minutes: int) -> list[list[int]]:
    """Counts per minute: of ten functions five seldom, two by the clock, two in bursts, one often."""
    rows = []
    for number in range(functions):
        kind = number % 10
        if kind < 5:
            row = [int(random.random() < 0.08) for _ in range(minutes)]
        elif kind < 7:
            period, phase = random.choice((5, 15)), random.randrange(5)
            row = [int(minute % period == phase) for minute in range(minutes)]
        elif kind < 9:
            row = [random.randint(10, 60) if random.random() < 0.1 else 0 for _ in range(minutes)]
        else:
            row = [random.randint(20, 80) for _ in range(minutes)]
        if not any(row):
            row[random.randrange(minutes)] = 1
        rows.append(row)
    return rows


def schedule(rows: list[list[int]], random: Random, scale: float) -> list[tuple[float, int]]:
    """(seconds from the beginning, function), in order. Calls of a minute are spread over it."""
    return sorted(
        ((minute + random.random()) * scale, number)
        for number, row in enumerate(rows)
        for minute, count in enumerate(row)
        for _ in range(count)
    )


async def replay(cluster: Cluster, calls: list[tuple[float, int]], seconds: float) -> Seen:
    seen = Seen()
    baseline = pss_mb(instances(cluster))
    watcher = asyncio.create_task(watch(cluster, seen, baseline))
    began = time.monotonic()
    tasks = set()
    for due, number in calls:
        left = began + due - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        else:
            seen.late = max(seen.late, -left)
        tasks.add(asyncio.create_task(call(cluster.address, f"trace-{number}", seen)))
    await asyncio.gather(*tasks)
    await asyncio.sleep(max(began + seconds - time.monotonic(), 0))
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    metrics = (await ask(cluster.address, "/metrics")).decode()
    seen.cold, seen.phases = sum(map(int, _COLD.findall(metrics))), phases(metrics)
    return seen


async def ask(address: tuple[str, int], path: str) -> bytes:
    """The whole answer to a GET over a connection of its own, b"" where there was none."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


async def call(address: tuple[str, int], name: str, seen: Seen) -> None:
    began = time.monotonic()
    answer = await ask(address, f"/function/{name}")
    took = (time.monotonic() - began) * 1000
    head, _, body = answer.partition(b"\r\n\r\n")
    said = body.decode("latin-1").strip('"').split(" ")
    if not head.startswith(b"HTTP/1.1 200 ") or said[0] != name or len(said) != 4:
        seen.failed += 1
        note(f"{name}: {answer[:200]!r}")
        return
    seen.took.append(took)
    seen.at_work[said[1]].append((float(said[2]), float(said[3])))
    if _WAITED.search(head):
        seen.waited.append(took)


def instances(cluster: Cluster) -> list[psutil.Process]:
    """All that runs below the sandboxers: instances, and what waits to become one."""
    found: list[psutil.Process] = []
    for name, pid in cluster.components.items():
        if name.startswith("sandboxer"):
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(pid).children(recursive=True)
    return found


async def watch(cluster: Cluster, seen: Seen, baseline: float) -> None:
    """Sums up instances and their memory over time."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(1)
        pods, memory = await asyncio.gather(
            asyncio.to_thread(cluster.pods), asyncio.to_thread(lambda: pss_mb(instances(cluster)))
        )
        now = time.monotonic()
        alive = sum(each["status"].get("phase") == "Running" for each in pods)
        seen.instance_seconds += alive * (now - last)
        seen.mb_seconds += max(memory - baseline, 0.0) * (now - last)
        last = now


if __name__ == "__main__":
    parser = arguments("a trace of invocations, replayed")
    parser.add_argument("--csv", type=Path, help="a trace in the format of the Azure Functions dataset")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic trace, and of the times within minutes")
    parser.add_argument("--functions", type=int, default=0, help="how many of the trace's functions")
    parser.add_argument("--minutes", type=int, default=0, help="how many of its minutes")
    parser.add_argument("--second-per-minute", type=float, default=1.0, help="how long a minute of the trace takes")
    main("trace", parser, run)
