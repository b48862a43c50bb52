"""kr8s: its asyncio client, with discovery by the legacy paths, waits, scaling, watches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, Pod, ReplicaSet, new_class


@pytest.fixture
async def api(kubeconfig: str) -> AsyncIterator[Any]:
    made = await kr8s.asyncio.api(kubeconfig=kubeconfig)
    yield made
    await made._session.aclose()


async def test_objects(api: Any, name: str) -> None:
    config = await ConfigMap({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}}, api=api)
    await config.create()
    assert await config.exists()
    await config.patch({"data": {"b": "2"}})
    assert config.data == {"a": "1", "b": "2"}
    await config.label({"t": name})
    assert [each.name async for each in api.get("configmaps", label_selector={"t": name})] == [name]
    await config.annotate({"note": "x"})
    await config.refresh()
    assert config.annotations == {"note": "x"}
    await config.delete()
    assert not await config.exists()


async def test_a_pod_is_waited_for(api: Any, name: str) -> None:
    pod = await Pod(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
        },
        api=api,
    )
    await pod.create()
    await pod.wait("condition=Ready", timeout=20)
    assert await pod.ready()
    await pod.delete()
    await pod.wait("delete", timeout=20)


async def test_a_replica_set_scales(api: Any, name: str) -> None:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    found = await ReplicaSet({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, api=api)
    await found.create()
    await found.scale(3)
    await found.wait("jsonpath='{.status.readyReplicas}'=3", timeout=20)
    await found.delete()


async def test_it_knows_the_server(api: Any, name: str) -> None:
    assert "gitVersion" in await api.version()
    kinds = {each["kind"] for each in await api.api_resources()}
    assert {"Pod", "ConfigMap", "CustomResourceDefinition"} <= kinds
    assert await api.whoami() == "admin"
    assert [each.name async for each in api.get("nodes")] == ["n1"]
    async for event, each in api.watch("nodes"):
        assert (event, each.name) == ("ADDED", "n1")
        break
    unknown = new_class("Nothing", "none.example.dev/v1")
    with pytest.raises(kr8s.NotFoundError):
        await unknown.get("x", api=api)
