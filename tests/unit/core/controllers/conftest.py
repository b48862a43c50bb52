"""Makers of views from the few fields that a test is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.api import views
from core.clock import timestamp


def make_pod(
    name: str = "p", *, ready: bool | None = None, since: float = 0.0, owner: str = "", **fields: Any
) -> views.Pod:
    meta = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "labels": {"app": "a"},
        **fields.pop("meta", {}),
    }
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": owner, "controller": True}
        ]
    status = {"phase": "Running" if ready else "Pending", **fields.pop("status", {})}
    if ready is not None:
        status["conditions"] = [{"type": "Ready", "status": str(ready), "lastTransitionTime": timestamp(since)}]
    return msgspec.convert({"metadata": meta, "status": status, "spec": fields}, views.Pod)


@pytest.fixture
def pod() -> Callable[..., views.Pod]:
    return make_pod
