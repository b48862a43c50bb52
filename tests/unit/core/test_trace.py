"""The trace: lines of every process, also of those that were forked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import os
from core import trace
if trace.ON:
    trace.mark("born", "default/a")
    if os.fork() == 0:
        trace.mark("born", "default/b")
        os._exit(0)
    os.wait()
    trace.mark("ended", "default/a")
"""


def run(**environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "FAASLITE_TRACE_DIR"}
    subprocess.run([sys.executable, "-c", PROGRAM], env={**kept, **environment}, check=True)


def test_each_process_writes_lines_to_a_file_of_its_own(tmp_path: Path) -> None:
    before = time.monotonic_ns()
    run(FAASLITE_TRACE_DIR=str(tmp_path))
    after = time.monotonic_ns()
    files = sorted((path.read_text().splitlines() for path in tmp_path.iterdir()), key=len)
    assert [[line.split(" ", 1)[1] for line in lines] for lines in files] == [
        ["born default/b"],
        ["born default/a", "ended default/a"],
    ]
    assert all(before <= int(line.split(" ")[0]) <= after for lines in files for line in lines)


def test_nothing_is_written_where_nobody_traces(tmp_path: Path) -> None:
    run(TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
