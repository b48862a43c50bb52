"""`faas exec`: which instance, and what of its end becomes the exit code."""

from __future__ import annotations

import msgspec
import pytest

from cli.errors import CallFailed
from cli.shell import choose, exit_code
from core.api import views
from core.api.meta import Document
from core.node.streams.channels import exit_status, failure_status


def pod(name: str, *, ready: bool = True, going: bool = False) -> views.Pod:
    metadata: Document = {
        "name": name,
        "namespace": "default",
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
    }
    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return msgspec.convert({"metadata": metadata, "spec": {}, "status": status}, views.Pod)


def test_an_instance_that_is_ready_and_stays() -> None:
    pods = [pod("a", ready=False), pod("b", going=True), pod("c"), pod("d")]
    assert choose(pods, "").name == "c"
    assert choose(pods, "a").name == "a"
    assert choose(pods, "e") is None
    assert choose(pods[:2], "") is None


def test_exit_codes_are_those_of_the_final_status() -> None:
    assert exit_code(msgspec.json.decode(exit_status(0))) == 0
    assert exit_code(msgspec.json.decode(exit_status(7))) == 7
    with pytest.raises(CallFailed, match="the engine is gone"):
        exit_code(msgspec.json.decode(failure_status("the engine is gone")))
