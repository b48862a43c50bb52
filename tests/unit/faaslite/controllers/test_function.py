"""The Function controller against the real API server; the test plays the node agent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION, POD, REPLICA_SET, SERVICE
from core.api.views import Pod, ReplicaSet
from core.clock import timestamp
from core.controllers.garbagecollector import GarbageCollector
from core.controllers.replicaset import ReplicaSetController
from core.scheduler.scheduler import Scheduler
from faaslite.api.crd import function_definition
from faaslite.api.names import FUNCTION, PORT
from faaslite.api.wire import ScalePolicy
from faaslite.controllers.function import FunctionController, FunctionObject

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
KEY = "default/hello"


class World:
    def __init__(self, plane: Any) -> None:
        self.plane = plane
        self.controller = FunctionController(plane.client, plane.informers, url="http://gateway/")

    async def begin(self) -> None:
        self.functions = await self.plane.see(FUNCTION, FunctionObject)
        self.sets = await self.plane.see(REPLICA_SET, ReplicaSet)
        self.pods = await self.plane.see(POD, Pod)
        await self.plane.run(ReplicaSetController(self.plane.client, self.plane.informers), self.controller)

    async def apply(self, **spec: Any) -> None:
        spec = {"runtime": "python", "package": {"digest": DIGEST}, **spec}
        if self.functions.get(KEY) is None:
            document = {
                "apiVersion": "faaslite.dev/v1",
                "kind": "Function",
                "metadata": {"name": "hello"},
                "spec": spec,
            }
            await self.plane.client.create(FUNCTION, document, "default")
        else:
            await self.plane.client.patch(FUNCTION, "hello", "default", {"spec": spec})

    @property
    def status(self) -> dict[str, Any]:
        found = self.functions.get(KEY)
        return found.status if found else {}

    def condition(self, name: str = "Ready") -> dict[str, Any]:
        return next((each for each in self.status.get("conditions", ()) if each["type"] == name), {})

    async def condition_is(self, status: str, reason: str, name: str = "Ready") -> dict[str, Any]:
        def holds() -> Any:
            found = self.condition(name)
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        return await self.plane.until(holds)

    async def pod_of(self, revision: str) -> Pod:
        def found() -> Any:
            return [
                each for each in self.pods.values() if each.metadata.labels.get("faaslite.dev/revision") == revision
            ]

        return (await self.plane.until(found))[0]

    async def make_ready(self, revision: str) -> None:
        await self.plane.pod_ready((await self.pod_of(revision)).name, ip="127.64.0.1")

    async def routed(self, *shares: tuple[str, int]) -> None:
        expected = list(shares)
        await self.plane.until(
            lambda: [(each["revision"], each["percent"]) for each in self.status.get("traffic", ())] == expected
        )

    def policy(self, revision: str) -> ScalePolicy:
        text = self.sets.get(f"default/{revision}").metadata.annotations["faaslite.dev/scale"]
        return msgspec.json.decode(text, type=ScalePolicy)


@pytest.fixture
async def world(plane: Any) -> World:
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
    world = World(plane)
    await world.begin()
    return world


async def test_from_the_spec_to_ready(world: World, plane: Any) -> None:
    await world.apply(concurrency=4, timeout="45s")
    await world.condition_is("Unknown", "Deploying")
    assert world.status["traffic"] == []
    await world.make_ready("hello-00001")
    await world.condition_is("True", "RevisionReady")
    status = world.status
    assert status["traffic"] == [{"revision": "hello-00001", "percent": 100, "concurrency": 4, "timeout": 45.0}]
    assert (status["latestCreatedRevision"], status["latestReadyRevision"]) == ("hello-00001", "hello-00001")
    assert status["url"] == "http://gateway/function/hello.default"
    assert status["observedGeneration"] == 1
    assert world.condition("Packaged")["status"] == world.condition("RoutesReady")["status"] == "True"
    service = await plane.client.get(SERVICE, "hello", "default")
    assert service["spec"]["ports"][0]["targetPort"] == PORT
    assert service["metadata"]["ownerReferences"][0]["kind"] == "Function"
    await plane.until(lambda: world.status["replicas"] == 1)


async def test_a_new_revision_takes_over_when_it_is_ready(world: World) -> None:
    await world.apply(scale={"min": 2})
    await world.make_ready("hello-00001")
    await world.routed(("hello-00001", 100))
    await world.apply(package={"digest": OTHER})
    pod = await world.pod_of("hello-00002")
    assert pod.spec.volumes[0].csi["volumeAttributes"]["digest"] == OTHER  # type: ignore[index]
    pending = await world.condition_is("Unknown", "Deploying")
    assert "hello-00001 keeps serving" in pending["message"]
    assert world.status["traffic"][0]["revision"] == "hello-00001"
    await world.make_ready("hello-00002")
    await world.routed(("hello-00002", 100))
    await world.plane.until(lambda: world.policy("hello-00001").min == 0)
    assert world.policy("hello-00002").min == 2


async def test_what_changes_no_template_makes_no_revision_and_replicas_are_never_touched(
    world: World, plane: Any
) -> None:
    await world.apply()
    await world.make_ready("hello-00001")
    await world.condition_is("True", "RevisionReady")
    await plane.client.scale(REPLICA_SET, "hello-00001", "default", 3)
    await world.apply(scale={"max": 50, "min": 1})
    await plane.until(lambda: world.policy("hello-00001").max == 50)
    await plane.settle()
    assert [each.name for each in world.sets.values()] == ["hello-00001"]
    assert world.sets.get("default/hello-00001").spec.replicas == 3


async def test_a_failed_start_says_why_and_the_last_good_revision_serves(world: World, plane: Any) -> None:
    await world.apply()
    await world.make_ready("hello-00001")
    await world.routed(("hello-00001", 100))
    await world.apply(handler="app:nothing")
    pod = await world.pod_of("hello-00002")
    ended = {"exitCode": 1, "reason": "Error", "message": "AttributeError: module 'app' has no attribute 'nothing'"}
    statuses = [
        {
            "name": "function",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
    ]
    await plane.pod_ready(pod.name, ready=False, containerStatuses=statuses)
    found = await world.condition_is("False", "StartFailed")
    assert "has no attribute 'nothing'" in found["message"]
    assert "hello-00001 keeps serving" in found["message"]
    assert [each["revision"] for each in world.status["traffic"]] == ["hello-00001"]
    assert world.status["latestReadyRevision"] == "hello-00001"
    await world.apply(handler="app:something")
    await world.make_ready("hello-00003")
    await world.condition_is("True", "RevisionReady")


async def test_an_invalid_spec_is_a_condition_and_heals(world: World) -> None:
    await world.apply(cron=[{"schedule": "61 * * * *"}])
    found = await world.condition_is("False", "InvalidSpec")
    assert found["message"].startswith('spec.cron[0].schedule: "61 * * * *" is not a cron expression: ')
    assert world.sets.values() == []
    await world.apply(cron=[])
    await world.make_ready("hello-00001")
    await world.condition_is("True", "RevisionReady")


async def test_without_a_package_there_is_no_revision(world: World) -> None:
    await world.apply(package=None)
    await world.condition_is("False", "PackageMissing")
    assert world.condition("Packaged")["status"] == "False"
    assert world.sets.values() == []


async def test_scale_initial_zero_is_ready_at_once(world: World) -> None:
    await world.apply(scale={"initial": 0})
    await world.condition_is("True", "RevisionReady")
    await world.routed(("hello-00001", 100))
    assert world.sets.get("default/hello-00001").spec.replicas == 0
    assert world.pods.values() == []


async def test_traffic_is_split_by_number(world: World) -> None:
    await world.apply(scale={"initial": 0})
    await world.routed(("hello-00001", 100))
    await world.apply(
        package={"digest": OTHER}, traffic=[{"revision": "latest", "percent": 90}, {"revision": "1", "percent": 10}]
    )
    await world.routed(("hello-00002", 90), ("hello-00001", 10))
    await world.apply(traffic=[{"revision": "latest", "percent": 90}, {"revision": "7", "percent": 10}])
    found = await world.condition_is("False", "RevisionMissing")
    assert "there is no revision hello-00007" in found["message"]
    await world.routed(("hello-00002", 90), ("hello-00001", 10))


async def test_old_revisions_are_pruned(world: World) -> None:
    digests = [f"sha256:{number:064x}" for number in range(12)]
    for number, digest in enumerate(digests, 1):
        await world.apply(package={"digest": digest}, scale={"initial": 0})
        await world.routed((f"hello-{number:05d}", 100))
    await world.plane.until(lambda: len(world.sets.values()) == 10)
    assert world.sets.get("default/hello-00002") is None
    assert world.sets.get("default/hello-00003") is not None


async def test_a_service_of_somebody_else_is_left_alone(world: World, plane: Any) -> None:
    theirs = {"metadata": {"name": "hello"}, "spec": {"ports": [{"port": 5432}]}}
    await plane.client.create(SERVICE, theirs, "default")
    await world.apply()
    await world.condition_is("False", "NameTaken")
    assert (await plane.client.get(SERVICE, "hello", "default"))["spec"]["ports"][0]["port"] == 5432


async def test_a_stale_cache_makes_no_second_revision(plane: Any) -> None:
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
    controller = FunctionController(plane.client, plane.informers)
    spec = {"runtime": "python", "package": {"digest": DIGEST}}
    document = {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": {"name": "hello"}, "spec": spec}
    await plane.client.create(FUNCTION, document, "default")
    await plane.synced()
    await plane.informers.stop()
    await asyncio.gather(*(controller.sync(KEY) for _ in range(3)))
    sets, _ = await plane.client.list(REPLICA_SET, "default", as_=ReplicaSet)
    assert [each.name for each in sets] == ["hello-00001"]
    await controller.stop()


async def test_no_place_to_run_is_said_in_the_words_of_the_scheduler(world: World, plane: Any) -> None:
    await plane.node("n", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    await plane.run(Scheduler(plane.client, plane.informers))
    await world.apply()
    found = await world.condition_is("False", "Unschedulable")
    assert "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}." in found["message"]


async def test_process_nodes_are_tolerated(world: World, plane: Any) -> None:
    await plane.node("n", taints=[{"key": "faaslite.dev/process-runtime", "effect": "NoSchedule"}])
    await plane.run(Scheduler(plane.client, plane.informers))
    await world.apply()
    await plane.until(lambda: any(each.spec.node_name == "n" for each in world.pods.values()))


async def test_a_function_goes_with_all_that_was_made_for_it(world: World, plane: Any) -> None:
    services = await plane.see(SERVICE)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await world.apply(scale={"initial": 2})
    await plane.until(lambda: len(world.pods.values()) == 2 and services.get(KEY))
    await plane.client.delete(FUNCTION, "hello", "default")
    await plane.until(lambda: not world.pods.values() and not world.sets.values() and services.get(KEY) is None)


async def test_created_again_under_the_same_name_it_begins_anew(world: World, plane: Any) -> None:
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await world.apply()
    await world.make_ready("hello-00001")
    await world.condition_is("True", "RevisionReady")
    first = world.functions.get(KEY).metadata.uid
    await plane.client.delete(FUNCTION, "hello", "default")
    await plane.until(lambda: world.functions.get(KEY) is None)
    await world.apply(package={"digest": OTHER})

    def anew() -> bool:
        found = world.sets.get("default/hello-00001")
        return found is not None and found.metadata.controller.uid not in ("", first)

    await plane.until(anew)
    assert world.status.get("latestReadyRevision", "") == ""


async def test_counts_of_instances_are_written_late(plane: Any) -> None:
    """Scaling must not wait for a status that only people read."""
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
    now = 1000.0
    controller = FunctionController(plane.client, plane.informers, clock=lambda: now)
    spec = {"runtime": "python", "package": {"digest": DIGEST}, "scale": {"initial": 0}}
    document = {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": {"name": "hello"}, "spec": spec}
    await plane.client.create(FUNCTION, document, "default")
    await plane.synced()
    await controller.sync(KEY)
    await plane.settle()
    await plane.client.patch(REPLICA_SET, "hello-00001", "default", {"status": {"replicas": 3}}, subresource="status")
    await plane.settle()
    assert await controller.sync(KEY) == 1.0
    assert (await plane.client.get(FUNCTION, "hello", "default"))["status"]["replicas"] == 0
    now += 1.0
    assert await controller.sync(KEY) is None
    assert (await plane.client.get(FUNCTION, "hello", "default"))["status"]["replicas"] == 3
    await controller.stop()


async def test_a_status_ahead_of_the_cache_makes_no_second_revision(plane: Any) -> None:
    """The Function shows its newest revision before the cache of ReplicaSets does."""
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
    controller = FunctionController(plane.client, plane.informers)
    spec = {"runtime": "python", "package": {"digest": DIGEST}}
    document = {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": {"name": "hello"}, "spec": spec}
    await plane.client.create(FUNCTION, document, "default")
    await plane.synced()
    await plane.informers.forget(controller._sets)  # this cache stands still from here on, the others don't
    functions = await plane.see(FUNCTION, FunctionObject)
    await controller.sync(KEY)
    await plane.until(lambda: functions.get(KEY).status.get("latestCreatedRevision") == "hello-00001")
    await plane.settle()
    for _ in range(2):
        await controller.sync(KEY)
    sets, _ = await plane.client.list(REPLICA_SET, "default", as_=ReplicaSet)
    assert [each.name for each in sets] == ["hello-00001"]
    await controller.stop()


async def test_scaling_a_revision_that_serves_leaves_its_function_alone_for_a_moment(plane, world) -> None:
    """Calls that wait for the Pod come first; only `status.replicas` has to be written, and that within a second."""
    await world.apply(scale={"initial": 0})
    await world.condition_is("True", "RevisionReady")
    await plane.settle()
    queue = world.controller.queue
    looked: list[str] = []
    delays: list[float] = []
    add, add_after = queue.add, queue.add_after
    queue.add = lambda key: (looked.append(key), add(key))
    queue.add_after = lambda key, seconds: delays.append(seconds)
    version = world.functions.get(KEY).metadata.resource_version
    await plane.client.scale(REPLICA_SET, "hello-00001", "default", 1)
    await plane.until(lambda: world.pods.values() and world.sets.get("default/hello-00001").status.replicas == 1)
    assert looked == []
    assert world.functions.get(KEY).metadata.resource_version == version
    await world.make_ready("hello-00001")
    await plane.settle()
    assert looked == [] and delays and 0 < min(delays) <= max(delays) <= 1
    queue.add_after = add_after
    queue.add_after(KEY, min(delays))
    await plane.until(lambda: world.status.get("replicas") == 1)
    looked.clear()
    trouble = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    await plane.client.patch(
        REPLICA_SET, "hello-00001", "default", {"status": {"conditions": [trouble]}}, subresource="status"
    )
    await plane.until(lambda: KEY in looked)
    looked.clear()
    crash = {
        "name": "function",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    (pod,) = world.pods.values()
    await plane.pod_ready(pod.name, ready=False, containerStatuses=[crash])
    await plane.until(lambda: KEY in looked)
    await plane.client.patch(
        REPLICA_SET, "hello-00001", "default", {"metadata": {"annotations": {"faaslite.dev/scale": "{}"}}}
    )
    await plane.until(lambda: world.sets.get("default/hello-00001").metadata.annotations["faaslite.dev/scale"] != "{}")


async def test_an_instance_that_dies_in_a_call_is_a_condition_until_another_revision_serves(
    world: World, plane: Any
) -> None:
    await world.apply()
    await world.make_ready("hello-00001")
    await world.condition_is("True", "RevisionReady")
    assert not world.condition("Healthy")
    died = {"reason": "OOMKilled", "exitCode": 137, "containerID": "fake://1", "finishedAt": timestamp()}
    (pod,) = world.pods.values()
    again = {
        "name": "function",
        "ready": True,
        "restartCount": 1,
        "state": {"running": {}},
        "lastState": {"terminated": died},
    }
    await plane.pod_ready(pod.name, ip="127.64.0.1", containerStatuses=[again])
    told = await world.condition_is("False", "OOMKilled", "Healthy")
    assert "raise spec.resources.limits.memory" in told["message"]
    assert world.condition()["status"] == "True"
    await world.apply(package={"digest": OTHER})
    await world.make_ready("hello-00002")
    told = await world.condition_is("True", "NoTrouble", "Healthy")
    assert told["message"].startswith("hello-00001 takes no calls any more; the last was OOMKilled")
