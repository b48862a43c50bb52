"""A kopf operator in a process of its own: finalizers, status, timers, daemons, events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube import Client, KubeConfig
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event
from lightkube.types import PatchType

OPERATOR = Path(__file__).with_name("operator_under_test.py")
GROUP = "kopf.example.dev"
Gadget = create_namespaced_resource(GROUP, "v1", "Gadget", "gadgets")
Definition = create_global_resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
FINALIZER = "kopf.zalando.org/KopfFinalizerMarker"


@pytest.fixture
def client(kubeconfig: str) -> Iterator[Client]:
    made = Client(config=KubeConfig.from_file(kubeconfig), field_manager="test")
    yield made
    made._client._client.close()


@pytest.fixture
def operator(client: Client, kubeconfig: str, tmp_path: Path) -> Iterator[Path]:
    """The log of a running operator."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "Gadget", "plural": "gadgets"}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    definition = Definition(metadata=ObjectMeta(name=f"gadgets.{GROUP}"), spec=spec)
    client.create(definition)
    log = tmp_path / "kopf.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", "default", str(OPERATOR)],
            stdout=out, stderr=out, env={"KUBECONFIG": kubeconfig, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    client.delete(Definition, f"gadgets.{GROUP}")


def test_an_operator_works(client: Client, operator: Path, name: str) -> None:
    made = client.create(Gadget(metadata=ObjectMeta(name=name, namespace="default"), spec={"size": 3}))
    since = made.metadata.resourceVersion

    def until(what: str, *, at: str = since) -> Gadget:
        for operation, found in client.watch(
            Gadget, namespace="default", fields={"metadata.name": name}, server_timeout=15, resource_version=at
        ):
            status = found.status or {}
            reached = {
                "made": status.get("phase") == "Made" and status.get("created") == {"size": 3},
                "ticking": status.get("ticks") == 2,
                "resized": status.get("resized") == "3 to 5",
                "gone": operation == "DELETED",
            }
            if reached[what]:
                return found
        raise AssertionError(f"not {what}: {operator.read_text()}")

    found = until("made")
    assert found.metadata.finalizers == [FINALIZER]
    until("ticking")
    reasons = set()
    for _, event in client.watch(Event, namespace="default", fields={"involvedObject.name": name}, server_timeout=15):
        reasons.add(event.reason)
        if {"Made", "Watched"} <= reasons:
            break
    client.patch(Gadget, name, {"spec": {"size": 5}}, patch_type=PatchType.MERGE)
    last = until("resized").metadata.resourceVersion
    client.delete(Gadget, name)
    until("gone", at=last)
    assert "Traceback" not in operator.read_text()
