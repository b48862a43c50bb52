"""The Python shim alone: requests per second of one instance, for a handler that returns a small dict, and what each costs in CPU time.

The shim and wrk share the machine; `cpu_us` is the CPU time per request of the shim's process, so `rps_per_core` is what it would serve
with a core of its own. `rps` is what was counted. The handler is synchronous, as most are (`rps`), and async (`async.rps`).
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httptools

from benchmarks.harness import arguments, main, need, note, wrk

ROOT = Path(__file__).resolve().parents[1]
SYNC = 'def handle(event, context):\n    return {"hello": "world", "n": 1}\n'
ASYNC = f"async {SYNC}"


@contextmanager
def shim(source: str) -> Iterator[tuple[str, int]]:
    """A shim that serves `source`: its URL and process id."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        Path(folder, "app.py").write_text(source)
        ready, announce = os.pipe()
        env = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT / "runtime-images" / "python"),
            "FAASLITE_SHIM_LIBRARIES": str(Path(httptools.__file__).parent.parent),
            "FAASLITE_HANDLER": "app:handle",
            "FAASLITE_PACKAGE": folder,
            "FAASLITE_TIMEOUT": "30",
            "FAASLITE_CONCURRENCY": "64",
            "FAASLITE_READY_FD": str(announce),
            "LISTEN_FDS": "1",
            "TMPDIR": folder,
        }
        command = [sys.executable, "-P", "-S", "-m", "faaslite_shim"]
        # The protocol has the listener at descriptor 3, wherever it is here.
        moved = ["sh", "-c", 'exec 3<&"$1"; shift; exec "$@"', "sh", str(listener.fileno()), *command]
        process = subprocess.Popen(moved, env=env, pass_fds=[listener.fileno(), announce])
        os.close(announce)
        try:
            readable, _, _ = select.select([ready], [], [], 20)
            if not readable or os.read(ready, 1) != b"R":
                sys.exit("the shim did not become ready")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", process.pid
        finally:
            os.close(ready)
            process.terminate()
            process.wait()


def run(options: argparse.Namespace) -> dict[str, float]:
    need("wrk")
    seconds, rounds = (2.0, 2) if options.quick else (5.0, 3)
    found: dict[str, float] = {}
    for prefix, source in (("", SYNC), ("async.", ASYNC)):
        with shim(source) as (url, pid):
            wrk(url, seconds=1, connections=16)
            loads = [wrk(url, seconds=seconds, connections=16, watch=[pid]) for _ in range(rounds)]
        if any(each.errors for each in loads):
            sys.exit("some requests failed")
        cpu = median(each.cpu_us for each in loads)
        found |= {
            f"{prefix}rps": median(each.rps for each in loads),
            f"{prefix}cpu_us": cpu,
            f"{prefix}rps_per_core": 1e6 / cpu,
            f"{prefix}p50_us": median(each.p50_us for each in loads),
            f"{prefix}p99_us": median(each.p99_us for each in loads),
        }
        note(f"{prefix or 'sync.'} {found[f'{prefix}rps']:.0f}/s, {cpu:.0f} us of CPU each")
    return found


if __name__ == "__main__":
    sys.exit(main("shim", arguments(__doc__ or ""), run))
