"""The ReplicaSet controller against the real API server."""

from __future__ import annotations

from typing import Any

from core.api.kinds import NAMESPACE, POD, REPLICA_SET
from core.api.views import Pod, ReplicaSet
from core.client.workqueue import WorkQueue
from core.controllers.replicaset import ReplicaSetController


def replica_set(name: str, replicas: int, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


async def test_pods_as_many_as_asked_for_and_never_more(plane) -> None:
    pods, sets = await plane.see(POD, Pod), await plane.see(REPLICA_SET, ReplicaSet)
    created: set[str] = set()
    pods.add_handler(lambda old, new: created.add(new.metadata.uid) if old is None else None)
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 100), "default")
    await plane.until(lambda: sets.get("default/rs") and sets.get("default/rs").status.replicas == 100)
    await plane.settle()
    assert len(created) == len(pods.values()) == 100
    owner = pods.values()[0].metadata.controller
    assert (owner.kind, owner.name, owner.uid) == ("ReplicaSet", "rs", sets.get("default/rs").metadata.uid)
    assert all(each.name.startswith("rs-") for each in pods.values())


async def test_scale_up_and_down(plane) -> None:
    pods, sets = await plane.see(POD, Pod), await plane.see(REPLICA_SET, ReplicaSet)
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 0), "default")
    for count in (3, 1, 4, 0):
        await plane.client.scale(REPLICA_SET, "rs", "default", count)
        await plane.until(lambda count=count: len(pods.values()) == count)
        await plane.until(lambda count=count: sets.get("default/rs").status.replicas == count)
    status = sets.get("default/rs").status
    assert status.observed_generation == sets.get("default/rs").metadata.generation


async def test_a_pod_that_goes_is_replaced_and_readiness_is_counted(plane) -> None:
    pods, sets = await plane.see(POD, Pod), await plane.see(REPLICA_SET, ReplicaSet)
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 2), "default")
    await plane.until(lambda: len(pods.values()) == 2)
    first, second = pods.values()
    await plane.pod_ready(second.name)
    await plane.until(lambda: sets.get("default/rs").status.ready_replicas == 1)
    await plane.client.delete(POD, first.name, "default")
    await plane.until(lambda: first.key not in {each.key for each in pods.values()} and len(pods.values()) == 2)
    assert pods.get(second.key) is not None


async def test_adoption_and_release(plane) -> None:
    pods = await plane.see(POD, Pod)
    orphan = {
        "metadata": {"name": "orphan", "labels": {"app": "rs"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await plane.client.create(POD, orphan, "default")
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 1), "default")
    await plane.until(lambda: pods.get("default/orphan").metadata.controller)
    await plane.settle()
    assert len(pods.values()) == 1
    await plane.client.patch(POD, "orphan", "default", {"metadata": {"labels": {"app": "else"}}})
    await plane.until(lambda: pods.get("default/orphan").metadata.controller is None and len(pods.values()) == 2)


async def test_a_refused_pod_becomes_a_condition_and_is_tried_again(plane) -> None:
    sets = await plane.see(REPLICA_SET, ReplicaSet)
    await plane.client.create(NAMESPACE, {"metadata": {"name": "going", "finalizers": ["test/hold"]}})
    await plane.client.create(REPLICA_SET, replica_set("rs", 1), "going")
    await plane.client.delete(NAMESPACE, "going")
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    found = await plane.until(lambda: sets.get("going/rs").status.conditions)
    assert (found[0].type, found[0].status, found[0].reason) == ("ReplicaFailure", "True", "FailedCreate")
    assert "being terminated" in found[0].message


async def test_a_stale_cache_creates_nothing_twice(plane) -> None:
    """`sync` again and again before the cache shows what the first one created."""
    controller = ReplicaSetController(plane.client, plane.informers)
    await plane.client.create(REPLICA_SET, replica_set("rs", 5), "default")
    await plane.synced()
    await plane.informers.stop()  # from here on the cache stands still
    for _ in range(3):
        await controller.sync("default/rs")
    pods, _ = await plane.client.list(POD, "default")
    assert len(pods) == 5
    await controller.stop()


async def test_an_orphan_that_comes_later_is_adopted_and_counted(plane) -> None:
    pods = await plane.see(POD, Pod)
    adopted: set[str] = set()
    pods.add_handler(lambda old, new: adopted.add(new.name) if new and new.metadata.controller else None)
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 1), "default")
    await plane.until(lambda: len(pods.values()) == 1)
    await plane.settle()
    orphan = {
        "metadata": {"name": "orphan", "labels": {"app": "rs"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await plane.client.create(POD, orphan, "default")
    await plane.until(lambda: "orphan" in adopted and len(pods.values()) == 1)


async def test_nothing_is_written_between_a_scale_and_its_pod(plane) -> None:
    """Who waits for the Pod doesn't wait for the status of its set, which follows."""
    pods, sets = await plane.see(POD, Pod), await plane.see(REPLICA_SET, ReplicaSet)
    await plane.run(ReplicaSetController(plane.client, plane.informers))
    await plane.client.create(REPLICA_SET, replica_set("rs", 0), "default")
    await plane.until(lambda: sets.get("default/rs") and sets.get("default/rs").status.observed_generation == 1)
    scaled = await plane.client.scale(REPLICA_SET, "rs", "default", 1)
    found = await plane.until(lambda: pods.values())
    version = int(scaled["metadata"]["resourceVersion"])
    assert int(found[0].metadata.resource_version) == version + 1
    status = await plane.until(lambda: (its := sets.get("default/rs").status).replicas == 1 and its)
    assert status.observed_generation == 2
    assert int(sets.get("default/rs").metadata.resource_version) == version + 2, "one write of the status is enough"


async def test_a_set_that_changed_before_its_cache_did_is_looked_at_once_it_does(plane) -> None:
    controller = ReplicaSetController(plane.client, plane.informers)
    await plane.client.create(REPLICA_SET, replica_set("rs", 1), "default")
    await plane.synced()
    await plane.informers.stop()  # from here on the cache stands still
    controller.queue.close()
    controller.queue = queue = WorkQueue()
    await controller.sync("default/rs")
    made = (await plane.client.list(POD, "default", as_=Pod))[0]
    controller.on_pod(None, made[0])
    assert len(queue) == 0, "its status alone changes, which can wait"
    await plane.client.delete(POD, made[0].name, "default", grace=0)
    await controller.sync("default/rs")  # the cache has no Pod: another is made
    await controller.sync("default/rs")  # and now it isn't trusted
    made = (await plane.client.list(POD, "default", as_=Pod))[0]
    controller.on_pod(None, made[0])
    assert len(queue) == 1
    queue.close()
    await controller.stop()
