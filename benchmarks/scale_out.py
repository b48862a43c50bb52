"""From zero to many instances of one function: how long until all serve, and what an idle one holds in memory."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks.cluster import Cluster, first_byte, pss_mb, start
from benchmarks.harness import arguments, main, note

FUNCTION = "/apis/faaslite.dev/v1/namespaces/default/functions/grown"
REVISION = "/apis/apps/v1/namespaces/default/replicasets/grown-00001"
SOURCE = 'def handle(event, context):\n    return "hello"\n'


def ready(pods: list[dict[str, Any]]) -> int:
    return sum(
        any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in (pod.get("status") or {}).get("conditions", ())
        )
        for pod in pods
    )


def to(cluster: Cluster, count: int, seconds: float) -> float:
    """Seconds from the write of `spec.scale.min` until that many Pods are Ready, as the API says."""
    began = time.perf_counter()
    cluster.request("PATCH", FUNCTION, {"spec": {"scale": {"min": count}}}, "application/merge-patch+json")
    while True:
        status = cluster.request("GET", REVISION)["status"]
        if (status.get("readyReplicas") or 0) >= count:
            return time.perf_counter() - began
        if time.perf_counter() - began > seconds:
            sys.exit(f"{status.get('readyReplicas', 0)} of {count} instances were ready after {seconds:.0f} s")
        time.sleep(0.02)


def measure(count: int, seconds: float) -> tuple[float, float]:
    """On a fresh cluster: (seconds to `count` instances, MB of PSS per idle instance)."""
    with start("--runtime", "process") as cluster:
        cluster.deploy(["grown"], lambda _: SOURCE, {"scale": {"initial": 0, "max": count, "idle": "1s"}})
        reply = first_byte(cluster.address, "/function/grown")
        if reply.status != 200:
            sys.exit(f"grown answered {reply.status}: {reply.body[:300]!r}")
        to_zero(cluster)
        before = pss_mb(cluster.processes())
        took = to(cluster, count, seconds)
        found = ready(cluster.pods())
        if found != count:
            sys.exit(f"{found} Pods are ready, not {count}")
        time.sleep(1.0)
        each = (pss_mb(cluster.processes()) - before) / count
    note(f"{count} instances in {took:.2f} s, {each:.2f} MB each")
    return took, each


def to_zero(cluster: Cluster) -> None:
    """Wait until the instance of the first call was let go."""
    deadline = time.monotonic() + 30
    while cluster.pods():
        if time.monotonic() > deadline:
            sys.exit("the first instance did not go")
        time.sleep(0.05)
    time.sleep(1.0)


def run(options: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    for count in (50,) if options.quick else (50, 100):
        took, each = measure(count, 60)
        found[f"to_{count}.seconds"] = took
        found["idle_pss_mb"] = each
    if options.thousand:
        found["to_1000.seconds"], found["idle_pss_mb"] = measure(1000, 300)
    return found


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--thousand", action="store_true", help="also 1,000 instances")
    sys.exit(main("scale_out", parser, run))
