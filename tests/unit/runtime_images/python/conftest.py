"""A Python shim of one source, as the contract suite starts it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

_contract = runpy.run_path(str(Path(__file__).resolve().parents[3] / "contracts" / "test_shim.py"))
COMMAND, ENVIRONMENT = _contract["SHIMS"]["python"]


@pytest.fixture
def launch(tmp_path):
    """`launch(source, **environment)`: a shim, ready or not."""
    made = []

    def make(source: str, **env: str):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(_contract["Shim"](COMMAND, ENVIRONMENT, folder, {"app.py": source}, **env))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def start(launch):
    """The same, ready."""

    def make(source: str, **env: str):
        shim = launch(source, **env)
        assert shim.announced == b"R", shim.log()
        return shim

    return make
