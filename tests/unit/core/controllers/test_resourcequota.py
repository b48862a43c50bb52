from __future__ import annotations

import pytest

from core.api.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, POD, RESOURCE_QUOTA, Kind
from core.controllers.resourcequota import Quota, ResourceQuotaController, counted_kinds


def pod(name, memory):
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"memory": memory}}}]},
    }


async def test_what_is_used_follows_what_comes_and_goes(plane):
    quotas = await plane.see(RESOURCE_QUOTA, Quota)
    await plane.run(ResourceQuotaController(plane.client, plane.informers))
    await plane.client.create(POD, pod("a", "64Mi"), "default")
    hard = {"pods": "5", "limits.memory": "1Gi", "configmaps": "9"}
    await plane.client.create(RESOURCE_QUOTA, {"metadata": {"name": "q"}, "spec": {"hard": hard}}, "default")
    await plane.until(lambda: quotas.get("default/q") and quotas.get("default/q").status.used)
    found = quotas.get("default/q").status
    assert found.hard == hard
    assert found.used == {"pods": "1", "limits.memory": "64Mi", "configmaps": "0"}
    await plane.client.create(POD, pod("b", "192Mi"), "default")
    await plane.client.create(CONFIG_MAP, {"metadata": {"name": "m"}}, "default")
    await plane.until(
        lambda: quotas.get("default/q").status.used == {"pods": "2", "limits.memory": "256Mi", "configmaps": "1"}
    )
    await plane.client.delete(POD, "a", "default")
    await plane.until(lambda: quotas.get("default/q").status.used["pods"] == "1")


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("pods", "pods"), ("requests.cpu", "pods"), ("limits.ephemeral-storage", "pods"), ("memory", "pods"),
        ("requests.nvidia.com/gpu", "pods"), ("services.nodeports", "services"), ("requests.storage", "persistentvolumeclaims"),
        ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"), ("count/deployments.apps", "deployments.apps"),
        ("secrets", "secrets"),
    ],
)  # fmt: skip
def test_names_count_kinds(name, resource):
    assert [each.resource for each in counted_kinds([name])] == [resource]


def test_unknown_names_count_nothing():
    assert counted_kinds(["count/widgets.example.com", "dreams"]) == set()


async def test_custom_kinds_are_counted_too(plane):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    quotas = await plane.see(RESOURCE_QUOTA, Quota)
    await plane.run(ResourceQuotaController(plane.client, plane.informers))
    hard = {"count/widgets.example.com": "3"}
    await plane.client.create(RESOURCE_QUOTA, {"metadata": {"name": "q"}, "spec": {"hard": hard}}, "default")
    await plane.until(
        lambda: quotas.get("default/q") and quotas.get("default/q").status.used == {"count/widgets.example.com": "0"}
    )
    widget = Kind("example.com", "v1", "Widget", "widgets")
    await plane.client.create(widget, {"metadata": {"name": "w"}}, "default")
    await plane.until(lambda: quotas.get("default/q").status.used == {"count/widgets.example.com": "1"})
