"""Rows of (Service, Pods, slices there) -> writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.api import views
from core.api.views import EndpointSlice, Pod, Service
from core.controllers import endpoints

MakePod = Callable[..., Pod]
GOING = {"deletionTimestamp": "2024-01-01T00:00:00Z"}


def service(**spec: Any) -> Service:
    spec = {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    return msgspec.convert(
        {"metadata": {"name": "svc", "namespace": "default", "uid": "s"}, "spec": spec}, views.Service
    )


def slices(documents: list[dict[str, Any]]) -> list[EndpointSlice]:
    found = []
    for number, each in enumerate(documents):
        meta = {"name": f"svc-{number}", "uid": f"slice-{number}", "resourceVersion": "7", **each["metadata"]}
        found.append(msgspec.convert({**each, "metadata": meta}, views.EndpointSlice))
    return found


@pytest.fixture
def at(pod: MakePod) -> MakePod:
    def make(name: str, ip: str = "", **fields: Any) -> Pod:
        status = {"podIP": ip or f"127.64.0.{int(name[1:]) + 1}", **fields.pop("status", {})}
        return pod(name, ready=fields.pop("ready", True), status=status, nodeName="n1", **fields)

    return make


def test_a_first_slice(at: MakePod) -> None:
    plan = endpoints.plan(service(), [at("p0"), at("p1", ready=False)], [])
    (document,) = plan.create
    assert (plan.update, plan.delete) == ([], [])
    assert document["metadata"]["labels"] == {
        "kubernetes.io/service-name": "svc",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert document["metadata"]["generateName"] == "svc-"
    assert document["metadata"]["ownerReferences"][0]["uid"] == "s"
    assert document["addressType"] == "IPv4"
    assert document["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert document["endpoints"][0] == {
        "addresses": ["127.64.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "p0", "uid": "uid-p0"},
        "nodeName": "n1",
    }
    assert document["endpoints"][1]["conditions"] == {"ready": False, "serving": False, "terminating": False}


@pytest.mark.parametrize(
    ("fields", "publish", "expected"),
    [
        ({"ready": True}, False, (True, True, False)),
        ({"ready": False}, False, (False, False, False)),
        ({"ready": True, "meta": GOING}, False, (False, True, True)),
        ({"ready": False, "meta": GOING}, False, (False, False, True)),
        ({"ready": False}, True, (True, True, False)),
        ({"ready": False, "meta": GOING}, True, (True, True, True)),
    ],
)
def test_conditions(at: MakePod, fields: Any, publish: bool, expected: tuple[bool, bool, bool]) -> None:
    found = endpoints.endpoint(service(publishNotReadyAddresses=publish), at("p0", **fields))["conditions"]
    assert (found["ready"], found["serving"], found["terminating"]) == expected


def test_what_is_no_endpoint(at: MakePod, pod: MakePod) -> None:
    pods = [pod("p0"), at("p1", status={"phase": "Failed"}), at("p2", meta={"labels": {"app": "b"}})]
    assert not endpoints.plan(service(), pods, [])


def test_nothing_to_do_is_no_write(at: MakePod) -> None:
    pods = [at("p0"), at("p1")]
    there = slices(endpoints.plan(service(), pods, []).create)
    assert not endpoints.plan(service(), pods, there)
    assert not endpoints.plan(service(), list(reversed(pods)), there)


def test_a_change_updates_the_slice_in_place(at: MakePod) -> None:
    there = slices(endpoints.plan(service(), [at("p0"), at("p1")], []).create)
    plan = endpoints.plan(service(), [at("p0"), at("p1", ready=False), at("p2")], there)
    (document,) = plan.update
    assert (plan.create, plan.delete) == ([], [])
    assert (document["metadata"]["name"], document["metadata"]["resourceVersion"]) == ("svc-0", "7")
    assert [each["conditions"]["ready"] for each in document["endpoints"]] == [True, False, True]


def test_the_last_endpoint_takes_its_slice_along(at: MakePod) -> None:
    there = slices(endpoints.plan(service(), [at("p0")], []).create)
    plan = endpoints.plan(service(), [], there)
    assert [each.name for each in plan.delete] == ["svc-0"]
    assert not plan.update


def test_a_hundred_to_a_slice_and_holes_are_filled(at: MakePod) -> None:
    pods = [at(f"p{number}") for number in range(250)]
    documents = endpoints.plan(service(), pods, []).create
    assert [len(each["endpoints"]) for each in documents] == [100, 100, 50]
    there = slices(documents)
    plan = endpoints.plan(service(), [*pods[1:], at("p300")], there)
    assert [each["metadata"]["name"] for each in plan.update] == ["svc-0"]
    assert len(plan.update[0]["endpoints"]) == 100
    assert not plan.create


def test_named_ports_may_differ_from_pod_to_pod(at: MakePod) -> None:
    def container(port: int) -> list[dict[str, Any]]:
        return [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]

    named = service(ports=[{"name": "http", "port": 80, "targetPort": "web"}])
    pods = [
        at("p0", containers=container(1)),
        at("p1", containers=container(2)),
        at("p2", containers=container(1)),
        at("p3"),
    ]
    plan = endpoints.plan(named, pods, [])
    found = {tuple(port["port"] for port in each["ports"]): len(each["endpoints"]) for each in plan.create}
    assert found == {(1,): 2, (2,): 1, (): 1}


def test_changed_ports_make_a_new_slice_and_remove_the_old(at: MakePod) -> None:
    there = slices(endpoints.plan(service(), [at("p0")], []).create)
    plan = endpoints.plan(service(ports=[{"name": "http", "port": 80, "targetPort": 9090}]), [at("p0")], there)
    assert [each["ports"][0]["port"] for each in plan.create] == [9090]
    assert [each.name for each in plan.delete] == ["svc-0"]


def test_a_port_without_target_is_its_own(at: MakePod) -> None:
    assert endpoints.ports_of(service(ports=[{"port": 53, "protocol": "UDP"}]), at("p0")) == [
        {"name": "", "port": 53, "protocol": "UDP"}
    ]


def test_headless_services_say_so_and_name_hosts(at: MakePod) -> None:
    plan = endpoints.plan(service(clusterIP="None"), [at("p0", hostname="zero", subdomain="svc")], [])
    assert plan.create[0]["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert plan.create[0]["endpoints"][0]["hostname"] == "zero"


def test_address_families_are_apart(at: MakePod) -> None:
    plan = endpoints.plan(service(), [at("p0"), at("p1", ip="fd00::1")], [])
    assert sorted(each["addressType"] for each in plan.create) == ["IPv4", "IPv6"]
