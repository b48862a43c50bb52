"""One control plane for the tests of this folder, and its kubeconfig."""

from __future__ import annotations

import select
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTS_WITHIN = 30.0
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running control plane: `kubeconfig` is in it."""
    folder = tmp_path_factory.mktemp("control-plane")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("control_plane.py")), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            readable, _, _ = select.select([process.stdout], [], [], STARTS_WITHIN)
            assert readable and process.stdout.readline() == b"ready\n", (folder / "log").read_text()
            yield folder
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail(f"the control plane didn't end: {(folder / 'log').read_text()}")
            finally:
                process.stdout.close()


@pytest.fixture
def kubeconfig(cluster: Path) -> str:
    return str(cluster / "kubeconfig")


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:8]}"
