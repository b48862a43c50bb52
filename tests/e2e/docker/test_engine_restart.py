"""An engine that goes away and comes back, with and without its containers."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.root]
_fixtures = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
UNFILTERED: tuple[str, ...] = _fixtures["_engine"]["UNFILTERED"]

CODE = """
    import time
    BORN = time.time()
    def handle(event, context):
        return str(BORN)
"""


@pytest.fixture(scope="module")
def engine(own_docker: Any) -> Any:
    own_docker.start("--live-restore", *UNFILTERED)
    _fixtures["_engine"]["ensure_image"](own_docker.url)
    _fixtures["build_python"](own_docker.url)
    return own_docker


@pytest.fixture(scope="module")
def platform(docker_platforms: Callable[..., Any], engine: Any) -> Any:
    found = docker_platforms(engine.url)
    found.up()
    found.filled()
    found.deploy("hello", CODE, "--min", "1")
    yield found
    found.down()
    assert not [line for line in found.noise() if "Traceback" in line], found.noise()


def test_with_live_restore_nobody_notices(platform: Any, engine: Any, wait_until: Callable[..., Any]) -> None:
    wait_until("an instance", lambda: platform.serving("hello"))
    before, born = platform.serving("hello"), platform.call("/function/hello").body
    engine.stop()
    assert platform.call("/function/hello").body == born
    engine.start("--live-restore", *UNFILTERED)
    platform.filled()
    assert platform.serving("hello") == before
    assert platform.call("/function/hello").body == born


def test_without_it_instances_are_started_again(platform: Any, engine: Any, wait_until: Callable[..., Any]) -> None:
    born = platform.call("/function/hello").body
    engine.stop()
    engine.start(*UNFILTERED)

    def again() -> bool:
        reply = platform.call("/function/hello", timeout=60)
        return reply.status == 200 and reply.body != born

    wait_until("a new instance", again, 60)
    platform.filled()
