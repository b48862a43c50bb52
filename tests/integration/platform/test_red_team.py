"""A hostile team on process nodes, of root and of an ordinary user: what its code and its token come to, beside what docs/security.md claims."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOISE_ALLOWED = r"violates PodSecurity"
"""What the template of a hostile Deployment comes to."""
_red: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "red_team" / "campaign.py"))


@pytest.fixture(scope="module")
def campaign(platform: Any, wait_until: Callable[..., Any]) -> Any:
    found = _red["Campaign"](platform, wait_until)
    found.prepare()
    return found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the level of root needs root")
@pytest.mark.timeout(240)
def test_from_within_a_pod_of_root(campaign: Any) -> None:
    _red["check"](_red["LEVELS"][0], campaign.run())


@pytest.mark.root
@pytest.mark.kubectl
@pytest.mark.skipif(os.geteuid() != 0, reason="the level of root needs root")
@pytest.mark.timeout(240)
def test_by_a_command_in_a_pod_of_root(campaign: Any, needs: Any) -> None:
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")
    _red["check"](_red["LEVELS"][0], campaign.run_by_exec(), without="-without-end")


@pytest.mark.timeout(240)
def test_with_a_token(campaign: Any) -> None:
    campaign.prepare_to_ask()
    _red["check"](_red["API"], campaign.ask())


@pytest.mark.timeout(300)
def test_from_within_a_pod_of_an_ordinary_user(theirs: Any, wait_until: Callable[..., Any]) -> None:
    found = _red["Campaign"](theirs, wait_until)
    found.prepare()
    _red["check"](_red["LEVELS"][1], found.run())
    if shutil.which("kubectl"):
        _red["check"](_red["LEVELS"][1], found.run_by_exec(), without="-without-end")
