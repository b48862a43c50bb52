"""The node-lifecycle controller, one `sync` at a time, with a clock of its own."""

from __future__ import annotations

import contextlib

import pytest

from core.api.kinds import LEASE, NAMESPACE, NODE, POD
from core.api.views import Node, Pod
from core.clock import micro_time, wall
from core.controllers.nodelifecycle import NodeLifecycleController
from core.errors import AlreadyExists, NotFound


class Clock:
    def __init__(self) -> None:
        self.now = wall()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def controller(plane, clock: Clock):
    with contextlib.suppress(AlreadyExists):
        await plane.client.create(NAMESPACE, {"metadata": {"name": "kube-node-lease"}})
    controller = NodeLifecycleController(plane.client, plane.informers, clock=clock)
    yield controller
    await controller.stop()


async def bound_pod(plane, name: str, *tolerations: dict) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n", "tolerations": list(tolerations)}
    await plane.client.create(POD, {"metadata": {"name": name}, "spec": spec}, "default")
    await plane.pod_ready(name, ip="127.64.0.9")


async def test_a_silent_node_is_lost_and_a_heartbeat_brings_it_back(plane, controller, clock: Clock) -> None:
    nodes, pods = await plane.see(NODE, Node), await plane.see(POD, Pod)
    await plane.node("n")
    await bound_pod(plane, "p")
    await plane.synced()
    assert await controller.sync("node/n") == pytest.approx(40.05)
    clock.now += 41
    await controller.sync("node/n")
    await plane.until(lambda: len(nodes.get("n").spec.taints) == 2)
    found = nodes.get("n")
    assert {each.effect for each in found.spec.taints} == {"NoSchedule", "NoExecute"}
    assert {each.key for each in found.spec.taints} == {"node.kubernetes.io/unreachable"}
    assert next(each.status for each in found.status.conditions if each.type == "Ready") == "Unknown"
    await plane.until(lambda: not pods.get("default/p").ready)
    await plane.client.patch(
        NODE, "n", "", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status"
    )
    await plane.until(lambda: nodes.get("n").status.conditions[0].status == "True")
    await plane.settle()
    await controller.sync("node/n")
    await plane.until(lambda: not nodes.get("n").spec.taints)


async def test_a_renewed_lease_is_a_heartbeat(plane, controller, clock: Clock) -> None:
    nodes = await plane.see(NODE, Node)
    await plane.node("n")
    lease = {"metadata": {"name": "n"}, "spec": {"holderIdentity": "n", "renewTime": micro_time(clock.now)}}
    await plane.client.create(LEASE, lease, "kube-node-lease")
    await plane.synced()
    clock.now += 39
    renewed = {"spec": {"renewTime": micro_time(clock.now)}}
    await plane.client.patch(LEASE, "n", "kube-node-lease", renewed)
    await plane.settle()
    clock.now += 39
    await controller.sync("node/n")
    await plane.settle()
    assert not nodes.get("n").spec.taints


async def test_taints_evict_as_tolerations_say(plane, controller, clock: Clock) -> None:
    await plane.node("n", ready="False", taints=[{"key": "k", "effect": "NoExecute"}])
    await bound_pod(plane, "intolerant")
    await bound_pod(plane, "patient", {"key": "k", "operator": "Exists", "effect": "NoExecute"})
    await bound_pod(
        plane, "for-a-while", {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    )
    await plane.synced()
    await controller.sync("pod/default/intolerant")
    evicted = await plane.client.get(POD, "intolerant", "default", as_=Pod)
    assert evicted.metadata.deletion_timestamp is not None
    assert [each.reason for each in evicted.status.conditions if each.type == "DisruptionTarget"] == ["DeletionByTaintManager"]  # fmt: skip
    assert await controller.sync("pod/default/patient") is None
    wait = await controller.sync("pod/default/for-a-while")
    assert wait is not None
    assert 50 < wait <= 60
    for name in ("patient", "for-a-while"):
        assert (await plane.client.get(POD, name, "default", as_=Pod)).metadata.deletion_timestamp is None


async def test_a_node_that_is_gone_is_no_error(plane, controller) -> None:
    await plane.synced()
    assert await controller.sync("node/none") is None
    with pytest.raises(NotFound):
        await plane.client.get(NODE, "none")
