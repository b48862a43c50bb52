"""Builds in the cluster, against the real API server; the test plays the node that runs build Pods."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION, EVENT, POD, REPLICA_SET, ROLE_BINDING, SECRET
from core.api.views import Pod, ReplicaSet, Secret
from core.errors import NotFound
from faaslite.api.crd import function_definition
from faaslite.api.names import ANNOTATION_BUILD_ASKED, ANNOTATION_RESOLVED, FUNCTION, LABEL_BUILD
from faaslite.controllers.function import FunctionController, FunctionObject

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LAYER, SECOND = "sha256:" + "c" * 64, "sha256:" + "d" * 64


class World:
    def __init__(self, plane: Any) -> None:
        self.plane = plane
        self.client = plane.client
        self.controller = FunctionController(plane.client, plane.informers, url="http://gateway/")

    async def begin(self) -> None:
        await self.client.create(CUSTOM_RESOURCE_DEFINITION, function_definition())
        self.functions = await self.plane.see(FUNCTION, FunctionObject)
        self.sets = await self.plane.see(REPLICA_SET, ReplicaSet)
        self.pods = await self.plane.see(POD, Pod)
        self.secrets = await self.plane.see(SECRET, Secret)
        await self.plane.run(self.controller)

    async def apply(self, name: str = "hello", *, asked: str = "", **package: Any) -> None:
        package = {"digest": DIGEST, "requirements": "six", **package}
        annotations = {ANNOTATION_BUILD_ASKED: asked} if asked else {}
        spec = {"package": package, "scale": {"initial": 0}}
        if self.functions.get(f"default/{name}") is None:
            metadata = {"name": name, "annotations": annotations}
            document = {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": metadata, "spec": spec}
            await self.client.create(FUNCTION, document, "default")
        else:
            change = {"metadata": {"annotations": annotations}, "spec": {"package": package}}
            await self.client.patch(FUNCTION, name, "default", change)

    def builds(self) -> list[Pod]:
        return [
            each
            for each in self.pods.values()
            if LABEL_BUILD in each.metadata.labels and each.metadata.deletion_timestamp is None
        ]

    async def build(self, number: int = 1) -> Pod:
        """The newest of so many build Pods."""
        await self.plane.until(lambda: len(self.builds()) == number)
        return max(self.builds(), key=lambda each: int(each.metadata.resource_version))

    async def ends(self, pod: Pod, message: str, code: int = 0, reason: str = "Completed") -> None:
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2000-01-01T00:00:00Z"}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "build", "state": {"terminated": ended}}],
        }
        await self.client.patch(POD, pod.name, "default", {"status": status}, subresource="status")

    async def condition(self, type_: str, status: str, reason: str, name: str = "hello") -> dict[str, Any]:
        def holds() -> Any:
            found = self.functions.get(f"default/{name}")
            conditions = found.status.get("conditions", ()) if found else ()
            return next(
                (c for c in conditions if (c["type"], c["status"], c["reason"]) == (type_, status, reason)), None
            )

        return await self.plane.until(holds)

    def layer_of(self, revision: str) -> str:
        volumes = self.sets.get(f"default/{revision}").spec.template["spec"]["volumes"]
        return next(each["csi"]["volumeAttributes"]["digest"] for each in volumes if each["name"] == "layer")

    @property
    def status(self) -> dict[str, Any]:
        return self.functions.get("default/hello").status


@pytest.fixture
async def world(plane: Any) -> World:
    world = World(plane)
    await world.begin()
    return world


def made(digest: str) -> str:
    return json.dumps({"digest": digest, "size": 5})


async def test_a_layer_is_built_once_and_the_revision_waits_for_it(world: World, plane: Any) -> None:
    await world.apply()
    pod = await world.build()
    waiting = await world.condition("Ready", "Unknown", "BuildPending")
    assert pod.name in waiting["message"] and not world.sets.values()
    await plane.client.patch(POD, pod.name, "default", {"status": {"phase": "Running"}}, subresource="status")
    await world.condition("Built", "Unknown", "Building")
    assert world.status["build"] == {"key": pod.metadata.labels[LABEL_BUILD], "asked": "", "pod": pod.name}
    await world.ends(pod, made(LAYER))
    await world.condition("Ready", "True", "RevisionReady")
    await world.condition("Built", "True", "LayerReady")
    assert world.layer_of("hello-00001") == LAYER
    assert world.status["layers"] == [{"key": pod.metadata.labels[LABEL_BUILD], "digest": LAYER}]
    await world.plane.until(lambda: not world.builds())  # it ended long ago
    await world.apply(digest=OTHER)  # code alone
    await plane.until(lambda: world.sets.get("default/hello-00002") is not None)
    assert world.layer_of("hello-00002") == LAYER and not world.builds()


async def test_the_token_is_for_layers_of_the_namespace_and_ends_with_the_build(world: World, plane: Any) -> None:
    await world.apply()
    pod = await world.build()
    secret = world.secrets.get(f"default/{pod.name}")
    token = base64.b64decode(secret.data["token"]).decode()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:default:layer-builder"
    assert claims["kubernetes.io"]["secret"]["name"] == pod.name
    binding = await plane.client.get(ROLE_BINDING, "faaslite-layer-builder", "default")
    assert binding["roleRef"]["name"] == "faaslite-builder"
    await world.condition("Built", "Unknown", "BuildPending")
    await world.ends(pod, "no", 1)
    await plane.until(lambda: world.secrets.get(f"default/{pod.name}") is None)


async def test_what_failed_is_said_and_the_last_good_revision_serves_on(world: World, plane: Any) -> None:
    await world.apply()
    await world.ends(await world.build(), made(LAYER))
    await world.condition("Ready", "True", "RevisionReady")
    await plane.until(lambda: not world.builds())
    await world.apply(requirements="nothing-like-this")
    pod = await world.build()
    await world.ends(pod, "requirements.txt: No matching distribution", 1, "Error")
    found = await world.condition("Ready", "False", "BuildFailed")
    assert found["message"] == "requirements.txt: No matching distribution (hello-00001 keeps serving)"
    assert (await world.condition("Built", "False", "BuildFailed"))[
        "message"
    ] == "requirements.txt: No matching distribution"
    assert world.status["traffic"][0]["revision"] == "hello-00001" and len(world.sets.values()) == 1
    await plane.settle()
    assert [each.name for each in world.builds()] == [pod.name]  # not tried again by itself
    await world.apply(requirements="six")  # and back, to a layer that is remembered
    await world.condition("Ready", "True", "RevisionReady")
    await plane.until(lambda: not world.builds())

    async def events() -> list[str]:
        return [each["reason"] for each in (await plane.client.list(EVENT, "default"))[0]]

    seen = await plane.see(EVENT)
    await plane.until(lambda: seen.values())
    await world.controller._recorder.stop()
    assert {"BuildStarted", "LayerBuilt", "BuildFailed"} <= set(await events())


async def test_a_build_that_failed_is_tried_again_when_it_is_asked_for_again(world: World) -> None:
    await world.apply(asked="1")
    first = await world.build()
    await world.ends(first, "no network", 1)
    await world.condition("Built", "False", "BuildFailed")
    await world.apply(asked="2")
    await world.plane.until(lambda: world.builds() and world.builds()[0].name != first.name)
    await world.condition("Built", "Unknown", "BuildPending")
    second = await world.build()  # the first has gone
    await world.ends(second, made(LAYER))
    await world.condition("Ready", "True", "RevisionReady")


async def test_functions_that_ask_for_the_same_share_a_build_and_its_layer(world: World) -> None:
    await world.apply("hello", asked="1")
    pod = await world.build()
    await world.apply("second", asked="2")
    await world.condition("Built", "Unknown", "BuildPending", "second")
    await world.plane.settle()
    assert [each.name for each in world.builds()] == [pod.name]
    await world.ends(pod, made(LAYER))
    for name in ("hello", "second"):
        await world.condition("Ready", "True", "RevisionReady", name)
        assert world.layer_of(f"{name}-00001") == LAYER
    await world.plane.until(lambda: not world.builds())
    await world.apply("third")
    await world.condition("Ready", "True", "RevisionReady", "third")
    assert world.layer_of("third-00001") == LAYER and not world.builds()


async def test_the_same_is_resolved_anew_where_that_is_asked_for(world: World, plane: Any) -> None:
    await world.apply()
    await world.ends(await world.build(), made(LAYER))
    await world.condition("Ready", "True", "RevisionReady")
    await plane.until(lambda: not world.builds())
    change = {"metadata": {"annotations": {ANNOTATION_RESOLVED: "today"}}}
    await plane.client.patch(FUNCTION, "hello", "default", change)
    await world.ends(await world.build(), made(SECOND))
    await plane.until(lambda: world.sets.get("default/hello-00002") is not None)
    assert world.layer_of("hello-00002") == SECOND


async def test_a_build_that_nobody_waits_for_any_more_is_ended(world: World, plane: Any) -> None:
    await world.apply()
    pod = await world.build()
    await world.apply(requirements="", layer=LAYER)
    await world.condition("Ready", "True", "RevisionReady")
    await plane.until(lambda: not world.builds())
    with pytest.raises(NotFound):
        await plane.client.get(SECRET, pod.name, "default")
    assert "build" not in world.status
    assert all(each["type"] != "Built" for each in world.status["conditions"])


async def test_what_keeps_the_pod_from_starting_is_said(world: World, plane: Any) -> None:
    await world.apply()
    pod = await world.build()
    waiting = {"name": "build", "state": {"waiting": {"reason": "ErrImagePull", "message": "no python3.14 here"}}}
    status = {"phase": "Pending", "containerStatuses": [waiting]}
    await plane.client.patch(POD, pod.name, "default", {"status": status}, subresource="status")
    found = await world.condition("Ready", "False", "ErrImagePull")
    assert "no python3.14 here" in found["message"]
