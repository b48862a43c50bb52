"""The Docker engine of a test session, and what the tests leave in it."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_engine: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("engine.py")))


@pytest.fixture(scope="session")
def docker_url() -> Iterator[str]:
    """The URL of an engine that has the base image; skips with the reason where there can be none, fails in CI."""
    found = _engine["found_engine"]()
    if found:
        _engine["ensure_image"](found)
        yield found
        return
    reason = _engine["why_not"]()
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with _engine["own_engine"]() as url:
        _engine["ensure_image"](url)
        yield url


@pytest.fixture
def docker_subnet() -> str:
    found: str = _engine["free_subnet"]()
    return found
