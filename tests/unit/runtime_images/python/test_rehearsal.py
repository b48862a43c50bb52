"""What is done once before any process becomes a function leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httptools

SHIM = str(Path(__file__).resolve().parents[4] / "runtime-images" / "python")
PROGRAM = """
import os, sys, threading
sys.path.append(sys.argv[1])
from faaslite_shim.bootstrap import import_libraries
import_libraries([sys.argv[2]])
from faaslite_shim import rehearsal, server
import asyncio
rehearsal.rehearse()
path, modules, descriptors = list(sys.path), set(sys.modules), set(os.listdir("/proc/self/fd"))
rehearsal.rehearse()
assert sys.path == path
assert set(sys.modules) == modules, set(sys.modules) ^ modules
assert set(os.listdir("/proc/self/fd")) == descriptors
assert threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1
loop = server.new_loop()
rehearsal.touch(loop)
assert sys.path == path and "faaslite_rehearsal" not in sys.modules
assert not asyncio.all_tasks(loop) and not loop.is_closed()
loop.close()
print("clean")
"""


def test_a_rehearsal_leaves_nothing_behind() -> None:
    libraries = str(Path(httptools.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, SHIM, libraries], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("clean\n", 0), done.stderr
