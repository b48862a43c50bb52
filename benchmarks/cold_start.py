"""Cold starts through the gateway: the time to the first byte of functions that were never called before.

Each function has code of its own, of which nothing is loaded before its one call. The namespace has been used before by another function, as
that of a team has; that function is called once to begin with.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cluster import Cluster, Reply, first_byte, start
from benchmarks.harness import arguments, main, note, percentile
from benchmarks.phases import CHAIN, Call, breakdown, read
from faaslite.build.layer import build_layer

GAP = 0.05
"""Seconds between calls: they are to be separate events."""
HELLO = 'NAME = "{name}"\n\n\ndef handle(event, context):\n    return "hello " + NAME\n'
NUMPY = (
    'import numpy\n\nNAME = "{name}"\n\n\ndef handle(event, context):\n    return str(numpy.arange(10).sum()) + NAME\n'
)
LARGE = HELLO + "".join(
    f"""

def part_{number}(first, second=1, *rest, **named):
    if first > second:
        return [each * {number} for each in rest if each is not None]
    try:
        return dict(first=first, second=second, **named)
    except TypeError as error:
        raise ValueError(f"part {number}: {{error}}") from error
"""
    for number in range(50)
)
"""A function of 450 lines: what its first import takes is no small part of its start."""
DOCKER_GAP = 1.0
"""As GAP, on Docker nodes: another container has been made by then, so that what is measured is a pool that holds one."""
SPEC = {"scale": {"initial": 0, "min": 0, "max": 4, "idle": "2s"}, "timeout": "30s"}


def measure(
    cluster: Cluster, kind: str, source: str, count: int, layer: object = None, gap: float = GAP
) -> dict[str, float]:
    names = [f"{kind.replace('.', '-')}-{number}" for number in range(count + 1)]
    cluster.deploy(names, lambda name: source.replace("{name}", name), SPEC, layer)  # type: ignore[arg-type]
    first = first_byte(cluster.address, f"/function/{names[0]}")
    if first.status != 200:
        sys.exit(f"{names[0]} answered {first.status}: {first.body[:500]!r}")
    time.sleep(max(1.0, 3 * gap))
    replies: list[Reply] = []
    for name in names[1:]:
        reply = first_byte(cluster.address, f"/function/{name}")
        if reply.status != 200 or name.encode() not in reply.body:
            sys.exit(f"{name} answered {reply.status}: {reply.body[:500]!r}")
        if math.isnan(reply.waited_ms):
            sys.exit(f"{name} did not wait for an instance: that was no cold start")
        replies.append(reply)
        time.sleep(gap)
    took = [each.first_byte_ms for each in replies]
    waited = [each.waited_ms for each in replies]
    found = {
        f"{kind}.p50_ms": percentile(took, 50),
        f"{kind}.p90_ms": percentile(took, 90),
        f"{kind}.p99_ms": percentile(took, 99),
        f"{kind}.waited_p50_ms": percentile(waited, 50),
        f"{kind}.first_in_namespace_ms": first.first_byte_ms,
        f"{kind}.calls": float(count),
    }
    if cluster.trace.is_dir():
        found |= explain(cluster, kind, names[1:], replies)
    note(f"{kind}: p50 {found[f'{kind}.p50_ms']:.1f} ms, p99 {found[f'{kind}.p99_ms']:.1f} ms over {count} functions")
    return found


def explain(cluster: Cluster, kind: str, names: list[str], replies: list[Reply]) -> dict[str, float]:
    """Print what each phase took; their means add up to that of the whole."""
    calls = [Call(f"default/{name}-00001", reply.began, reply.done) for name, reply in zip(names, replies, strict=True)]
    found = breakdown(calls, read(cluster.trace))
    note(f"{kind}, phases in ms:    mean     p50     p99")
    for event, what in CHAIN:
        note(f"  {found[event][0]:18.2f} {found[event][1]:7.2f} {found[event][2]:7.2f}  {what}")
    whole = sum(each.first_byte_ms for each in replies) / len(replies)
    note(
        f"  {sum(each[0] for each in found.values()):18.2f}                  sum of the means; the mean of the whole is {whole:.2f}"
    )
    return {f"{kind}.phase.{event}_p50_ms": value[1] for event, value in found.items()}


def run(options: argparse.Namespace) -> dict[str, float]:
    count = 30 if options.quick else 100
    found: dict[str, float] = {}
    with start("--runtime", "process", trace=options.phases) as cluster:
        found |= measure(cluster, "process.hello", HELLO, count)
        found |= measure(cluster, "process.large", LARGE, count)
        if not options.no_numpy:
            with tempfile.TemporaryDirectory() as cache:
                layer = build_layer("numpy", Path(cache), note)
                found |= measure(cluster, "process.numpy", NUMPY, count, layer)
    if options.no_docker:
        return found
    if docker_serves():
        count = 5 if options.quick else 20
        with start("--runtime", "docker") as cluster:
            found |= measure(cluster, "docker.hello", HELLO, count, gap=DOCKER_GAP)
            found["docker.hello.pool_hits"] = float(count - missed(cluster, "docker-hello"))
        with start("--runtime", "docker", "--warm", "0") as cluster:
            found |= measure(cluster, "docker.plain", HELLO, count)
    else:
        note("no Docker engine with the image faaslite/python: docker.hello is left out")
    return found


def missed(cluster: Cluster, prefix: str) -> int:
    """How many Pods were not given a container that was started before them, the first function's left out."""
    events = cluster.request("GET", "/api/v1/namespaces/default/events")["items"]
    pods = {each["involvedObject"]["name"] for each in events if each["reason"] == "NotAdopted"}
    return sum(each.startswith(f"{prefix}-") and not each.startswith(f"{prefix}-0-") for each in pods)


def docker_serves() -> bool:
    """Whether an engine answers that has the runtime's image."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(where)
            probe.sendall(b"GET /images/faaslite/python/json HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in probe.recv(64)
        except OSError:
            return False


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--phases", action="store_true", help="trace, and say what each phase took (costs a little)")
    parser.add_argument("--no-docker", action="store_true", help="leave out what needs a Docker engine")
    parser.add_argument("--no-numpy", action="store_true", help="leave out what needs numpy from PyPI")
    sys.exit(main("cold_start", parser, run))
