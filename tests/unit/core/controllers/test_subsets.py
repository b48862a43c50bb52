"""Rows of slices -> Endpoints, and of Endpoints -> slices."""

from __future__ import annotations

import msgspec
import pytest

from core.api.views import Endpoints, EndpointSlice, Service
from core.controllers import subsets

POD = {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u1"}
PORT = {"name": "http", "port": 8080, "protocol": "TCP"}


def one(*endpoints, ports=(PORT,), uid="s1", **meta):
    metadata = {"name": uid, "namespace": "default", "uid": uid, **meta}
    return msgspec.convert(
        {"metadata": metadata, "addressType": "IPv4", "ports": list(ports), "endpoints": list(endpoints)}, EndpointSlice
    )


def at(address, ready=True, **more):
    return {"addresses": [address], "conditions": {"ready": ready}, **more}


def service(**spec):
    metadata = {"name": "web", "namespace": "default", "uid": "u", "labels": {"a": "b"}}
    return msgspec.convert({"metadata": metadata, "spec": {"selector": {"app": "a"}, **spec}}, Service)


def test_ready_and_other_addresses_by_ports():
    found, truncated = subsets.subsets([
        one(at("10.0.0.2", nodeName="n", targetRef=POD), at("10.0.0.1"), at("10.0.0.3", False)),
        one(at("10.0.0.4"), ports=[{"name": "", "port": 1, "protocol": "TCP"}]),
    ])  # fmt: skip
    assert not truncated
    assert found == [
        {
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2", "nodeName": "n", "targetRef": POD}],
            "notReadyAddresses": [{"ip": "10.0.0.3"}],
            "ports": [PORT],
        },
        {"addresses": [{"ip": "10.0.0.4"}], "ports": [{"port": 1, "protocol": "TCP"}]},
    ]


def test_what_terminates_is_in_none():
    going = {"addresses": ["10.0.0.1"], "conditions": {"ready": False, "serving": True, "terminating": True}}
    assert subsets.subsets([one(going)]) == ([], False)


def test_slices_of_one_port_set_become_one_subset():
    found, _ = subsets.subsets([one(at("10.0.0.2")), one(at("10.0.0.1"), uid="s2")])
    assert found == [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [PORT]}]


def test_a_thousand_addresses_at_most():
    many = one(*(at(f"10.0.{number // 250}.{number % 250}") for number in range(1100)))
    made = subsets.endpoints_of(service(), [many], None)
    assert len(made["subsets"][0]["addresses"]) == 1000
    assert made["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}


def test_endpoints_are_written_only_when_something_changed():
    slices = [one(at("10.0.0.1"))]
    made = subsets.endpoints_of(service(clusterIP="None"), slices, None)
    assert made["metadata"]["labels"] == {
        "a": "b",
        "endpoints.kubernetes.io/managed-by": "endpoint-controller",
        "service.kubernetes.io/headless": "",
    }
    stored = {**made, "metadata": {**made["metadata"], "uid": "e", "resourceVersion": "5"}}
    old = msgspec.convert(stored, Endpoints)
    assert subsets.endpoints_of(service(clusterIP="None"), slices, old) is None
    changed = subsets.endpoints_of(service(clusterIP="None"), [], old)
    assert changed["subsets"] == [] and changed["metadata"]["resourceVersion"] == "5"


def endpoints(*found, labels=None, annotations=None):
    metadata = {
        "name": "web",
        "namespace": "default",
        "uid": "e",
        "labels": labels or {},
        "annotations": annotations or {},
    }
    return msgspec.convert({"metadata": metadata, "subsets": list(found)}, Endpoints)


OWN = {"addresses": [{"ip": "10.0.0.1", "hostname": "h"}], "notReadyAddresses": [{"ip": "fd00::1"}], "ports": [{"port": 80, "protocol": "TCP"}]}  # fmt: skip


def test_a_subset_becomes_a_slice_for_each_family():
    create, delete = subsets.mirror(endpoints(OWN, labels={"x": "y"}, annotations={"k": "v"}), [])
    assert delete == []
    first, second = create
    assert (first["addressType"], second["addressType"]) == ("IPv4", "IPv6")
    assert first["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "hostname": "h"}]
    assert second["endpoints"] == [{"addresses": ["fd00::1"], "conditions": {"ready": False}}]
    assert first["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
    assert first["metadata"]["labels"] == {
        "x": "y",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert first["metadata"]["annotations"] == {"k": "v"}
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"


def test_slices_that_are_right_stay_and_others_go():
    create, _ = subsets.mirror(endpoints(OWN), [])
    there = [
        msgspec.convert({**each, "metadata": {**each["metadata"], "name": f"m{number}", "uid": f"m{number}"}}, EndpointSlice)
        for number, each in enumerate(create)
    ]  # fmt: skip
    assert subsets.mirror(endpoints(OWN), there) == ([], [])
    other = {**OWN, "addresses": [{"ip": "10.0.0.9"}]}
    create, delete = subsets.mirror(endpoints(other), there)
    assert [each["endpoints"][0]["addresses"] for each in create] == [["10.0.0.9"]]
    assert [each.name for each in delete] == ["m0"]


@pytest.mark.parametrize(
    ("found", "of", "expected"),
    [
        (endpoints(OWN), service(selector={}), True),
        (endpoints(OWN), service(), False),
        (endpoints(OWN), None, False),
        (endpoints(OWN, labels={"endpointslice.kubernetes.io/skip-mirror": "true"}), service(selector={}), False),
        (endpoints(OWN, annotations={"control-plane.alpha.kubernetes.io/leader": "x"}), service(selector={}), False),
    ],
)
def test_which_endpoints_are_mirrored(found, of, expected):
    assert subsets.is_mirrored(found, of) is expected
