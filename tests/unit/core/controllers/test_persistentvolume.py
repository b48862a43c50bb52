"""The volume controllers and the scheduler's part against the real API server; there is no node to keep data."""

from __future__ import annotations

from typing import Any

import pytest

from core.api.kinds import NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS
from core.api.views import PersistentVolume, PersistentVolumeClaim, Pod
from core.api.volumes import DEFAULT_CLASS, HOSTNAME, LOCAL_DRIVER
from core.controllers.ephemeralvolumes import EphemeralVolumes
from core.controllers.persistentvolume import VolumeController
from core.controllers.storageprotection import StorageProtection
from core.scheduler.scheduler import Scheduler

SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@pytest.fixture
async def claims(plane: Any) -> Any:
    found = await plane.see(PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
    await plane.run(
        VolumeController(plane.client, plane.informers),
        StorageProtection(plane.client, plane.informers),
        EphemeralVolumes(plane.client, plane.informers),
        Scheduler(plane.client, plane.informers),
    )
    return found


async def make_class(plane: Any, mode: str = "WaitForFirstConsumer", **more: Any) -> None:
    document = {"metadata": {"name": "s", "annotations": {DEFAULT_CLASS: "true"}}, "provisioner": LOCAL_DRIVER}
    await plane.client.create(STORAGE_CLASS, {**document, "volumeBindingMode": mode, **more})


async def node(plane: Any, name: str) -> None:
    await plane.node(name)
    await plane.client.patch(NODE, name, "", {"metadata": {"labels": {HOSTNAME: name}}})


def pod(name: str, *volumes: Any, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": list(volumes), **spec}}  # fmt: skip


CLAIMED = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}


async def test_a_claim_waits_for_its_pod_and_the_next_pod_goes_where_the_volume_is(plane: Any, claims: Any) -> None:
    pods = await plane.see(POD, Pod)
    for name in ("n1", "n2", "n3"):
        await node(plane, name)
    await make_class(plane)
    made = await plane.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "c"}, "spec": SPEC}, "default")
    assert made["spec"]["storageClassName"] == "s" and made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]  # fmt: skip
    await plane.settle()
    assert claims.get("default/c").status.phase == "Pending"
    await plane.client.create(POD, pod("one", CLAIMED, nodeSelector={HOSTNAME: "n2"}), "default")
    await plane.until(lambda: pods.get("default/one") and pods.get("default/one").spec.node_name == "n2")
    assert claims.get("default/c").status.phase == "Bound"
    for name in ("two", "three"):
        await plane.client.create(POD, pod(name, CLAIMED), "default")
        await plane.until(lambda name=name: (pods.get(f"default/{name}") or Pod()).spec.node_name == "n2")
    await plane.client.create(POD, pod("else", CLAIMED, nodeSelector={HOSTNAME: "n3"}), "default")
    await plane.until(lambda: any("PersistentVolume's node affinity" in each.message for each in (pods.get("default/else") or Pod()).status.conditions))  # fmt: skip


async def test_what_is_in_use_stays_until_it_isnt(plane: Any, claims: Any) -> None:
    volumes, pods = await plane.see(PERSISTENT_VOLUME, PersistentVolume), await plane.see(POD, Pod)
    await node(plane, "n1")
    await make_class(plane, "Immediate")
    await plane.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "c"}, "spec": SPEC}, "default")
    await plane.until(lambda: (claims.get("default/c") or PersistentVolumeClaim()).status.phase == "Bound")
    (volume,) = volumes.values()
    await plane.until(lambda: volumes.get(volume.name).status.phase == "Bound")
    await plane.client.create(POD, pod("p", CLAIMED), "default")
    await plane.until(lambda: (pods.get("default/p") or Pod()).spec.node_name)
    await plane.client.delete(PERSISTENT_VOLUME_CLAIM, "c", "default")
    await plane.client.delete(PERSISTENT_VOLUME, volume.name)
    await plane.settle()
    assert claims.get("default/c") and volumes.get(volume.name)
    await plane.client.delete(NODE, "n1")  # nobody is there to be asked to remove the folder
    await plane.client.delete(POD, "p", "default", grace=0)
    await plane.until(lambda: claims.get("default/c") is None and volumes.get(volume.name) is None)


async def test_a_retained_volume_is_released_and_not_given_to_another(plane: Any, claims: Any) -> None:
    volumes = await plane.see(PERSISTENT_VOLUME, PersistentVolume)
    by_hand = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "storageClassName": "hand"}  # fmt: skip
    await plane.client.create(PERSISTENT_VOLUME, {"metadata": {"name": "v"}, "spec": by_hand})
    spec = {**SPEC, "storageClassName": "hand"}
    for name in ("c", "d"):
        await plane.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": name}, "spec": spec}, "default")
        if name == "c":
            await plane.until(lambda: (claims.get("default/c") or PersistentVolumeClaim()).status.phase == "Bound")
            await plane.client.delete(PERSISTENT_VOLUME_CLAIM, "c", "default")
            await plane.until(lambda: volumes.get("v").status.phase == "Released")
    await plane.settle()
    assert claims.get("default/d").status.phase == "Pending"
    await plane.client.patch(PERSISTENT_VOLUME, "v", "", {"spec": {"claimRef": None}})
    await plane.until(lambda: claims.get("default/d").status.phase == "Bound")


async def test_two_claims_never_share_a_volume(plane: Any, claims: Any) -> None:
    by_hand = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "storageClassName": "hand"}  # fmt: skip
    for name in ("v", "w", "x"):
        await plane.client.create(PERSISTENT_VOLUME, {"metadata": {"name": name}, "spec": by_hand})
    spec = {**SPEC, "storageClassName": "hand"}
    for number in range(5):
        await plane.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": f"c{number}"}, "spec": spec}, "default")  # fmt: skip
    await plane.until(lambda: sum(each.status.phase == "Bound" for each in claims.values()) == 3)
    await plane.settle()
    bound = [each.spec.volume_name for each in claims.values() if each.spec.volume_name]
    assert sorted(bound) == ["v", "w", "x"]


async def test_a_pods_own_claim_is_made_for_it(plane: Any, claims: Any) -> None:
    pods = await plane.see(POD, Pod)
    await node(plane, "n1")
    await make_class(plane)
    own = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC}}}
    await plane.client.create(POD, pod("p", own), "default")
    await plane.until(lambda: (pods.get("default/p") or Pod()).spec.node_name)
    found = claims.get("default/p-scratch")
    assert found.status.phase == "Bound" and found.metadata.labels == {"a": "b"}
    assert found.metadata.controller.uid == pods.get("default/p").metadata.uid


async def test_a_claim_grows_where_its_class_lets_it(plane: Any, claims: Any) -> None:
    await node(plane, "n1")
    await make_class(plane, "Immediate", allowVolumeExpansion=True)
    await plane.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "c"}, "spec": SPEC}, "default")
    await plane.until(lambda: (claims.get("default/c") or PersistentVolumeClaim()).status.phase == "Bound")
    patch = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
    await plane.client.patch(PERSISTENT_VOLUME_CLAIM, "c", "default", patch)
    await plane.until(lambda: claims.get("default/c").status.capacity == {"storage": "3Gi"})
