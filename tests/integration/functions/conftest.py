"""The harness of `tests/integration/platform`, for tests of what users write."""

from __future__ import annotations

import runpy
from pathlib import Path

_platform = runpy.run_path(str(Path(__file__).parents[1] / "platform" / "conftest.py"))
platforms = _platform["platforms"]
platform = _platform["platform"]
until = _platform["until"]
