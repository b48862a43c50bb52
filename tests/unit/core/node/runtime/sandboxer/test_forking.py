"""A fork whose child is the parent's. Each test is a process of its own: it must have one thread, and forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.node.runtime.sandboxer.isolation import forker_beside

ROOT = Path(__file__).parents[6]
ZYGOTE = ROOT / "runtime-images" / "python"
_BEGIN = f"""
import os, sys, threading
sys.path[:0] = [{str(ROOT)!r}, {str(ZYGOTE)!r}]
from core.node.runtime.sandboxer.isolation import forker_beside, subreaper
subreaper()
outer, seen = os.getpid(), []
os.register_at_fork(after_in_child=lambda: seen.append("child"), after_in_parent=lambda: seen.append("parent"))
"""
_END = """
codes = {}
while True:
    try:
        pid, status = os.wait()
    except ChildProcessError:
        break
    codes[pid] = os.waitstatus_to_exitcode(status)
print(sorted(codes.values()))
"""


def run(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", _BEGIN + text + _END], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(forker_beside() is None, reason="this machine or its kernel has no such fork")
def test_the_child_is_the_parents_and_as_whole_as_any() -> None:
    found = run("""
if os.fork() == 0:
    fork, seen[:] = forker_beside(), []
    pid = fork()
    if pid:
        os._exit(3 if seen == ["parent"] and pid != os.getpid() else 1)
    said = []
    thread = threading.Thread(target=lambda: said.append(threading.get_native_id() != os.getpid()))
    thread.start()
    thread.join()
    inner = os.fork()
    if inner == 0:
        os._exit(5)
    well = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 5 and os.getppid() == outer and said == [True]
    os._exit(4 if well and threading.current_thread() is threading.main_thread() and seen[:1] == ["child"] else 2)
""")
    assert found == "[3, 4]"


@pytest.mark.parametrize("beside", ["forker_beside()", "refused", "None"])
def test_zygotes_children_are_the_sandboxers_whatever_forks_them(beside: str) -> None:
    found = run(f"""
import socket
import zygote
def refused():
    raise OSError(22, "clone")
if os.fork() == 0:
    one, other = socket.socketpair()
    if zygote.fork_away(other, {beside}):
        while os.getppid() != outer:  # until the one in between has gone
            os.sched_yield()
        os._exit(4)
    os._exit(3 if other.fileno() < 0 else 1)
""")
    assert found == "[3, 4]"
