"""What every benchmark shares: arguments, the machine's description, wrk, CPU time of processes, percentiles, one JSON line.

A benchmark is a command. It says what it does on standard error and prints one JSON object as its last line of standard output:
`{"benchmark": NAME, "machine": {...}, "results": {NAME: NUMBER, ...}}`. With `--quick` it ends within 50 s.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "arguments", "cpu_seconds", "fsync_p50_ms", "machine", "main", "need", "note", "percentile", "wrk"]

_TICKS = os.sysconf("SC_CLK_TCK")


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what all benchmarks take; add more and give it to `main`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="shorter runs, less exact; under 50 s in all")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    return parser


def main(name: str, parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], dict[str, float]]) -> None:
    """Parse, run, print. `run` returns flat names and numbers."""
    options = parser.parse_args()
    began = time.monotonic()
    results = run(options)
    document = {
        "benchmark": name,
        "quick": options.quick,
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine(),
        "results": {key: _rounded(value) for key, value in results.items()},
    }
    text = json.dumps(document)
    if options.output:
        options.output.write_text(text + "\n")
    print(text)


def note(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def need(program: str) -> str:
    """The path of a program that the benchmark can't do without; ends the command where it is missing."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        sys.exit(f"this benchmark needs {program}, which is not installed")
    return found


def machine() -> dict[str, object]:
    """Where the figures come from."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "fsync_p50_ms": round(fsync_p50_ms(), 3),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def fsync_p50_ms(count: int = 50) -> float:
    """Median milliseconds of an fsync after appending 4 KiB to a file in the temp folder."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(count):
            os.write(file.fileno(), b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return percentile(taken, 50)


def percentile(values: Iterable[float], percent: float) -> float:
    """Nearest rank; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes have used so far (threads included, ended children not)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; latencies in microseconds, `cpu_us` the watched processes' CPU time per request."""

    rps: float
    requests: int
    errors: int
    p50_us: float
    p99_us: float
    cpu_us: float


def wrk(
    url: str,
    *,
    seconds: float,
    connections: int,
    threads: int = 1,
    watch: Sequence[int] = (),
    script: Path | None = None,
) -> Load:
    """Load `url`, and sample the CPU time of the processes `watch` over the run. `script` is Lua that makes the requests."""
    command = [
        need("wrk"),
        "-t",
        str(threads),
        "-c",
        str(connections),
        "-d",
        f"{max(round(seconds), 1)}s",
        "--latency",
        *(("-s", str(script)) if script else ()),
        url,
    ]
    before = cpu_seconds(watch)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = cpu_seconds(watch) - before
    text = done.stdout
    requests = int(_found(r"(\d+) requests in", text))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    return Load(
        rps=float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        requests=requests,
        errors=errors,
        p50_us=_microseconds(_found(r"^ +50% +(\S+)$", text)),
        p99_us=_microseconds(_found(r"^ +99% +(\S+)$", text)),
        cpu_us=used / requests * 1e6 if requests else math.nan,
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"wrk said nothing like {pattern!r}:\n{text}")
    return match[1]


def _microseconds(text: str) -> float:
    for unit, factor in (("us", 1.0), ("ms", 1e3), ("m", 60e6), ("s", 1e6)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    match = re.search(r"model name\s*:\s*(.+)", text)
    return match[1] if match else ""


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
