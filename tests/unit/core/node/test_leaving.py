"""A node that leaves: it says so, and its Pods end first."""

from __future__ import annotations

from typing import Any

from core.client.rest import Client
from core.node.leaving import Leaving
from core.node.runtime.fake import FakeRuntime

NODE = "/api/v1/nodes/n1"


def ready(api: Any) -> dict[str, Any]:
    return next(each for each in api.objects[NODE]["status"]["conditions"] if each["type"] == "Ready")


async def test_its_pods_are_deleted_and_waited_for(cluster: Any) -> None:
    runtime = FakeRuntime()
    agent = await cluster.agent(runtime)
    one, two = cluster.pod(name="one"), cluster.pod(name="two")
    daemon = cluster.pod(name="daemon")
    cluster.api.objects[daemon]["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": True}
    ]
    cluster.api.put(daemon, cluster.api.objects[daemon])
    for each in (one, two, daemon):
        await cluster.until_ready(each)
    leaving = Leaving(Client(cluster.api), agent)
    await leaving.start()
    await leaving.stop()
    assert (ready(cluster.api)["status"], ready(cluster.api)["message"]) == ("False", "node is shutting down")
    assert one not in cluster.api.objects
    assert two not in cluster.api.objects
    assert daemon in cluster.api.objects
    assert len(await runtime.list()) == 1


async def test_it_leaves_though_the_api_is_away(cluster: Any, caplog: Any) -> None:
    agent = await cluster.agent(FakeRuntime())
    path = cluster.pod()
    await cluster.until_ready(path)
    cluster.api.down = True
    await Leaving(Client(cluster.api), agent).stop()
    assert "the API doesn't hear it" in caplog.text


async def test_pods_that_do_not_end_are_left_when_patience_is_over(cluster: Any, caplog: Any) -> None:
    agent = await cluster.agent(FakeRuntime())
    path = cluster.pod()
    await cluster.until_ready(path)

    async def never(uids: object) -> None:
        import asyncio

        await asyncio.get_running_loop().create_future()

    agent.wait_gone = never
    await Leaving(Client(cluster.api), agent, patience=0.05).stop()
    assert "with Pods that haven't ended" in caplog.text
