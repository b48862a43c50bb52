"""The status writer against an API that holds its answers back."""

from __future__ import annotations

import asyncio
from typing import Any

from core.client.rest import Client
from core.node.writer import DELAY, LONGEST_DELAY, StatusWriter

PATH = "/api/v1/namespaces/default/pods/a"


async def test_what_is_on_its_way_is_not_written_again(cluster: Any) -> None:
    api = cluster.api
    api.objects[PATH] = {"metadata": {"name": "a", "namespace": "default", "uid": "u"}, "status": {}}
    writer = StatusWriter(Client(api))
    api.gate.clear()
    writer.submit("default", "a", "u", {"phase": "Running"}, urgent=True)
    async with asyncio.timeout(5):
        while not api.requests:  # noqa: ASYNC110 - turns of the loop, no time
            await asyncio.sleep(0)
    writer.submit("default", "a", "u", {"phase": "Running"}, urgent=True)
    api.gate.set()
    await writer.flush("u")
    assert len(api.requests) == 1
    writer.submit("default", "a", "u", {"phase": "Failed"}, urgent=True)
    writer.submit("default", "a", "u", {"phase": "Running"}, urgent=True)
    await writer.flush("u")
    assert api.objects[PATH]["status"]["phase"] == "Running"
    await writer.close()


async def test_of_an_object_that_goes_only_what_matters_is_written(cluster: Any) -> None:
    api = cluster.api
    api.objects[PATH] = {"metadata": {"name": "a", "namespace": "default", "uid": "u"}, "status": {}}
    writer = StatusWriter(Client(api))
    writer.submit("default", "a", "u", {"phase": "Running"}, urgent=False)
    async with asyncio.timeout(5):
        await writer.finish("u")
    assert api.requests == []
    writer.submit("default", "a", "u", {"phase": "Failed"}, urgent=True)
    async with asyncio.timeout(5):
        await writer.finish("u")
    assert api.objects[PATH]["status"]["phase"] == "Failed"
    await writer.finish("nobody")
    await writer.close()
    assert len(api.requests) == 1


async def test_a_crowd_of_statuses_that_do_not_matter_waits_longer(cluster: Any) -> None:
    loop, writer = asyncio.get_running_loop(), StatusWriter(Client(cluster.api))
    for name in map(str, range(150)):
        writer.submit("default", name, name, {"phase": "Pending"}, urgent=False)
    due = [slot.timer.when() - loop.time() for slot in writer._slots.values() if slot.timer is not None]
    assert len(due) == 150 and due[0] <= DELAY < due[50] < due[-1] <= LONGEST_DELAY
    for name in map(str, range(150)):
        writer.forget(name)
    began = loop.time()
    writer.submit("default", "a", "a", {"phase": "Pending"}, urgent=False)
    timer = writer._slots["a"].timer
    assert timer is not None and timer.when() - began <= DELAY + (loop.time() - began), "the crowd has gone"
    writer.forget("a")
    await writer.close()
