"""All controllers together: a namespace with a ReplicaSet and a Service comes, works and goes."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from pathlib import Path

import pytest

from core import controllers
from core.api.kinds import ENDPOINT_SLICE, NAMESPACE, NODE, POD, REPLICA_SET, SERVICE
from core.api.views import EndpointSlice, Namespace, Pod
from core.controllers import manager
from core.controllers.manager import CONTROLLERS, Controllers

LABELS = {"app": "a"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def test_they_work_together(plane) -> None:
    pods, slices = await plane.see(POD, Pod), await plane.see(ENDPOINT_SLICE, EndpointSlice)
    namespaces = await plane.see(NAMESPACE, Namespace)
    await plane.run(Controllers(plane.client, plane.informers, ca="PEM"))
    await plane.client.create(NAMESPACE, {"metadata": {"name": "x"}})
    spec = {"replicas": 3, "selector": {"matchLabels": LABELS}, "template": TEMPLATE}
    await plane.client.create(REPLICA_SET, {"metadata": {"name": "rs"}, "spec": spec}, "x")
    await plane.client.create(
        SERVICE, {"metadata": {"name": "s"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}}, "x"
    )
    await plane.until(lambda: len(pods.values()) == 3)
    for number, each in enumerate(pods.values(), 1):
        await plane.pod_ready(each.name, "x", ip=f"127.64.0.{number}")
    await plane.until(lambda: sum(len(each.endpoints) for each in slices.values()) == 3)
    await plane.client.delete(REPLICA_SET, "rs", "x")
    await plane.until(lambda: not pods.values())
    await plane.until(lambda: namespaces.get("x"))
    await plane.client.delete(NAMESPACE, "x")
    await plane.until(lambda: namespaces.get("x") is None)
    assert slices.values() == []


async def test_a_controller_that_can_not_start_stops_the_others(plane) -> None:
    stopped = asyncio.Event()

    class Fine:
        async def start(self) -> None:
            return

        async def stop(self) -> None:
            stopped.set()

    class Broken(Fine):
        async def start(self) -> None:
            raise RuntimeError("no")

    table = {"fine": lambda *_: Fine(), "broken": lambda *_: Broken()}
    with pytest.raises(RuntimeError, match="no"):
        await Controllers(plane.client, plane.informers, controllers=table).start()
    assert stopped.is_set()


async def test_a_fresh_node_is_not_tainted(plane) -> None:
    await plane.run(Controllers(plane.client, plane.informers))
    await plane.client.create(NODE, {"metadata": {"name": "n"}})
    await plane.settle()
    assert not (await plane.client.get(NODE, "n"))["spec"].get("taints")


def test_every_module_with_a_controller_is_in_the_table() -> None:
    folder = Path(controllers.__file__).parent
    modules = [
        f"core.controllers.{each.stem}" for each in folder.glob("*.py") if each.stem not in ("__init__", "manager")
    ]
    made = {
        name
        for module in map(importlib.import_module, modules)
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and hasattr(found, "start")
        and hasattr(found, "stop")
    }
    source = inspect.getsource(manager)
    assert made and all(f"{name}(client, informers" in source for name in made), made
    assert len(CONTROLLERS) == len(made)
