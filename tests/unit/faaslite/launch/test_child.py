"""The life of components in a process of their own, from the start to TERM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import gc, sys
from faaslite.launch.child import run_components

class Component:
    async def start(self):
        self.frozen = gc.get_freeze_count()
        if sys.argv[2]:
            gc.set_threshold(50_000, 50, 1000)

    async def stop(self):
        print(gc.get_freeze_count() > self.frozen, gc.get_threshold()[2], flush=True)

async def build():
    return [Component()]

run_components(build, int(sys.argv[1]))
"""


@pytest.mark.parametrize(("own", "seldom"), [("", "100"), ("own", "1000")])
def test_once_all_serve_collections_leave_out_what_is_there_and_come_less_often(own: str, seldom: str) -> None:
    reader, writer = os.pipe()
    with (
        open(reader, "rb") as report,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(writer), own],
            pass_fds=[writer], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process,
    ):  # fmt: skip
        os.close(writer)
        assert report.read(1) == b"R"
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert (said, process.returncode) == (f"True {seldom}\n", 0)


FORKED = """
import os, sys
from pathlib import Path
from faaslite.launch.child import run_child
from faaslite.launch.process import ProcessSpec

def main(report):
    os.write(report, str(sys.getswitchinterval()).encode())

run_child(ProcessSpec("component", main), int(sys.argv[1]), Path(sys.argv[2]))
"""


def test_threads_of_a_component_soon_give_way_to_its_event_loop(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FORKED, str(writer), str(tmp_path / "log")]
    with open(reader, "rb") as report:
        subprocess.run(command, pass_fds=[writer], env=environment, check=True, timeout=30)
        os.close(writer)
        assert float(report.read()) <= 0.001
