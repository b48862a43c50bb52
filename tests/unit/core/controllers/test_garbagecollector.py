from __future__ import annotations

from typing import Any

from core.api.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, NAMESPACE, SECRET, Kind
from core.controllers.garbagecollector import GarbageCollector

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


def owned_by(*owners: dict[str, Any], name: str = "child", **extra: Any) -> dict[str, Any]:
    references = [
        {"apiVersion": each["apiVersion"], "kind": each["kind"], "name": each["metadata"]["name"], "uid": each["metadata"]["uid"],
         "blockOwnerDeletion": True, **extra}
        for each in owners
    ]  # fmt: skip
    return {"metadata": {"name": name, "ownerReferences": references}}


async def owner(plane, name: str = "owner", namespace: str = "default") -> dict[str, Any]:
    return await plane.client.create(CONFIG_MAP, {"metadata": {"name": name}}, namespace)


async def test_dependents_of_dependents_go_in_the_background(plane) -> None:
    secrets = await plane.see(SECRET)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    root = await owner(plane)
    child = await plane.client.create(SECRET, owned_by(root), "default")
    await plane.client.create(SECRET, owned_by(child, name="grandchild"), "default")
    await plane.until(lambda: len(secrets.values()) == 2)
    await plane.client.delete(CONFIG_MAP, "owner", "default")
    await plane.until(lambda: not secrets.values())


async def test_an_owner_that_was_gone_before(plane) -> None:
    secrets = await plane.see(SECRET)
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "never-was"}}
    await plane.client.create(SECRET, owned_by(ghost), "default")
    await plane.until(lambda: len(secrets.values()) == 1)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await plane.until(lambda: not secrets.values())


async def test_a_namesake_of_another_uid_is_not_the_owner(plane) -> None:
    secrets = await plane.see(SECRET)
    await owner(plane)
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "uid": "never-was"}}
    await plane.client.create(SECRET, owned_by(ghost), "default")
    await plane.until(lambda: len(secrets.values()) == 1)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await plane.until(lambda: not secrets.values())


async def test_one_owner_left_is_enough(plane) -> None:
    secrets = await plane.see(SECRET)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    first, second = await owner(plane, "first"), await owner(plane, "second")
    await plane.client.create(SECRET, owned_by(first, second), "default")
    await plane.client.delete(CONFIG_MAP, "first", "default")
    await plane.until(
        lambda: secrets.get("default/child") and len(secrets.get("default/child").metadata.owner_references) == 1
    )
    assert secrets.get("default/child").metadata.owner_references[0].name == "second"
    await plane.client.delete(CONFIG_MAP, "second", "default")
    await plane.until(lambda: not secrets.values())


async def test_in_the_foreground_the_owner_goes_last(plane) -> None:
    secrets, maps = await plane.see(SECRET), await plane.see(CONFIG_MAP)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    root = await owner(plane)
    document = owned_by(root)
    document["metadata"]["finalizers"] = ["test/hold"]
    await plane.client.create(SECRET, document, "default")
    await plane.until(lambda: secrets.get("default/child") and maps.get("default/owner"))
    await plane.client.delete(CONFIG_MAP, "owner", "default", propagation="Foreground")
    await plane.until(lambda: secrets.get("default/child").metadata.deletion_timestamp)
    await plane.settle()
    assert maps.get("default/owner") is not None
    await plane.client.patch(SECRET, "child", "default", {"metadata": {"finalizers": None}})
    await plane.until(lambda: maps.get("default/owner") is None)
    assert secrets.get("default/child") is None


async def test_a_circle_is_deleted_in_the_foreground_from_any_of_its_members(plane) -> None:
    secrets = await plane.see(SECRET)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    first = await plane.client.create(SECRET, {"metadata": {"name": "first"}}, "default")
    second = await plane.client.create(SECRET, owned_by(first, name="second"), "default")
    third = await plane.client.create(SECRET, owned_by(second, name="third"), "default")
    await plane.client.patch(
        SECRET, "first", "default", {"metadata": {"ownerReferences": owned_by(third)["metadata"]["ownerReferences"]}}
    )
    await plane.until(lambda: secrets.get("default/first") and secrets.get("default/first").metadata.owner_references)
    await plane.client.delete(SECRET, "first", "default", propagation="Foreground")
    await plane.until(lambda: not secrets.values())


async def test_orphans_stay_and_lose_their_owner(plane) -> None:
    secrets, maps = await plane.see(SECRET), await plane.see(CONFIG_MAP)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    root = await owner(plane)
    await plane.client.create(SECRET, owned_by(root), "default")
    await plane.until(lambda: secrets.get("default/child") and maps.get("default/owner"))
    await plane.client.delete(CONFIG_MAP, "owner", "default", propagation="Orphan")
    await plane.until(lambda: maps.get("default/owner") is None)
    await plane.until(lambda: not secrets.get("default/child").metadata.owner_references)


async def test_an_owner_in_another_namespace_is_none(plane) -> None:
    secrets = await plane.see(SECRET)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await plane.client.create(NAMESPACE, {"metadata": {"name": "x"}})
    root = await owner(plane)
    await plane.client.create(SECRET, owned_by(root), "x")
    await plane.until(lambda: secrets.get("x/child"))
    await plane.until(lambda: secrets.get("x/child") is None)


async def test_an_owner_of_a_kind_that_is_not_served_proves_nothing(plane) -> None:
    collector = GarbageCollector(plane.client, plane.informers)
    ghost = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "w"}}
    child = await plane.client.create(SECRET, owned_by(ghost), "default")
    await plane.run(collector)
    assert await collector.sync(child["metadata"]["uid"]) is not None
    assert await plane.client.get(SECRET, "child", "default")


async def test_kinds_that_come_later_are_collected_too(plane) -> None:
    secrets = await plane.see(SECRET)
    await plane.run(GarbageCollector(plane.client, plane.informers))
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, DEFINITION)
    document = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    widget = await plane.client.create(WIDGET, document, "default")
    await plane.client.create(SECRET, owned_by(widget), "default")
    await plane.until(lambda: secrets.get("default/child"))
    await plane.client.delete(WIDGET, "w", "default")
    await plane.until(lambda: secrets.get("default/child") is None)


async def test_what_could_not_be_judged_is_judged_when_its_owners_kind_comes(plane) -> None:
    secrets = await plane.see(SECRET)
    collector = GarbageCollector(plane.client, plane.informers)
    await plane.run(collector)
    ghost = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "never-was"}}
    child = await plane.client.create(SECRET, owned_by(ghost), "default")
    await plane.until(lambda: secrets.get("default/child"))
    assert await collector.sync(child["metadata"]["uid"]) is not None
    await plane.client.create(CUSTOM_RESOURCE_DEFINITION, DEFINITION)
    await plane.until(lambda: secrets.get("default/child") is None)
