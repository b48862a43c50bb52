"""Which Pods a started container can take, and how many wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.node.runtime.base import ContainerSpec, Mount, SandboxSpec
from core.node.runtime.docker_fit import MAX_MESSAGE, WAITING_COST, Shape, place, shares, unfit

SANDBOX = SandboxSpec("u", "p", "ns", "/logs", solitary=True)
PACKAGE = Mount("/host/package", "/var/faaslite/package", True)
SPEC = ContainerSpec("function", "faaslite/python", env={"A": "1"}, mounts=(PACKAGE,))


def test_a_functions_pod_fits() -> None:
    secret = Mount("/host/db", "/var/run/secrets/faaslite/db", True)
    tmp = Mount("", "/tmp", scratch=1 << 20)
    assert unfit(SANDBOX, [replace(SPEC, mounts=(PACKAGE, secret, tmp))]) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"command": ("sh",)}, "a command of its own"),
        ({"args": ("x",)}, "a command of its own"),
        ({"tty": True}, "a terminal"),
        ({"stop_signal": "SIGINT"}, "stop signal"),
        ({"termination_message_path": "/tmp/x"}, "termination message path"),
        ({"attempt": 1}, "has run before"),
        ({"mounts": (Mount("/h", "/cache"),)}, "/cache"),
        ({"mounts": (Mount("/h", "/var/faaslite"),)}, "/var/faaslite"),
        ({"mounts": (Mount("/h", "/var/faaslite/../x"),)}, "/var/faaslite/../x"),
        ({"env": {"A": "x" * MAX_MESSAGE}}, "too large"),
    ],
)
def test_what_a_started_container_cant_take_is_named(changes: dict[str, Any], why: str) -> None:
    assert why in unfit(SANDBOX, [replace(SPEC, **changes)])


def test_pods_of_several_containers_dont_fit() -> None:
    assert "several" in unfit(SANDBOX, [SPEC, SPEC])
    assert "several" in unfit(replace(SANDBOX, solitary=False), [SPEC])


def test_a_volume_has_its_place_in_the_containers_folder() -> None:
    assert place("/var/faaslite/package") == "var/package"
    assert place("/var/run/secrets/faaslite/db") == "secrets/faaslite/db"
    assert place("/var/faaslitely") is None


def test_limits_make_the_shape_and_what_comes_with_the_pod_does_not() -> None:
    assert Shape.of(SPEC) == Shape.of(replace(SPEC, env={}, mounts=(), name="other"))
    for changes in ({"memory": 1 << 26}, {"cpu": 0.5}, {"cpu_request": 0.1}, {"user": 1}, {"read_only_root": True}, {"no_capabilities": True},
                    {"mounts": (Mount("", "/tmp", scratch=1),)}, {"image": "faaslite/node"}):  # fmt: skip
        assert Shape.of(SPEC) != Shape.of(replace(SPEC, **changes))  # type: ignore[arg-type]


def test_the_budget_goes_to_the_shapes_that_were_used_last() -> None:
    old, new, newest = (Shape(each) for each in ("old", "new", "newest"))
    used = {old: 1.0, newest: 3.0, new: 2.0}
    assert shares(used, 2, 100 * WAITING_COST) == {newest: 2, new: 2, old: 2}
    assert shares(used, 2, 3 * WAITING_COST) == {newest: 2, new: 1, old: 0}
    assert shares(used, 2, WAITING_COST - 1) == {newest: 0, new: 0, old: 0}
