from __future__ import annotations

from core.api.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, NAMESPACE, POD, SERVICE_ACCOUNT, Kind
from core.api.views import ConfigMap, Namespace
from core.controllers.namespace import NamespaceController
from core.controllers.namespacedefaults import NamespaceDefaults

WIDGET = Kind("example.com", "v1", "Widget", "widgets")
DEFINITION = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
POD_P = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def test_a_namespace_goes_with_all_it_holds(plane) -> None:
    namespaces = await plane.see(NAMESPACE, Namespace)
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, DEFINITION)
    await plane.run(NamespaceController(plane.client, plane.informers))
    await plane.client.create(NAMESPACE, {"metadata": {"name": "x"}})
    await plane.client.create(CONFIG_MAP, {"metadata": {"name": "m"}, "data": {}}, "x")
    await plane.client.create(
        WIDGET, {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}, "x"
    )
    await plane.client.create(POD, POD_P, "x")
    await plane.client.create(CONFIG_MAP, {"metadata": {"name": "m"}, "data": {}}, "default")
    await plane.until(lambda: namespaces.get("x"))
    await plane.client.delete(NAMESPACE, "x")
    await plane.until(lambda: namespaces.get("x") is None)
    for kind in (CONFIG_MAP, WIDGET, POD):
        assert (await plane.client.list(kind, "x"))[0] == []
    assert len((await plane.client.list(CONFIG_MAP, "default"))[0]) == 1


async def test_a_finalizer_inside_holds_the_namespace(plane) -> None:
    controller = NamespaceController(plane.client, plane.informers)
    await plane.client.create(NAMESPACE, {"metadata": {"name": "x"}})
    held = {"metadata": {"name": "m", "finalizers": ["test/hold"]}}
    await plane.client.create(CONFIG_MAP, held, "x")
    await plane.client.delete(NAMESPACE, "x")
    await plane.synced()
    assert await controller.sync("x") is not None
    assert (await plane.client.get(NAMESPACE, "x", as_=Namespace)).metadata.deletion_timestamp is not None
    await plane.client.patch(CONFIG_MAP, "m", "x", {"metadata": {"finalizers": None}})
    assert await controller.sync("x") is None
    assert "x" not in {each.name for each in (await plane.client.list(NAMESPACE, as_=Namespace))[0]}


async def test_an_active_namespace_is_left_alone(plane) -> None:
    controller = NamespaceController(plane.client, plane.informers)
    await plane.client.create(CONFIG_MAP, {"metadata": {"name": "m"}}, "default")
    await plane.synced()
    assert await controller.sync("default") is None
    assert await plane.client.get(CONFIG_MAP, "m", "default")


async def test_every_namespace_begins_with_an_account_and_the_ca(plane) -> None:
    maps, accounts = await plane.see(CONFIG_MAP, ConfigMap), await plane.see(SERVICE_ACCOUNT)
    await plane.run(NamespaceDefaults(plane.client, plane.informers, ca="PEM"))
    await plane.until(lambda: accounts.get("default/default") and maps.get("default/kube-root-ca.crt"))
    await plane.client.create(NAMESPACE, {"metadata": {"name": "x"}})
    await plane.until(lambda: accounts.get("x/default") and maps.get("x/kube-root-ca.crt"))
    await plane.client.patch(CONFIG_MAP, "kube-root-ca.crt", "x", {"data": {"ca.crt": "forged"}})
    await plane.until(lambda: maps.get("x/kube-root-ca.crt").data == {"ca.crt": "forged"})
    await plane.until(lambda: maps.get("x/kube-root-ca.crt").data == {"ca.crt": "PEM"})
    await plane.client.delete(SERVICE_ACCOUNT, "default", "x")
    await plane.until(lambda: accounts.get("x/default") is None)
    await plane.until(lambda: accounts.get("x/default"))
