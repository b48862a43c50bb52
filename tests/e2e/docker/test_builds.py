"""Dependencies built in containers of a real engine, and functions there that call each other: containers reach the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.docker

NEEDS = """
    import blinker

    def handle(event, context):
        return blinker.__name__
"""


@pytest.fixture(scope="module")
def platform(docker_platforms: Callable[..., Any], python_image: str) -> Any:
    found = docker_platforms(python_image, "--warm", "0")
    found.up()
    yield found
    found.down()
    assert not [line for line in found.noise() if "Traceback" in line], found.noise()


def built(platform: Any, name: str) -> dict[str, Any]:
    found = platform.faas("describe", name, "-o", "json").json["function"]["status"]["conditions"]
    return next((each for each in found if each["type"] == "Built"), {})


def test_a_container_builds_the_layer_by_default(platform: Any) -> None:
    folder = platform.source("needy", NEEDS, requirements_txt="blinker\n")
    done = platform.faas("deploy", str(folder), timeout=200)
    assert "building the dependency layer in the cluster" in done.err and "installed blinker==" in done.err
    assert built(platform, "needy")["reason"] == "LayerReady"
    assert platform.call("/function/needy").body == b"blinker"
    # A change of code alone asks for no other build.
    again = platform.deploy("needy", NEEDS.replace("blinker.__name__", "'changed'"), requirements_txt="blinker\n")
    assert "building" not in again.err
    assert platform.call("/function/needy").body == b"changed"


def test_what_cannot_be_built_says_why_and_the_last_good_revision_serves(platform: Any) -> None:
    """After the test before it."""
    nothing = "surely-there-is-no-such-distribution-of-ours==1.0\n"
    done = platform.faas(
        "deploy", str(platform.source("needy", NEEDS, requirements_txt=nothing)), check=False, timeout=200
    )
    done.fails("surely-there-is-no-such-distribution-of-ours", "faas logs needy --build")
    assert built(platform, "needy")["reason"] == "BuildFailed"
    assert platform.call("/function/needy").body == b"changed"


def test_functions_call_each_other(platform: Any) -> None:
    platform.deploy("callee", 'def handle(event, context):\n    return {"got": event.json()}\n')
    code = """
        from faaslite import remote

        def handle(event, context):
            return remote("callee").call({"from": context.function})
    """
    platform.deploy("caller", code)
    assert platform.call("/function/caller").json == {"got": {"from": "caller"}}
