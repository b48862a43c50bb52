from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.api.kinds import POD
from core.api.views import Pod
from core.controllers.podgc import PodGarbageCollector, excess, orphans, unscheduled_terminating

MakePod = Callable[..., Pod]
GOING = {"deletionTimestamp": "2024-01-01T00:00:00Z"}


def test_the_oldest_terminated_pods_go_first(pod: MakePod) -> None:
    pods = [
        pod(f"p{day}", status={"phase": "Failed"}, meta={"creationTimestamp": f"2024-01-0{day}T00:00:00Z"})
        for day in (3, 1, 2)
    ]
    assert [each.name for each in excess([*pods, pod("lives")], 1)] == ["p1", "p2"]
    assert excess(pods, 3) == []


def test_pods_of_nodes_that_are_gone(pod: MakePod) -> None:
    pods = [pod("a", nodeName="here"), pod("b", nodeName="gone"), pod("c")]
    assert [each.name for each in orphans(pods, {"here"})] == ["b"]


def test_terminating_pods_without_a_node(pod: MakePod) -> None:
    pods = [pod("a", meta=GOING), pod("b", meta=GOING, nodeName="n"), pod("c")]
    assert [each.name for each in unscheduled_terminating(pods)] == ["a"]


def bound(name: str, node: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": node}}


async def test_pods_of_a_lost_node_go_after_the_quarantine(plane) -> None:
    now = 1000.0
    collector = PodGarbageCollector(plane.client, plane.informers, clock=lambda: now)
    await plane.node("here")
    for name, node in (("kept", "here"), ("lost", "gone")):
        await plane.client.create(POD, bound(name, node), "default")
    await plane.synced()
    assert await collector.sync("all") == 40.0
    now += 39
    assert await collector.sync("all") == 1.0
    assert len((await plane.client.list(POD, "default"))[0]) == 2
    await plane.client.patch(POD, "lost", "default", {"metadata": {"finalizers": ["test/hold"]}})
    now += 1
    assert await collector.sync("all") is None
    held = await plane.client.get(POD, "lost", "default", as_=Pod)
    assert held.status.phase == "Failed" and held.status.conditions[-1].reason == "DeletionByPodGC"
    await plane.client.patch(POD, "lost", "default", {"metadata": {"finalizers": None}})
    assert [each["metadata"]["name"] for each in (await plane.client.list(POD, "default"))[0]] == ["kept"]


async def test_a_node_that_returns_in_time_keeps_its_pods(plane) -> None:
    now = 1000.0
    collector = PodGarbageCollector(plane.client, plane.informers, clock=lambda: now)
    await plane.client.create(POD, bound("p", "n"), "default")
    await plane.synced()
    assert await collector.sync("all") == 40.0
    await plane.node("n")
    await plane.settle()
    now += 100
    assert await collector.sync("all") is None
    assert len((await plane.client.list(POD, "default"))[0]) == 1


async def test_terminated_pods_beyond_the_threshold(plane) -> None:
    pods = await plane.see(POD, Pod)
    await plane.node("n")
    await plane.run(PodGarbageCollector(plane.client, plane.informers, threshold=2))
    for number in range(4):
        await plane.client.create(POD, bound(f"p{number}", "n"), "default")
        await plane.client.patch(POD, f"p{number}", "default", {"status": {"phase": "Succeeded"}}, subresource="status")
    await plane.until(lambda: len(pods.values()) == 2 and all(each.terminal for each in pods.values()))
