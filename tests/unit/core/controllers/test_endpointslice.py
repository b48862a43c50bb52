from __future__ import annotations

from core.api.kinds import ENDPOINT_SLICE, POD, SERVICE
from core.api.views import EndpointSlice
from core.controllers.endpointslice import EndpointSliceController

SERVICE_A = {
    "metadata": {"name": "a"},
    "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


def pod(name: str) -> dict:
    return {"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def ready(slices) -> dict[str, bool]:
    return {
        endpoint["targetRef"]["name"]: endpoint["conditions"]["ready"]
        for each in slices.values()
        for endpoint in each.endpoints
    }


async def test_endpoints_follow_pods(plane) -> None:
    slices = await plane.see(ENDPOINT_SLICE, EndpointSlice)
    await plane.run(EndpointSliceController(plane.client, plane.informers))
    await plane.client.create(SERVICE, SERVICE_A, "default")
    for number, name in enumerate("pq", 1):
        await plane.client.create(POD, pod(name), "default")
        await plane.pod_ready(name, ip=f"127.64.0.{number}")
    await plane.until(lambda: ready(slices) == {"p": True, "q": True})
    await plane.pod_ready("p", ready=False)
    await plane.until(lambda: ready(slices) == {"p": False, "q": True})
    await plane.client.delete(POD, "q", "default", grace=0)
    await plane.until(lambda: ready(slices) == {"p": False})
    await plane.settle()
    (found,) = slices.values()
    assert found.metadata.labels["kubernetes.io/service-name"] == "a"
    assert found.ports == [{"name": "http", "port": 8080, "protocol": "TCP"}]


async def test_a_burst_of_pods_makes_one_slice(plane) -> None:
    slices = await plane.see(ENDPOINT_SLICE, EndpointSlice)
    await plane.run(EndpointSliceController(plane.client, plane.informers))
    await plane.client.create(SERVICE, SERVICE_A, "default")
    for number in range(30):
        await plane.client.create(POD, pod(f"p{number}"), "default")
        await plane.pod_ready(f"p{number}", ip=f"127.64.0.{number + 1}")
    await plane.until(lambda: len(ready(slices)) == 30)
    await plane.settle()
    assert len(slices.values()) == 1


async def test_a_service_without_selector_is_left_alone(plane) -> None:
    slices = await plane.see(ENDPOINT_SLICE, EndpointSlice)
    controller = EndpointSliceController(plane.client, plane.informers)
    await plane.run(controller)
    await plane.client.create(SERVICE, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}, "default")
    await plane.client.create(POD, pod("p"), "default")
    await plane.pod_ready("p", ip="127.64.0.1")
    await plane.settle()
    assert slices.values() == []


async def test_a_stale_cache_makes_no_second_slice(plane) -> None:
    controller = EndpointSliceController(plane.client, plane.informers)
    await plane.client.create(SERVICE, SERVICE_A, "default")
    await plane.client.create(POD, pod("p"), "default")
    await plane.pod_ready("p", ip="127.64.0.1")
    await plane.synced()
    await plane.informers.stop()  # from here on the cache stands still
    for _ in range(3):
        await controller.sync("default/a")
    assert len((await plane.client.list(ENDPOINT_SLICE, "default"))[0]) == 1
