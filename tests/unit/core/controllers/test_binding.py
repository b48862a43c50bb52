"""Claims and volumes, as rows: what there is, what is to be done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api.views import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from core.api.volumes import BIND_COMPLETED, HOSTNAME, LOCAL_DRIVER, PROVISIONED_BY
from core.controllers import binding
from core.controllers.binding import Bind, Lost, Phase, Provision, Reclaim, Unbind, Wait


def claim(size: str = "2Gi", *, notes: Any = None, **spec: Any) -> PersistentVolumeClaim:
    meta = {"name": "c", "namespace": "n", "uid": "u", "annotations": notes or {}}
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "storageClassName": "s", **spec}  # fmt: skip
    return msgspec.convert({"metadata": meta, "spec": body, "status": {"phase": "Pending"}}, PersistentVolumeClaim)


def volume(name: str, size: str = "2Gi", *, phase: str = "Available", meta: Any = None, **spec: Any) -> PersistentVolume:  # fmt: skip
    body = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "storageClassName": "s", **spec}
    return msgspec.convert({"metadata": {"name": name, **(meta or {})}, "spec": body, "status": {"phase": phase}}, PersistentVolume)  # fmt: skip


def storage_class(provisioner: str = LOCAL_DRIVER, mode: str = "Immediate") -> StorageClass:
    return msgspec.convert({"metadata": {"name": "s"}, "provisioner": provisioner, "volumeBindingMode": mode}, StorageClass)  # fmt: skip


def on(host: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]}
    return {"required": {"nodeSelectorTerms": [term]}}


NODE = msgspec.convert({"metadata": {"name": "n1", "labels": {HOSTNAME: "n1"}}}, Node)
MINE = {"namespace": "n", "name": "c", "uid": "u"}
OTHERS = {"namespace": "n", "name": "x", "uid": "v"}


@pytest.mark.parametrize(
    ("asked", "volumes", "taken"),
    [
        pytest.param(claim(), [volume("a", "9Gi"), volume("b", "3Gi"), volume("c", "1Gi")], "b", id="the smallest that fits"),
        pytest.param(claim(), [volume("a", storageClassName="t"), volume("b", volumeMode="Block"), volume("c", accessModes=["ReadOnlyMany"])], "", id="class, mode and access count"),
        pytest.param(claim(storageClassName=""), [volume("a", storageClassName="")], "a", id="no class is a class"),
        pytest.param(claim(), [volume("a", claimRef=OTHERS), volume("b", phase="Released"), volume("c", phase="Pending")], "", id="none that is taken, was taken or isn't looked at yet"),
        pytest.param(claim(), [volume("a"), volume("b", "9Gi", claimRef={"namespace": "n", "name": "c"})], "b", id="the one that is kept for it"),
        pytest.param(claim(selector={"matchLabels": {"k": "v"}}), [volume("a"), volume("b", "5Gi", meta={"labels": {"k": "v"}})], "b", id="by labels"),
    ],
)  # fmt: skip
def test_which_volume_a_claim_gets(asked, volumes, taken):
    step = binding.claim_step(asked, {each.name: each for each in volumes}, None, None)
    assert (step.volume.name if isinstance(step, Bind) else "") == taken


@pytest.mark.parametrize(
    ("asked", "volumes", "found", "node", "outcome"),
    [
        (claim(), [], storage_class(), None, Provision),
        (claim(), [], storage_class("ebs.csi.aws.com"), None, Provision),
        (claim(), [], storage_class(mode="WaitForFirstConsumer"), None, "waiting for first consumer"),
        (claim(), [], storage_class(mode="WaitForFirstConsumer"), NODE, Provision),
        (claim(), [volume("a", nodeAffinity=on("n2"))], storage_class("kubernetes.io/no-provisioner", "WaitForFirstConsumer"), NODE, "no volume plugin matched"),
        (claim(), [volume("a", nodeAffinity=on("n1"))], storage_class("kubernetes.io/no-provisioner", "WaitForFirstConsumer"), NODE, Bind),
        (claim(), [], None, None, 'storageclass.storage.k8s.io "s" not found'),
        (claim(storageClassName=""), [], None, None, "no storage class is set"),
        (claim(volumeMode="Block"), [], storage_class(), None, "does not support block"),
        (claim(volumeName="a"), [], None, None, Wait),
        (claim(volumeName="a"), [volume("a")], None, None, Bind),
        (claim(volumeName="a"), [volume("a", "1Gi")], None, None, "requested PV is too small"),
        (claim(volumeName="a"), [volume("a", claimRef=OTHERS)], None, None, "already bound to a different claim"),
        (claim(volumeName="a", notes={BIND_COMPLETED: "yes"}), [volume("a", claimRef=MINE)], None, None, Bind),
        (claim(volumeName="a", notes={BIND_COMPLETED: "yes"}), [], None, None, Lost),
        (claim(volumeName="a", notes={BIND_COMPLETED: "yes"}), [volume("a", claimRef=OTHERS)], None, None, Lost),
    ],
)  # fmt: skip
def test_what_is_done_for_a_claim(asked, volumes, found, node, outcome):
    step = binding.claim_step(asked, {each.name: each for each in volumes}, found, node)
    if isinstance(outcome, str):
        assert isinstance(step, Wait) and step.event is not None and outcome in step.event.message
    else:
        assert isinstance(step, outcome)


@pytest.mark.parametrize(
    ("found", "of", "outcome"),
    [
        (volume("a"), None, Phase("Available")),
        (volume("a", claimRef={"namespace": "n", "name": "c"}), None, Phase("Available")),
        (volume("a", claimRef=MINE), claim(), Phase("Available")),
        (volume("a", claimRef=MINE), claim(volumeName="a"), Phase("Bound")),
        (volume("a", claimRef=MINE), None, Reclaim()),
        (volume("a", claimRef={**MINE, "uid": "older"}), claim(), Reclaim()),
        (volume("a", claimRef=MINE), claim(volumeName="b"), Unbind()),
        (volume("a", claimRef=MINE, persistentVolumeReclaimPolicy="Delete", meta={"annotations": {PROVISIONED_BY: "p"}}), claim(volumeName="b"), Reclaim()),
    ],
)  # fmt: skip
def test_what_becomes_of_a_volume(found, of, outcome):
    assert binding.volume_step(found, of) == outcome


def test_a_volume_that_is_made_is_its_claims_and_its_nodes():
    made = binding.volume_document(claim(), storage_class(), NODE)
    assert made["metadata"]["name"] == "pvc-u" and made["spec"]["capacity"] == {"storage": "2Gi"}
    assert (made["spec"]["claimRef"]["uid"], made["spec"]["persistentVolumeReclaimPolicy"]) == ("u", "Delete")
    view = msgspec.convert(made, PersistentVolume)
    assert binding.node_names(view) == ["n1"] and binding.is_for(view, claim())
    assert binding.affine(view, "n1", NODE.metadata.labels) and not binding.affine(view, "n2", {HOSTNAME: "n2"})
