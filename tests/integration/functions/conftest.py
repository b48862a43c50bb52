"""The harness of `tests/integration/platform`, for tests of what users write."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

_platform = runpy.run_path(str(Path(__file__).parents[1] / "platform" / "conftest.py"))
forked_commands = _platform["forked_commands"]
platforms = _platform["platforms"]
platform = _platform["platform"]


@pytest.fixture
def until():
    """Wait for what only the outside can tell."""
    return _platform["until"]
