"""CustomResourceDefinitions: served at once, by their schema, until their objects are drained."""

from __future__ import annotations

import asyncio

import pytest

from core.apiserver.app import ApiServer
from core.errors import BadRequest, Conflict, Invalid, MethodNotAllowed, NotFound, UnsupportedMediaType

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/shop.example.com/v1/namespaces/default/widgets"


def definition(**version):
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 0},
                    "colour": {"type": "string", "default": "red"},
                    "replicas": {"type": "integer"},
                },
            },
            "status": {
                "type": "object",
                "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
            },
        },
    }
    paths = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return {
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": paths},
                    **version,
                },
                {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


def widget(name="w", **spec):
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


async def test_a_definition_is_served_at_once(admin):
    made = await admin.post(CRDS, definition())
    conditions = {each["type"]: each["status"] for each in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["status"]["acceptedNames"]["singular"] == "widget"
    created = await admin.post(WIDGETS, {**widget(), "kind": "Widget", "apiVersion": "shop.example.com/v1"})
    assert created["spec"] == {"size": 1, "colour": "red"} and created["metadata"]["generation"] == 1
    groups = await admin.get("/apis")
    assert "shop.example.com" in [each["name"] for each in groups["groups"]]
    listed = await admin.get("/apis/shop.example.com/v1")
    assert {each["name"] for each in listed["resources"]} == {"widgets", "widgets/status", "widgets/scale"}
    document = await admin.get("/openapi/v3/apis/shop.example.com/v1")
    assert any(name.endswith("Widget") for name in document["components"]["schemas"])
    again = await admin.get(f"{WIDGETS.replace('/v1/', '/v2/')}/w")
    assert again["apiVersion"] == "shop.example.com/v2" and again["spec"] == created["spec"]


async def test_custom_objects_keep_to_their_schema(admin):
    await admin.post(CRDS, definition())
    with pytest.raises(Invalid, match="spec.size: Required value"):
        await admin.post(WIDGETS, {"metadata": {"name": "w"}, "spec": {}})
    with pytest.raises(BadRequest, match='unknown field "spec.weight"'):
        await admin.post(WIDGETS, widget(weight=3), fieldValidation="Strict")
    made = await admin.post(WIDGETS, widget(weight=3))
    assert "weight" not in made["spec"]
    with pytest.raises(UnsupportedMediaType):
        await admin.patch(f"{WIDGETS}/w", {}, "strategic-merge-patch")
    with pytest.raises(Invalid, match="must be specified for an update"):
        await admin.put(f"{WIDGETS}/w", widget())


async def test_status_and_scale_of_custom_objects(admin):
    await admin.post(CRDS, definition())
    await admin.post(WIDGETS, {**widget(replicas=2), "status": {"replicas": 9}})
    status = await admin.patch(
        f"{WIDGETS}/w/status",
        {"metadata": {"labels": {"a": "b"}}, "spec": {"size": 7}, "status": {"replicas": 2, "selector": "a=b"}},
    )
    assert (status["spec"]["size"], status["status"]["replicas"]) == (1, 2) and "labels" not in status["metadata"]
    assert status["metadata"]["generation"] == 1
    main = await admin.patch(f"{WIDGETS}/w", {"spec": {"size": 3}, "status": {"replicas": 5}})
    assert (main["metadata"]["generation"], main["status"]["replicas"]) == (2, 2)
    scale = await admin.get(f"{WIDGETS}/w/scale")
    assert (scale["spec"]["replicas"], scale["status"]) == (2, {"replicas": 2, "selector": "a=b"})
    await admin.patch(f"{WIDGETS}/w/scale", {"spec": {"replicas": 6}})
    assert (await admin.get(f"{WIDGETS}/w"))["spec"]["replicas"] == 6
    with pytest.raises(Conflict):
        await admin.put(f"{WIDGETS}/w/scale", scale)


async def test_a_definition_goes_after_its_objects(admin):
    await admin.post(CRDS, definition())
    await admin.post(WIDGETS, widget("free"))
    held = widget("held")
    held["metadata"]["finalizers"] = ["x/y"]
    await admin.post(WIDGETS, held)
    going = await admin.delete(f"{CRDS}/widgets.shop.example.com")
    assert going["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    with pytest.raises(MethodNotAllowed, match="create not allowed while custom resource definition is terminating"):
        await admin.post(WIDGETS, widget("late"))
    watch = asyncio.create_task(admin.events(CRDS, 1, resourceVersion=going["metadata"]["resourceVersion"]))
    await admin.patch(f"{WIDGETS}/held", {"metadata": {"finalizers": None}})
    async with asyncio.timeout(10):
        assert [(type_, each["metadata"]["name"]) for type_, each in await watch] == [
            ("DELETED", "widgets.shop.example.com")
        ]
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        await admin.get(WIDGETS)


async def test_definitions_are_loaded_from_the_store(admin, api, store, caller):
    await admin.post(CRDS, definition())
    await admin.post(WIDGETS, widget())
    await admin.post(
        "/api/v1/namespaces/default/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}
    )
    address = (await admin.get("/api/v1/namespaces/default/services/s"))["spec"]["clusterIP"]
    await api.stop()
    restarted = ApiServer(store, tokens={}, service_cidr="127.32.0.0/28")
    await restarted.start()
    try:
        admin.transport = restarted.local(admin.transport._user)
        assert (await admin.get(f"{WIDGETS}/w"))["spec"]["size"] == 1
        with pytest.raises(Invalid, match="provided IP is already allocated"):
            body = {"metadata": {"name": "t"}, "spec": {"clusterIP": address, "ports": [{"port": 1}]}}
            await admin.post("/api/v1/namespaces/default/services", body)
    finally:
        await restarted.stop()


async def test_bad_definitions(admin):
    wrong = definition()
    wrong["metadata"]["name"] = "other.shop.example.com"
    with pytest.raises(Invalid, match="metadata.name"):
        await admin.post(CRDS, wrong)
    await admin.post(CRDS, definition())
    with pytest.raises(Invalid, match="spec.scope: Invalid value: .*immutable"):
        await admin.patch(f"{CRDS}/widgets.shop.example.com", {"spec": {"scope": "Cluster"}})


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ({"selectableFields": [{}]}, r"spec.versions\[0\].selectableFields\[0\].jsonPath: Required value"),
        (
            {"subresources": {"scale": {"specReplicasPath": ".spec.r"}}},
            r"spec.versions\[0\].subresources.scale.statusReplicasPath: Required",
        ),
    ],
)
async def test_definitions_that_could_not_be_served_are_refused(admin, version, field):
    with pytest.raises(Invalid, match=field):
        await admin.post(CRDS, definition(**version))


async def test_selectable_fields(admin):
    await admin.post(CRDS, definition(selectableFields=[{"jsonPath": ".spec.colour"}]))
    for name, colour in (("a", "red"), ("b", "blue")):
        await admin.post(WIDGETS, widget(name, colour=colour))
    found = await admin.get(WIDGETS, fieldSelector="spec.colour=blue")
    assert [each["metadata"]["name"] for each in found["items"]] == ["b"]


@pytest.mark.parametrize("versions", [1, 2])
async def test_defaults_of_a_later_schema_are_read_of_what_is_stored(admin, versions):
    given = definition()
    del given["spec"]["versions"][versions:]
    await admin.post(CRDS, given)
    old = await admin.post(WIDGETS, widget("old", size=1))
    given = await admin.get(f"{CRDS}/widgets.shop.example.com")
    for each in given["spec"]["versions"]:
        fields = each["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        fields["weight"] = {"type": "integer", "default": 7}
        del fields["replicas"]
    await admin.put(f"{CRDS}/widgets.shop.example.com", given)
    new = await admin.post(WIDGETS, widget("new", size=1))
    read = await admin.get(f"{WIDGETS}/old")
    assert read == {**old, "spec": {"size": 1, "colour": "red", "weight": 7}}
    assert [each["spec"] for each in (await admin.get(WIDGETS))["items"]] == [new["spec"], read["spec"]]
    assert (await admin.patch(f"{WIDGETS}/old", {}))["metadata"]["resourceVersion"] == old["metadata"][
        "resourceVersion"
    ]
    changed = await admin.patch(f"{WIDGETS}/old", {"spec": {"size": 2}})
    assert changed["spec"] == {"size": 2, "colour": "red", "weight": 7}
