"""Makers of nodes and Pods, so that tests name only what they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.api import views


def make_node(name: str, cpu: str = "4", memory: str = "8Gi", pods: int = 110, **rest: Any) -> views.Node:
    amounts = {"cpu": cpu, "memory": memory, "pods": str(pods), **rest.pop("extra", {})}
    return msgspec.convert(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **rest.pop("labels", {})}},
            "spec": {"taints": rest.pop("taints", []), "unschedulable": rest.pop("unschedulable", False)},
            "status": {"allocatable": amounts, "capacity": amounts},
        },
        views.Node,
    )


def make_pod(name: str, cpu: str = "", memory: str = "", node: str = "", **rest: Any) -> views.Pod:
    requests = {key: value for key, value in {"cpu": cpu, "memory": memory, **rest.pop("extra", {})}.items() if value}
    container = {"name": "a", "resources": {"requests": requests}, "ports": rest.pop("ports", [])}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "spec": {"containers": [container], "nodeName": node, **rest},
        },
        views.Pod,
    )


@pytest.fixture
def node() -> Callable[..., views.Node]:
    return make_node


@pytest.fixture
def pod() -> Callable[..., views.Pod]:
    return make_pod
