"""The scheduler against the real API server."""

from __future__ import annotations

import asyncio
from typing import Any

from core.api.kinds import EVENT, NODE, POD
from core.api.views import Event, Pod
from core.errors import Conflict, ServiceUnavailable
from core.scheduler.scheduler import Scheduler


def pod(name: str, cpu: str = "100m", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def condition(found: Pod) -> Any:
    return next((each for each in found.status.conditions if each.type == "PodScheduled"), None)


async def test_pods_are_bound_and_spread(plane) -> None:
    pods = await plane.see(POD, Pod)
    for name in "ab":
        await plane.node(name)
    await plane.client.create(POD, pod("before"), "default")
    await plane.run(Scheduler(plane.client, plane.informers))
    for number in range(9):
        await plane.client.create(POD, pod(f"p{number}"), "default")
    await plane.until(lambda: len(pods.values()) == 10 and all(each.spec.node_name for each in pods.values()))
    assert sorted(each.spec.node_name for each in pods.values()) == ["a"] * 5 + ["b"] * 5
    assert condition(pods.values()[0]).status == "True"


async def test_accounts_hold_before_the_watch_shows_the_binding(plane) -> None:
    """Ten Pods that fit one at a time: were they not counted at once, two would be bound."""
    pods = await plane.see(POD, Pod)
    await plane.node("a")
    await plane.run(Scheduler(plane.client, plane.informers))
    await asyncio.gather(*(plane.client.create(POD, pod(f"p{number}", cpu="3"), "default") for number in range(10)))
    await plane.until(lambda: sum(condition(each) is not None for each in pods.values()) == 10)
    assert sum(bool(each.spec.node_name) for each in pods.values()) == 1


async def test_a_pod_without_a_place_says_why_and_gets_the_first_one(plane) -> None:
    pods, events = await plane.see(POD, Pod), await plane.see(EVENT, Event)
    now = 1000.0
    scheduler = Scheduler(plane.client, plane.informers, clock=lambda: now)
    await plane.node("small")
    await plane.run(scheduler)
    await plane.client.create(POD, pod("big", cpu="3", nodeSelector={"size": "big"}), "default")
    await plane.until(lambda: pods.get("default/big") and condition(pods.get("default/big")))
    found = condition(pods.get("default/big"))
    message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    assert (found.status, found.reason, found.message) == ("False", "Unschedulable", message)
    await plane.until(
        lambda: any(each.reason == "FailedScheduling" and each.message == message for each in events.values())
    )
    now += 2.0  # its back-off is over
    await plane.client.patch(NODE, "small", "", {"metadata": {"labels": {"size": "big"}}})
    await plane.until(lambda: pods.get("default/big").spec.node_name == "small")


async def test_a_pod_that_goes_makes_room(plane) -> None:
    pods = await plane.see(POD, Pod)
    now = 1000.0
    await plane.node("a")
    await plane.run(Scheduler(plane.client, plane.informers, clock=lambda: now))
    await plane.client.create(POD, pod("first", cpu="3"), "default")
    await plane.until(lambda: pods.get("default/first") and pods.get("default/first").spec.node_name)
    await plane.client.create(POD, pod("second", cpu="3"), "default")
    await plane.until(lambda: pods.get("default/second") and condition(pods.get("default/second")))
    now += 2.0
    await plane.client.delete(POD, "first", "default", grace=0)
    await plane.until(lambda: pods.get("default/second").spec.node_name == "a")


async def test_others_pods_are_left_alone(plane) -> None:
    pods = await plane.see(POD, Pod)
    await plane.node("a")
    await plane.run(Scheduler(plane.client, plane.informers))
    await plane.client.create(POD, pod("theirs", schedulerName="other"), "default")
    await plane.client.create(POD, pod("mine"), "default")
    await plane.until(lambda: pods.get("default/mine") and pods.get("default/mine").spec.node_name)
    assert pods.get("default/theirs").spec.node_name == ""
    assert condition(pods.get("default/theirs")) is None


class RefusingBinder:
    """Fails so many times, then binds."""

    name = "RefusingBinder"

    def __init__(self, inner: Any, *errors: Exception) -> None:
        self.inner = inner
        self.errors = list(errors)
        self.refused = asyncio.Event()

    async def bind(self, pod: Pod, node_name: str) -> None:
        if self.errors:
            self.refused.set()
            raise self.errors.pop(0)
        await self.inner.bind(pod, node_name)


async def test_a_refused_binding_gives_the_room_back_and_is_tried_again(plane) -> None:
    pods = await plane.see(POD, Pod)
    now = 1000.0
    await plane.node("a")
    scheduler = Scheduler(plane.client, plane.informers, clock=lambda: now)
    binder = scheduler._binder = RefusingBinder(scheduler._binder, Conflict("no"), ServiceUnavailable("down"))
    await plane.run(scheduler)
    await plane.client.create(POD, pod("p", cpu="3"), "default")
    for _ in range(2):
        await asyncio.wait_for(binder.refused.wait(), 5)
        binder.refused.clear()
        await plane.settle()
        assert scheduler.snapshot.nodes[0].requested_cpu == 0
        now += 5.0
        scheduler._wake()
    await plane.until(lambda: pods.get("default/p").spec.node_name == "a")
    await plane.settle()
    assert scheduler.snapshot.nodes[0].requested_cpu == 3000


async def test_a_binding_request_follows_the_event_within_a_step_of_the_loop(plane) -> None:
    steps: list[int] = []
    turn = 0

    class Immediate:
        name = "Immediate"

        async def bind(self, pod: Pod, node_name: str) -> None:
            steps.append(turn)

    await plane.node("a")
    scheduler = Scheduler(plane.client, plane.informers, binder=Immediate())
    await plane.run(scheduler)
    await plane.settle()
    created = Pod()
    created.metadata.name, created.metadata.namespace = "p", "default"
    scheduler.on_pod(None, created)
    while not steps:
        turn += 1
        await asyncio.sleep(0)
        assert turn < 4
    assert steps == [2]  # one step to choose, one for the task that sends the request
