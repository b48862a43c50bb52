"""The Docker engine of the end-to-end tests, for the contracts that run against it too."""

from __future__ import annotations

import runpy
from pathlib import Path

_docker = runpy.run_path(str(Path(__file__).parents[1] / "e2e" / "docker" / "conftest.py"))
docker_url = _docker["docker_url"]
docker_subnet = _docker["docker_subnet"]
