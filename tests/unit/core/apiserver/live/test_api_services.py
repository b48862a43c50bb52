"""APIServices: kept for what is served, others' left alone; metrics without any node to ask."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import Invalid, MethodNotAllowed, NotFound

API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = {
    "metadata": {"name": "toys.play.example.com"},
    "spec": {
        "group": "play.example.com",
        "scope": "Namespaced",
        "names": {"plural": "toys", "kind": "Toy"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


async def names(caller):
    return {each["metadata"]["name"] for each in (await caller.get(API_SERVICES))["items"]}


async def test_all_that_is_served_is_there_and_available(admin):
    groups = (await admin.get("/apis"))["groups"]
    expected = {f"{version['version']}.{group['name']}" for group in groups for version in group["versions"]} | {"v1."}
    items = (await admin.get(API_SERVICES))["items"]
    assert {each["metadata"]["name"] for each in items} == expected
    conditions = {(each["type"], each["status"], each["reason"]) for item in items for each in item["status"]["conditions"]}  # fmt: skip
    assert conditions == {("Available", "True", "Local")}


async def test_those_of_custom_kinds_come_and_go(admin):
    own = {
        "metadata": {"name": "v9.mine.example.com"},
        "spec": {"group": "mine.example.com", "version": "v9", "groupPriorityMinimum": 10, "versionPriority": 10},
    }
    await admin.post(API_SERVICES, own)
    listed = await admin.get(API_SERVICES)
    await admin.post(CRDS, DEFINITION)

    async def next_event(since):
        async with asyncio.timeout(5):
            ((kind, found),) = await admin.events(API_SERVICES, 1, resourceVersion=since)
        return kind, found["metadata"]["name"], found["metadata"]["resourceVersion"]

    kind, name, version = await next_event(listed["metadata"]["resourceVersion"])
    assert (kind, name) == ("ADDED", "v1.play.example.com")
    await admin.delete(f"{CRDS}/toys.play.example.com")
    assert (await next_event(version))[:2] == ("DELETED", "v1.play.example.com")
    assert "v9.mine.example.com" in await names(admin), "nobody's own are touched"


async def test_a_service_of_somebody_else_is_still_refused(admin):
    spec = {"group": "x.example.com", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}
    body = {"metadata": {"name": "v1.x.example.com"}, "spec": {**spec, "service": {"name": "s", "namespace": "n"}}}
    with pytest.raises(Invalid, match="aggregation"):
        await admin.post(API_SERVICES, body)


async def test_metrics_of_what_no_node_tells(admin):
    pods = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"
    container = {"name": "c", "image": "x"}
    await admin.post("/api/v1/namespaces/default/pods", {"metadata": {"name": "a"}, "spec": {"containers": [container]}})  # fmt: skip
    found = await admin.get(pods)
    assert found == {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": []}
    with pytest.raises(NotFound, match='podmetrics.metrics.k8s.io "default/a" not found'):
        await admin.get(f"{pods}/a")
    with pytest.raises(NotFound, match='pods "b" not found'):
        await admin.get(f"{pods}/b")
    with pytest.raises(MethodNotAllowed):
        await admin.post(pods, {})
    with pytest.raises(MethodNotAllowed):
        await admin.delete(f"{pods}/a")
