"""A thousand cron triggers in the same second, some of those seconds with a process killed (SIGKILL).

`p99_lateness_ms` is from an instant to the beginning of its call's first execution (`startedAt` of its first try): by then it is durably
recorded and leased, and its request is handed to the network. `p99_arrival_ms` is from the instant to the moment when the function's handler has the call: after the way through jobs, gateway and instance, all of
which share the machine's cores with nine hundred others. Both are of the undisturbed seconds; `killed.…` are of those in which the gateway or jobs
was killed. `missed` and `doubled` count (trigger, instant) pairs without a call that ran, and with more than one record, over all seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections import defaultdict
from typing import Any

from benchmarks import cluster as clusters
from benchmarks.harness import arguments, main, note, percentile
from core.clock import parse_time

SOURCE = """
import time

def handle(request):
    return repr(time.time())
"""
TRIGGERS = 1000
FUNCTIONS = 10
SETTLE = 90.0
"""Seconds that the last calls are given to end."""


def run(options: argparse.Namespace) -> dict[str, float]:
    period = options.period
    seconds = 3 if options.quick else options.seconds
    each = options.triggers // FUNCTIONS
    with clusters.start(
        "--runtime",
        "process",
        "--workers",
        str(options.workers),
        *(["--redis", options.redis] if options.redis else []),
    ) as cluster:
        names = [f"tick-{number}" for number in range(FUNCTIONS)]
        cron = [{"name": f"t{number}", "schedule": f"@every {period}s", "overlap": "Allow"} for number in range(each)]
        spec = {"runtime": "python", "concurrency": 200, "scale": {"min": 1, "max": 1, "idle": "1h"}, "cron": cron}
        cluster.deploy(names, lambda name: SOURCE, spec)
        note(f"{FUNCTIONS} functions with {each} triggers each, every {period} s")
        first = (time.time() + 3 + period) // period * period
        instants = [first + period * number for number in range(seconds)]
        # The last two of them are disturbed: first the gateway is killed, then jobs, some milliseconds after the instant.
        victims = dict(zip(instants[-2:], ("gateway-1", "jobs"), strict=True))
        for instant in instants:
            time.sleep(max(instant + 0.03 - time.time(), 0))
            if victim := victims.get(instant):
                _kill(cluster, victim)
                note(f"killed {victim} {1000 * (time.time() - instant):.0f} ms after the instant")
        time.sleep(period / 2)
        records = _records(cluster, names, set(instants))
    return _judge(records, names, each, instants, victims)


def _kill(cluster: clusters.Cluster, name: str) -> None:
    os.kill(cluster.components[name], signal.SIGKILL)


def _records(cluster: clusters.Cluster, names: list[str], instants: set[float]) -> list[dict[str, Any]]:
    """Of these instants, once all have ended."""
    until = time.monotonic() + SETTLE
    while True:
        found = []
        for name in names:
            with cluster.gateway.request(
                "GET",
                f"/system/calls?namespace=default&function={name}&trigger=cron&limit=1000",
                headers={"Authorization": f"Bearer {cluster.token}"},
            ) as reply:
                items = json.loads(reply.read()).get("items") or []
            found += [each for each in items if parse_time(each["scheduledAt"]) in instants]
        ended = [each for each in found if each["finishedAt"]]
        if len(ended) == len(found) or time.monotonic() > until:
            note(f"{len(found)} records, {len(ended)} ended")
            return found
        time.sleep(0.5)


def _judge(
    records: list[dict[str, Any]], names: list[str], each: int, instants: list[float], victims: dict[float, str]
) -> dict[str, float]:
    by_key: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    started: dict[bool, list[float]] = {True: [], False: []}
    arrived: dict[bool, list[float]] = {True: [], False: []}
    begun: dict[float, list[float]] = defaultdict(list)
    for record in records:
        instant = parse_time(record["scheduledAt"])
        by_key[record["function"], record["cron"], instant].append(record)
        if record["status"] == "Succeeded":
            disturbed = instant in victims
            begins = [parse_time(each["startedAt"]) for each in record["tries"] if each["startedAt"]]
            started[disturbed].append(min(begins) - instant)
            begun[instant].append(min(begins))
            arrived[disturbed].append(float(record["result"]["body"].strip('"')) - instant)
    for instant in instants:
        late = [1000 * (at - instant) for at in begun[instant]]
        note(
            f"{instant - instants[0]:+.0f} s{' (killed ' + victims[instant] + ')' if instant in victims else ''}: "
            f"{len(late)} began, p50 {percentile(late, 50):.1f} ms late, p99 {percentile(late, 99):.1f}, the last {max(late, default=0):.1f}"
        )
    wanted = [(name, f"t{number}", instant) for name in names for number in range(each) for instant in instants]
    missed = sum(not any(r["status"] == "Succeeded" for r in by_key[key]) for key in wanted)
    return {
        "p50_lateness_ms": percentile(started[False], 50) * 1000,
        "p99_lateness_ms": percentile(started[False], 99) * 1000,
        "max_lateness_ms": max(started[False], default=float("nan")) * 1000,
        "p50_arrival_ms": percentile(arrived[False], 50) * 1000,
        "p99_arrival_ms": percentile(arrived[False], 99) * 1000,
        "killed.p99_lateness_ms": percentile(started[True], 99) * 1000,
        "killed.p99_arrival_ms": percentile(arrived[True], 99) * 1000,
        "missed": missed,
        "doubled": sum(len(found) > 1 for found in by_key.values()),
        "fired": len(records),
        "attempts": sum(record["attempts"] for record in records),
    }


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--triggers", type=int, default=TRIGGERS)
    parser.add_argument(
        "--seconds", type=int, default=8, help="how many of those seconds; in the last two a process is killed"
    )
    parser.add_argument("--period", type=int, default=10, help="seconds between two of them")
    parser.add_argument("--workers", type=int, default=1, help="gateway workers")
    parser.add_argument("--redis", default="", help="the URL of a Redis as the queue")
    main("cron", parser, run)
