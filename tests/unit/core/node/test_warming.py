"""Templates that a node gets ready for: what is fetched, and what the runtime is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from core.client.informer import Informers
from core.client.rest import Client
from core.node.runtime.base import ContainerSpec, SandboxSpec
from core.node.runtime.fake import FakeRuntime
from core.node.runtime.guard import Guard
from core.node.volumes.base import VolumeError
from core.node.warming import Warming

SETS = "/apis/apps/v1/namespaces/team/replicasets"


class Plugin:
    """Has every archive but those that are called `gone`."""

    async def prefetch(self, attributes: Mapping[str, str]) -> Path:
        if attributes["digest"] == "gone":
            raise VolumeError("nobody has it")
        return Path("/cache") / attributes["digest"]


class Listener(FakeRuntime):
    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[tuple[SandboxSpec, ContainerSpec]] = asyncio.Queue()

    async def warm_up(self, sandbox: SandboxSpec, container: ContainerSpec) -> None:
        self.told.put_nowait((sandbox, container))


def replica_set(name: str, digest: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "faaslite/python",
        "env": [{"name": "A", "value": "1"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "package", "mountPath": "/p"}, {"name": "secret", "mountPath": "/s"}],
    }
    volumes = [
        {"name": "package", "csi": {"driver": "packages", "volumeAttributes": {"digest": digest}}},
        {"name": "secret", "secret": {"secretName": "db"}},
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "team", "uid": name, "labels": {"app": name}},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [container], "volumes": volumes}}},
    }


@asynccontextmanager
async def warming(api: Any, runtime: FakeRuntime) -> AsyncIterator[Warming]:
    informers = Informers(Client(api))
    found = Warming(informers, "app", {"packages": Plugin()}, Guard(runtime))  # type: ignore[dict-item]
    await informers.start()
    await informers.wait_synced()
    await found.start()
    yield found
    await found.stop()
    await informers.stop()


async def test_a_new_template_is_fetched_and_the_runtime_told(cluster: Any) -> None:
    runtime = Listener()
    cluster.api.put(f"{SETS}/old", replica_set("old", "sha256:0"))
    async with warming(cluster.api, runtime), asyncio.timeout(5):
        cluster.api.put(f"{SETS}/a", replica_set("a", "sha256:1"))
        sandbox, container = await runtime.told.get()
        assert (sandbox.namespace, sandbox.uid) == ("team", "")
        assert container.env == {"A": "1"}
        assert [(each.host_path, each.container_path) for each in container.mounts] == [("/cache/sha256:1", "/p")]
        assert runtime.told.empty()


async def test_what_can_not_be_fetched_keeps_nobody_waiting(cluster: Any) -> None:
    runtime = Listener()
    async with warming(cluster.api, runtime), asyncio.timeout(5):
        cluster.api.put(f"{SETS}/b", replica_set("b", "gone"))
        cluster.api.put(f"{SETS}/c", replica_set("c", "sha256:3"))
        _, container = await runtime.told.get()
        assert container.mounts[0].host_path == "/cache/sha256:3"


async def test_a_runtime_that_can_not_get_ready_is_left_alone(cluster: Any) -> None:
    cluster.api.put(f"{SETS}/a", replica_set("a", "sha256:1"))
    async with warming(cluster.api, FakeRuntime()) as found:
        await found.warm("team/a")
        await found.warm("team/nobody")
