"""kr8s: its asyncio client, with discovery by the legacy paths, waits, scaling, watches."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, Pod, ReplicaSet, Secret, new_class

Test = Callable[[Any, str], Coroutine[Any, Any, None]]


def against_the_cluster(test: Test) -> Callable[[str, str], None]:
    """Run a test on an event loop of its own: kr8s leaves the generators of its watches to the end of the loop, which is given to them here."""

    async def run(kubeconfig: str, name: str) -> None:
        api = await kr8s.asyncio.api(kubeconfig=kubeconfig)
        try:
            await test(api, name)
        finally:
            await api._session.aclose()

    async def rest() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 10)

    @functools.wraps(test)
    def wrapped(kubeconfig: str, name: str) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(run(kubeconfig, name))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(rest())
        finally:
            loop.close()

    del wrapped.__wrapped__  # pytest is to see the arguments of `wrapped`
    return wrapped


@against_the_cluster
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


@against_the_cluster
async def test_one_by_name_and_a_secret_in_lines(api: Any, name: str) -> None:
    """A name is asked for with a field selector that ends with a comma; Base64 in lines is what the documentation of TLS Secrets shows."""
    secret = await Secret({"metadata": {"name": name, "namespace": "default"}, "data": {"k": "aGVs\nbG8=\n"}}, api=api)
    await secret.create()
    assert [each.data async for each in api.get("secrets", name, namespace="default")] == [{"k": "aGVsbG8="}]
    await secret.delete()


@against_the_cluster
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


@against_the_cluster
async def test_a_replica_set_scales(api: Any, name: str) -> None:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    found = await ReplicaSet({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, api=api)
    await found.create()
    await found.scale(3)
    async with asyncio.timeout(20):
        async for _, each in api.watch("replicasets", namespace="default", field_selector=f"metadata.name={name}"):
            if each.status.get("readyReplicas") == 3:
                break
    await found.delete()


@against_the_cluster
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
