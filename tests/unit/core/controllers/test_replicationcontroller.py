"""ReplicationControllers: what ReplicaSets do, by a selector that is plain labels."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.kinds import POD, REPLICA_SET, REPLICATION_CONTROLLER
from core.api.views import Pod, ReplicationController
from core.controllers import replicas
from core.controllers.replicaset import ReplicaSetController
from core.controllers.replicationcontroller import ReplicationManager


def controller(name: str, count: int) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {"metadata": {"name": name}, "spec": {"replicas": count, "template": template}}


def test_its_selector_is_read_as_a_label_selector() -> None:
    found = msgspec.convert({"spec": {"selector": {"app": "a"}}}, ReplicationController)
    selector = replicas.selector_of(found)
    assert selector is not None and selector.matches({"app": "a", "more": "b"}) and not selector.matches({"app": "b"})
    assert replicas.selector_of(msgspec.convert({"spec": {}}, ReplicationController)) is None


async def test_it_scales_its_own_pods_and_leaves_those_of_a_replica_set(plane) -> None:
    pods, found = await plane.see(POD, Pod), await plane.see(REPLICATION_CONTROLLER, ReplicationController)
    await plane.run(
        ReplicationManager(plane.client, plane.informers),
        ReplicaSetController(plane.client, plane.informers),
    )
    document = controller("rc", 2)
    template = document["spec"]["template"]
    same = {"metadata": {"name": "rc"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "rc"}}, "template": template}}  # fmt: skip
    await plane.client.create(REPLICATION_CONTROLLER, document, "default")
    await plane.client.create(REPLICA_SET, same, "default")

    def of(kind: str) -> list[Pod]:
        return [each for each in pods.values() if each.metadata.controller and each.metadata.controller.kind == kind]

    for count in (2, 3, 1):
        await plane.client.scale(REPLICATION_CONTROLLER, "rc", "default", count)
        await plane.until(lambda count=count: len(of("ReplicationController")) == count)
        await plane.until(lambda count=count: found.get("default/rc").status.replicas == count)
    assert len(of("ReplicaSet")) == 1
    owner = of("ReplicationController")[0].metadata.controller
    assert (owner.api_version, owner.name, owner.uid) == ("v1", "rc", found.get("default/rc").metadata.uid)
    assert found.get("default/rc").status.fully_labeled_replicas == 1


async def test_an_orphan_is_adopted(plane) -> None:
    pods = await plane.see(POD, Pod)
    containers = [{"name": "c", "image": "i"}]
    orphan = {"metadata": {"name": "orphan", "labels": {"app": "rc"}}, "spec": {"containers": containers}}
    await plane.client.create(POD, orphan, "default")
    await plane.run(ReplicationManager(plane.client, plane.informers))
    await plane.client.create(REPLICATION_CONTROLLER, controller("rc", 1), "default")
    await plane.until(lambda: pods.get("default/orphan").metadata.controller)
    await plane.settle()
    assert len(pods.values()) == 1
