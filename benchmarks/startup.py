"""How long `faas up` takes until everything is ready, what the idle platform holds in memory, how fast the command answers."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.cluster import FAAS, pss_mb, start
from benchmarks.harness import arguments, fsync_p50_ms, main, note, percentile


def run(options: argparse.Namespace) -> dict[str, float]:
    rounds = 3 if options.quick else 7
    ups, memory, parts = [], [], {}
    for number in range(rounds):
        with start("--runtime", "process") as cluster:
            ups.append(cluster.up_seconds)
            time.sleep(2.0)  # let the first second's work settle: idle is what is measured
            memory.append(pss_mb(cluster.processes()))
            import psutil

            parts = {name: pss_mb([psutil.Process(pid)]) for name, pid in cluster.components.items()}
        note(f"{number + 1}/{rounds}: up in {ups[-1]:.2f} s, {memory[-1]:.0f} MB")
    helps = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([FAAS, "--help"], capture_output=True, check=True)
        helps.append((time.perf_counter() - began) * 1000)
    return {
        "up_seconds": percentile(ups, 50),
        "up_seconds_max": max(ups),
        "platform_pss_mb": percentile(memory, 50),
        **{f"pss_mb.{name}": value for name, value in parts.items()},
        "cli_help_ms": percentile(helps, 50),
        "fsync_p50_ms": fsync_p50_ms(),
    }


if __name__ == "__main__":
    sys.exit(main("startup", arguments(__doc__ or ""), run))
