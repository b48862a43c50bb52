from __future__ import annotations

import pytest

from core.api.kinds import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE
from core.api.views import Endpoints, EndpointSlice
from core.controllers.endpointslice import EndpointSliceController
from core.controllers.legacyendpoints import EndpointsController
from core.errors import NotFound

SERVICE_A = {
    "metadata": {"name": "a", "labels": {"tier": "x"}},
    "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}
OWN = [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]


def ips(found, name="a"):
    each = next((each for each in found.values() if each.name == name), None)
    return None if each is None else [address["ip"] for one in each.subsets for address in one.get("addresses", ())]


async def test_endpoints_follow_the_slices_of_a_service(plane) -> None:
    found = await plane.see(ENDPOINTS, Endpoints)
    await plane.run(EndpointSliceController(plane.client, plane.informers))
    await plane.run(EndpointsController(plane.client, plane.informers, delay=0.01))
    await plane.client.create(SERVICE, SERVICE_A, "default")
    await plane.until(lambda: ips(found) == [])
    pod = {"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await plane.client.create(POD, pod, "default")
    await plane.pod_ready("p", ip="127.64.0.1")
    await plane.until(lambda: ips(found) == ["127.64.0.1"])
    stored = await plane.client.get(ENDPOINTS, "a", "default")
    assert stored["metadata"]["labels"]["tier"] == "x"
    assert stored["subsets"][0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    await plane.client.delete(SERVICE, "a", "default")
    await plane.until(lambda: ips(found) is None)


async def test_endpoints_of_somebody_else_are_mirrored_and_never_deleted(plane) -> None:
    slices = await plane.see(ENDPOINT_SLICE, EndpointSlice)
    found = await plane.see(ENDPOINTS, Endpoints)
    await plane.run(EndpointsController(plane.client, plane.informers, delay=0.01))

    def mirrored():
        return sorted(
            address
            for each in slices.values()
            if each.metadata.labels.get("endpointslice.kubernetes.io/managed-by", "").startswith("endpointslicemirror")
            for endpoint in each.endpoints
            for address in endpoint["addresses"]
        )

    await plane.client.create(ENDPOINTS, {"metadata": {"name": "lone"}, "subsets": OWN}, "default")
    await plane.client.create(SERVICE, {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}]}}, "default")
    await plane.client.create(ENDPOINTS, {"metadata": {"name": "b"}, "subsets": OWN}, "default")
    await plane.until(lambda: mirrored() == ["10.1.2.3"])
    more = [{"addresses": [{"ip": "10.1.2.3"}, {"ip": "10.1.2.4"}], "ports": [{"port": 80}]}]
    await plane.client.patch(ENDPOINTS, "b", "default", {"subsets": more})
    await plane.until(lambda: mirrored() == ["10.1.2.3", "10.1.2.4"])
    await plane.client.delete(ENDPOINTS, "b", "default")
    await plane.until(lambda: mirrored() == [])
    await plane.settle()
    assert ips(found, "lone") == ["10.1.2.3"], "no Service has ever spoken for it"
    with pytest.raises(NotFound):
        await plane.client.get(ENDPOINTS, "b", "default")
