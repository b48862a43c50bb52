"""What is done once before any process becomes a function leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httptools

SHIM = str(Path(__file__).resolve().parents[4] / "runtime-images" / "python")
PROGRAM = """
import importlib, os, signal, sys, threading, time
sys.path.append(sys.argv[1])
from faaslite_shim.bootstrap import import_libraries
import_libraries([sys.argv[2]])
from faaslite_shim import rehearsal, server
import asyncio
sys.dont_write_bytecode = True  # as zygotes have it
signal.signal(signal.SIGINT, signal.SIG_DFL)
def alone():
    # The kernel may take a moment with a thread that has ended.
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        os.sched_yield()
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1
handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
for name in ("faaslite_shim.handlers", *importlib.import_module("faaslite_shim.handlers").LATER):
    importlib.import_module(name)
rehearsal.rehearse()
path, modules, descriptors = list(sys.path), set(sys.modules), set(os.listdir("/proc/self/fd"))
rehearsal.rehearse()
assert sys.path == path
assert set(sys.modules) == modules, set(sys.modules) ^ modules
assert set(os.listdir("/proc/self/fd")) == descriptors
assert alone()
loop = server.new_loop()
os.environ.clear()
folder = sys.argv[3]
for _ in range(2):
    # The first leaves to the loop what it watches signals with.
    before = set(os.listdir("/proc/self/fd"))
    rehearsal.touch(loop, folder)
    assert sys.path == path and folder not in sys.path_importer_cache and "faaslite_rehearsal" not in sys.modules
    assert not os.listdir(folder) and not os.environ, (os.listdir(folder), os.environ)
    assert all(signal.getsignal(each) == was for each, was in handlers.items())
assert set(os.listdir("/proc/self/fd")) == before
assert set(sys.modules) == modules, set(sys.modules) ^ modules
assert alone()
assert not asyncio.all_tasks(loop) and not loop.is_closed()
rehearsal.take_environment({"A": "1", "B": "\\udcff\u00e9"})
assert dict(os.environ) == {"A": "1", "B": "\\udcff\u00e9"} and os.environb[b"B"] == b"\\xff\\xc3\\xa9"
loop.close()
print("clean")
"""


def test_a_rehearsal_leaves_nothing_behind(tmp_path: Path) -> None:
    libraries = str(Path(httptools.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, SHIM, libraries, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("clean\n", 0), done.stderr
