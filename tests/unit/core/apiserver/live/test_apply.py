"""Server-side apply through the server: managers, conflicts, what goes when it is no longer applied."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver import dispatch
from core.apiserver.app import ApiServer
from core.apiserver.applies import APPLY_PATCH
from core.apiserver.authn import User
from core.apiserver.fieldmerge import all_fields, compare
from core.apiserver.fieldtypes import built_in
from core.apiserver.request import ApiRequest, Reply
from core.apiserver.schema import load
from core.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from core.store.memory import MemoryStore

Document = dict[str, Any]
ADMIN = User("admin", ("system:masters",))
MAPS = "/api/v1/namespaces/default/configmaps"
SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"
WIDGETS = "/apis/example.dev/v1/namespaces/default/widgets"


class Outside:
    """Requests as a client outside of the server's process makes them, whose writes have managers."""

    def __init__(self, api: ApiServer, user: User = ADMIN) -> None:
        self._api = api
        self._user = user

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        agent: str = "test/1.0",
        **query: str,
    ) -> Document:
        data = b"" if body is None else json.dumps(body).encode()
        info = dispatch.parse(method, path, query)
        request = ApiRequest(self._user, info, query, data, kind, user_agent=agent)
        reply = await self._api.answer(request, applied=True)
        assert isinstance(reply, Reply)
        found: Document = json.loads(reply.body)
        return found

    async def apply(self, path: str, config: Document, manager: str = "a", **query: str) -> Document:
        return await self.send(
            "PATCH", f"{path}/{config['metadata']['name']}", config, APPLY_PATCH, fieldManager=manager, **query
        )


@pytest.fixture
def outside(api: ApiServer) -> Outside:
    return Outside(api)


def config_map(**data: str) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}


def replica_set(replicas: int | None = None, image: str = "nginx:1", **container: Any) -> Document:
    spec: Document = {
        "selector": {"matchLabels": {"app": "x"}},
        "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": image, **container}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}


def managers(document: Document) -> dict[tuple[str, str], Document]:
    return {
        (each["manager"], each["operation"] + ("/" + each["subresource"] if "subresource" in each else "")): each[
            "fieldsV1"
        ]
        for each in document["metadata"].get("managedFields", ())
    }


async def test_an_apply_creates_and_owns_what_it_says(outside: Outside) -> None:
    made = await outside.apply(MAPS, config_map(a="1", b="2"))
    (entry,) = made["metadata"]["managedFields"]
    assert entry.pop("time")
    assert entry == {
        "manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}},
    }  # fmt: skip


async def test_what_is_no_longer_applied_goes(outside: Outside) -> None:
    await outside.apply(MAPS, config_map(a="1", b="2"))
    assert (await outside.apply(MAPS, config_map(b="2")))["data"] == {"b": "2"}
    gone = await outside.apply(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}})
    assert "data" not in gone
    assert managers(gone) == {}


async def test_a_field_of_two_managers_goes_with_the_last(outside: Outside) -> None:
    await outside.apply(MAPS, config_map(a="1", b="2"))
    both = await outside.apply(MAPS, config_map(a="1"), "other")
    assert managers(both)["a", "Apply"] == {"f:data": {"f:a": {}, "f:b": {}}}
    assert (await outside.apply(MAPS, config_map(b="2")))["data"] == {"a": "1", "b": "2"}
    empty = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}
    assert (await outside.apply(MAPS, empty, "other"))["data"] == {"b": "2"}


async def test_a_conflict_names_manager_and_field(outside: Outside) -> None:
    await outside.apply(MAPS, config_map(a="1", b="2"))
    with pytest.raises(Conflict) as refused:
        await outside.apply(MAPS, config_map(a="9"), "other")
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "a": .data.a'
    assert refused.value.causes == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".data.a"}
    ]
    with pytest.raises(Conflict) as refused:
        await outside.apply(MAPS, config_map(a="9", b="9"), "other")
    assert refused.value.message == ('Apply failed with 2 conflicts: conflicts with "a":\n- .data.a\n- .data.b')
    forced = await outside.apply(MAPS, config_map(a="9"), "other", force="true")
    assert forced["data"] == {"a": "9", "b": "2"}
    assert managers(forced) == {
        ("a", "Apply"): {"f:data": {"f:b": {}}}, ("other", "Apply"): {"f:data": {"f:a": {}}}
    }  # fmt: skip


async def test_updates_take_fields_and_are_named_with_their_version(outside: Outside) -> None:
    await outside.apply(SETS, replica_set(2))
    scaled = await outside.send(
        "PATCH", f"{SETS}/r/scale", {"spec": {"replicas": 5}}, "application/merge-patch+json", "kubectl/v1.32 (linux)"
    )
    assert scaled["spec"]["replicas"] == 5
    found = await outside.send("GET", f"{SETS}/r")
    assert managers(found)["kubectl", "Update/scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers(found)["a", "Apply"]["f:spec"]
    with pytest.raises(Conflict) as refused:
        await outside.apply(SETS, replica_set(2))
    assert refused.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas'
    )
    kept = await outside.apply(SETS, replica_set(None))
    assert kept["spec"]["replicas"] == 5


async def test_creations_are_managed_by_whoever_made_them(outside: Outside) -> None:
    labelled = config_map(a="1")
    labelled["metadata"]["labels"] = {"x": "y"}
    made = await outside.send("POST", MAPS, labelled, agent="Mozilla/5.0")
    assert managers(made) == {
        ("Mozilla", "Update"): {
            "f:data": {".": {}, "f:a": {}},
            "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
        }
    }
    changed = await outside.send("PUT", f"{MAPS}/m", config_map(a="2", c="3"), agent="curl", fieldManager="me")
    assert managers(changed) == {
        ("me", "Update"): {"f:data": {"f:a": {}, "f:c": {}}},
        ("Mozilla", "Update"): {"f:data": {}},
    }


async def test_a_pod_template_is_written_as_kubernetes_writes_it(outside: Outside) -> None:
    ports = [{"containerPort": 80}]
    made = await outside.send("POST", SETS, replica_set(1, ports=ports), agent="kubectl-create")
    container = managers(made)["kubectl-create", "Update"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert set(container) == {'k:{"name":"c"}'}
    inside = container['k:{"name":"c"}']
    assert inside["."] == {} and inside["f:resources"] == {} and inside["f:image"] == {}
    assert inside["f:ports"] == {
        ".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:protocol": {}}
    }  # fmt: skip
    assert "." not in managers(made)["kubectl-create", "Update"]["f:spec"]["f:template"]


async def test_items_of_keyed_lists_are_told_apart(outside: Outside) -> None:
    first = replica_set(image="nginx:1", env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])
    await outside.apply(SETS, first)
    second = replica_set(image="nginx:1", env=[{"name": "C", "value": "3"}])
    both = await outside.apply(SETS, second, "other")
    container = both["spec"]["template"]["spec"]["containers"][0]
    assert [each["name"] for each in container["env"]] == ["A", "B", "C"]
    third = replica_set(image="nginx:1", env=[{"name": "B", "value": "2"}])
    left = await outside.apply(SETS, third)
    assert [each["name"] for each in left["spec"]["template"]["spec"]["containers"][0]["env"]] == ["B", "C"]
    with pytest.raises(BadRequest, match="duplicate entries"):
        await outside.apply(SETS, replica_set(env=[{"name": "A"}, {"name": "A"}]))


async def test_a_port_without_protocol_is_the_one_with_the_default(outside: Outside) -> None:
    await outside.apply(SETS, replica_set(ports=[{"containerPort": 80, "protocol": "TCP"}]))
    named = await outside.apply(SETS, replica_set(ports=[{"containerPort": 80, "name": "http"}]), force="true")
    assert named["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "protocol": "TCP", "name": "http"}
    ]


async def test_finalizers_are_a_set(outside: Outside) -> None:
    config = config_map()
    config["metadata"]["finalizers"] = ["example.dev/a"]
    await outside.apply(MAPS, config)
    config["metadata"]["finalizers"] = ["example.dev/b"]
    both = await outside.apply(MAPS, config, "other")
    assert both["metadata"]["finalizers"] == ["example.dev/a", "example.dev/b"]
    assert managers(both)["other", "Apply"] == {"f:metadata": {"f:finalizers": {'v:"example.dev/b"': {}}}, "f:data": {}}


async def test_times_move_with_changes_alone(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await outside.apply(MAPS, config_map(a="1"))
    again = await outside.apply(MAPS, config_map(a="1"))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    nothing = await outside.send("PATCH", f"{MAPS}/m", {"data": {"a": "1"}}, "application/merge-patch+json")
    assert nothing["metadata"] == made["metadata"]


async def test_what_was_there_before_the_first_apply(outside: Outside, admin: Any) -> None:
    made = await admin.post(MAPS, config_map(a="1", b="2"))
    assert "managedFields" not in made["metadata"]
    with pytest.raises(Conflict) as refused:
        await outside.apply(MAPS, config_map(a="9"))
    assert refused.value.message == (
        'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'
    )
    applied = await outside.apply(MAPS, config_map(b="2"))
    assert set(managers(applied)) == {("a", "Apply"), ("before-first-apply", "Update")}


async def test_managed_fields_can_be_reset_but_not_lost(outside: Outside) -> None:
    await outside.apply(MAPS, config_map(a="1"))
    kept = await outside.send("PUT", f"{MAPS}/m", config_map(a="1"))
    assert set(managers(kept)) == {("a", "Apply")}
    emptied = {"metadata": {"managedFields": []}}
    kept = await outside.send("PATCH", f"{MAPS}/m", emptied, "application/merge-patch+json")
    assert set(managers(kept)) == {("a", "Apply")}
    stripped = {"metadata": {"managedFields": [{}]}}
    gone = await outside.send("PATCH", f"{MAPS}/m", stripped, "application/merge-patch+json")
    assert "managedFields" not in gone["metadata"]


async def test_managers_can_be_rewritten_by_those_who_know_them(outside: Outside) -> None:
    made = await outside.send("POST", MAPS, config_map(a="1"), agent="kubectl-client-side-apply")
    (entry,) = made["metadata"]["managedFields"]
    migrated = [
        {
            "op": "replace",
            "path": "/metadata/managedFields",
            "value": [{**entry, "manager": "kubectl", "operation": "Apply"}],
        },
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
    ]
    found = await outside.send("PATCH", f"{MAPS}/m", migrated, "application/json-patch+json")
    assert managers(found) == {("kubectl", "Apply"): {"f:data": {".": {}, "f:a": {}}}}


async def test_kubectl_takes_over_what_it_applied_on_its_side(outside: Outside) -> None:
    config = config_map(a="1")
    text = json.dumps(config)
    config["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": text}
    await outside.send("POST", MAPS, config, agent="x", fieldManager="kubectl-client-side-apply")
    with pytest.raises(Conflict):
        await outside.apply(MAPS, config_map(a="2"), "other")
    taken = await outside.apply(MAPS, config_map(a="2"), "kubectl")
    assert taken["data"] == {"a": "2"}
    annotation = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(annotation)["data"] == {"a": "2"}


async def test_the_status_is_applied_apart(outside: Outside) -> None:
    made = await outside.apply(SETS, {**replica_set(1), "status": {"replicas": 7}})
    assert made["status"].get("replicas", 0) == 0
    status = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "r"},
        "status": {"replicas": 1},
        "spec": {"replicas": 9},
    }
    found = await outside.send("PATCH", f"{SETS}/r/status", status, APPLY_PATCH, fieldManager="ctl")
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (1, 1)
    assert managers(found)["ctl", "Apply/status"] == {"f:status": {"f:replicas": {}}}
    with pytest.raises(NotFound):
        await outside.send(
            "PATCH", f"{SETS}/none/status", {**status, "metadata": {"name": "none"}}, APPLY_PATCH, fieldManager="ctl"
        )


async def test_an_apply_of_an_object_with_a_uid_makes_no_other_one(outside: Outside) -> None:
    config = {**config_map(a="1"), "metadata": {"name": "m", "uid": "gone"}}
    why = 'Operation cannot be fulfilled on configmaps "m": uid mismatch: the provided object specified uid gone, and no existing object'
    with pytest.raises(Conflict, match=why):
        await outside.apply(MAPS, config)


async def test_a_dry_run_stores_nothing(outside: Outside) -> None:
    tried = await outside.apply(MAPS, config_map(a="1"), dryRun="All")
    assert tried["data"] == {"a": "1"} and managers(tried)
    with pytest.raises(NotFound):
        await outside.send("GET", f"{MAPS}/m")


async def test_a_version_in_the_configuration_is_a_lock(outside: Outside) -> None:
    made = await outside.apply(MAPS, config_map(a="1"))
    locked = config_map(a="2")
    locked["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    await outside.apply(MAPS, locked)
    with pytest.raises(Conflict, match="the object has been modified"):
        await outside.apply(MAPS, {**locked, "data": {"a": "3"}})


@pytest.mark.parametrize(
    "change, query, expected",
    [
        ({}, {"fieldManager": ""}, (422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch')),
        ({"apiVersion": "v2"}, {}, (400, "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1")),
        ({"kind": "Secret"}, {}, (400, "the kind in the data (Secret) does not match the expected kind (ConfigMap)")),
        ({"foo": 1}, {}, (400, "failed to create typed patch object (default/m; /v1, Kind=ConfigMap): .foo: field not declared in schema")),
        ({"metadata": {"name": "x"}}, {}, (400, "the name of the object (x) does not match the name on the URL (m)")),
        ({"metadata": {"name": "m", "managedFields": []}}, {}, (400, "metadata.managedFields must be nil")),
    ],
)  # fmt: skip
async def test_refusals(outside: Outside, change: Document, query: dict[str, str], expected: tuple[int, str]) -> None:
    config = {**config_map(a="1"), **change}
    with pytest.raises(ApiError) as refused:
        await outside.send("PATCH", f"{MAPS}/m", config, APPLY_PATCH, **{"fieldManager": "a", **query})
    assert (refused.value.status_code, refused.value.message) == expected


async def test_force_is_for_applying(outside: Outside) -> None:
    await outside.apply(MAPS, config_map(a="1"))
    with pytest.raises(Invalid, match="may not be specified for non-apply patch"):
        await outside.send("PATCH", f"{MAPS}/m", {}, "application/merge-patch+json", force="true")


async def test_creating_by_apply_needs_the_right_to_create(api: ApiServer) -> None:
    with pytest.raises(Forbidden):
        await Outside(api, User("nobody")).apply(MAPS, config_map(a="1"))


async def test_custom_resources_merge_by_their_schema(outside: Outside, admin: Any) -> None:
    rules = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {
        "type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "to": {"type": "string"}}}}  # fmt: skip
    spec = {
        "rules": rules,
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "whole": {"type": "array", "items": {"type": "string"}},
        "one": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "size": {"type": "integer", "default": 3},
    }
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    await admin.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {
            "metadata": {"name": "widgets.example.dev"},
            "spec": {
                "group": "example.dev", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        },
    )  # fmt: skip

    def widget(**spec: Any) -> Document:
        return {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    await outside.apply(WIDGETS, widget(rules=[{"id": "x", "to": "1"}], tags=["a"], whole=["a"], one={"k": "v"}))
    made = await outside.apply(WIDGETS, widget(rules=[{"id": "y"}], tags=["b"]), "other")
    assert made["spec"] == {
        "rules": [{"id": "x", "to": "1"}, {"id": "y"}], "tags": ["a", "b"], "whole": ["a"], "one": {"k": "v"}, "size": 3,
    }  # fmt: skip
    assert managers(made)["a", "Apply"]["f:spec"] == {
        "f:rules": {'k:{"id":"x"}': {".": {}, "f:id": {}, "f:to": {}}}, "f:tags": {'v:"a"': {}}, "f:whole": {}, "f:one": {},
    }  # fmt: skip
    with pytest.raises(Conflict, match="\\.spec\\.whole"):
        await outside.apply(WIDGETS, widget(whole=["a", "b"]), "other")
    assert (await outside.apply(WIDGETS, widget(tags=["a"])))["spec"] == {
        "rules": [{"id": "y"}],
        "tags": ["a", "b"],
        "size": 3,
    }
    with pytest.raises(BadRequest, match=r"\.spec\.nope: field not declared in schema"):
        await outside.apply(WIDGETS, widget(nope=1))


junk = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["name", "k", "f:a", "."]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_spoiled_configurations_are_refused_or_applied(data: st.DataObject) -> None:
    config: Any = replica_set(1, ports=[{"containerPort": 80}], env=[{"name": "A", "value": "1"}])
    config["metadata"].update({"labels": {"a": "b"}, "finalizers": ["example.dev/x"], "ownerReferences": []})
    before = json.loads(json.dumps(config))
    at: Any = config
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(junk)
            break
        at = at[key]
    managed = data.draw(junk)

    async def run() -> None:
        store = MemoryStore()
        api = ApiServer(store, tokens={})
        await api.start()
        outside = Outside(api)
        try:
            for body, kind in (
                (before, APPLY_PATCH),
                (config, APPLY_PATCH),
                ({"metadata": {"managedFields": managed}}, "application/merge-patch+json"),
                (before, APPLY_PATCH),
            ):
                with contextlib.suppress(ApiError):
                    await outside.send(
                        "PATCH", f"{SETS}/r", body, kind, **({"fieldManager": "a"} if kind == APPLY_PATCH else {})
                    )
            assert (await outside.send("GET", f"{SETS}/r"))["metadata"]["name"] == "r"
        finally:
            await api.stop()
            await store.close()

    asyncio.run(run())


async def test_what_the_server_decides_of_a_new_object_is_nobodys_but_defaults_are_its_creators(outside):
    async def owned(path: str, body: Document) -> Document:
        made = await outside.send("POST", path, body)
        [entry] = made["metadata"]["managedFields"]
        found: Document = entry["fieldsV1"]
        return found

    container = {"name": "c", "image": "i"}
    pod = await owned(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    assert sorted(pod) == ["f:spec"]
    assert sorted(pod["f:spec"]) == [
        "f:containers", "f:dnsPolicy", "f:enableServiceLinks", "f:restartPolicy", "f:schedulerName", "f:securityContext",
        "f:terminationGracePeriodSeconds",
    ]  # fmt: skip
    said = {"containers": [container], "tolerations": [], "priority": 0, "serviceAccountName": "default"}
    pod = await owned(PODS, {"metadata": {"name": "q"}, "spec": said})
    assert {"f:priority", "f:serviceAccountName"} <= pod["f:spec"].keys()

    services = "/api/v1/namespaces/default/services"
    ports = [{"port": 80}, {"port": 81, "name": "b", "nodePort": 30081}]
    service = await owned(
        services,
        {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{**ports[0], "name": "a"}, ports[1]]}},
    )
    assert sorted(service["f:spec"]) == [
        "f:externalTrafficPolicy", "f:internalTrafficPolicy", "f:ports", "f:sessionAffinity", "f:type",
    ]  # fmt: skip
    a, b = (each for key, each in service["f:spec"]["f:ports"].items() if key != ".")
    assert "f:nodePort" not in a and "f:nodePort" in b and "f:protocol" in a

    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    job = await owned(
        "/apis/batch/v1/namespaces/default/jobs", {"metadata": {"name": "j"}, "spec": {"template": template}}
    )
    assert sorted(job) == ["f:spec"] and "f:selector" not in job["f:spec"]
    assert sorted(job["f:spec"]["f:template"]) == ["f:spec"]

    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    assert sorted(await owned(claims, {"metadata": {"name": "c"}, "spec": claim})) == ["f:spec"]


async def test_a_pod_of_a_client_that_applied_on_its_own_side_can_be_applied_from_then_on(outside):
    """kubectl makes what it managed as `kubectl-client-side-apply` an Apply of its own; what isn't in the next configuration goes."""
    config = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    made = await outside.send("POST", PODS, config, fieldManager="kubectl-client-side-apply")
    [entry] = made["metadata"]["managedFields"]
    patch = [
        {
            "op": "replace",
            "path": "/metadata/managedFields",
            "value": [{**entry, "manager": "kubectl", "operation": "Apply"}],
        }
    ]
    await outside.send("PATCH", f"{PODS}/p", patch, "application/json-patch+json")
    config["metadata"]["labels"] = {"a": "b"}
    applied = await outside.apply(PODS, config, "kubectl")
    assert applied["spec"] == made["spec"] and applied["metadata"]["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("path", "body", "owned"),
    [
        (
            "/api/v1/namespaces/default/limitranges",
            {"spec": {"limits": [{"type": "Pod"}]}},
            {"f:spec": {"f:limits": {}}},
        ),
        (
            "/api/v1/namespaces/default/events",
            {"involvedObject": {"kind": "Pod", "namespace": "default"}},
            {"f:involvedObject": {}},
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}},
            {"f:roleRef": {}},
        ),
    ],
)
async def test_values_that_are_one_field_are_owned_where_objects_hold_them_by_value(outside, path, body, owned):
    made = await outside.send("POST", path, {"metadata": {"name": "x"}, **body})
    [entry] = made["metadata"]["managedFields"]
    assert owned.items() <= entry["fieldsV1"].items()
    node = built_in(load().of(*_group_version(made["apiVersion"]), made["kind"]))
    assert all_fields(made, node) == compare({}, made, node).added


def _group_version(version: str) -> tuple[str, str]:
    group, _, name = version.rpartition("/")
    return group, name


async def test_the_versions_of_a_definition_are_its_creators_and_its_finalizer_is_nobodys(outside):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {"group": "e.dev", "scope": "Namespaced", "names": {"plural": "as", "kind": "A"}, "versions": [version]}
    body = {"metadata": {"name": "as.e.dev"}, "spec": spec}
    made = await outside.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    [entry] = made["metadata"]["managedFields"]
    assert sorted(entry["fieldsV1"]) == ["f:spec"]
    assert sorted(entry["fieldsV1"]["f:spec"]) == ["f:conversion", "f:group", "f:names", "f:scope", "f:versions"]
