from typing import Any

import pytest

from core.api.kinds import BUILT_IN, Kind
from core.apiserver import openapi

FUNCTION = Kind("faaslite.dev", "v1", "Function", "functions", True, subresources=("status", "scale"))
KINDS = (*BUILT_IN, FUNCTION)
SCHEMA = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"runtime": {"type": "string"}}}}}


def document(group: str, version: str) -> dict[str, Any]:
    found = openapi.document(KINDS, group, version, {FUNCTION: SCHEMA})
    assert found is not None
    return found


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


@pytest.mark.parametrize(("group", "version"), sorted({(kind.group, kind.version) for kind in KINDS}))
def test_every_reference_leads_somewhere(group: str, version: str) -> None:
    found = document(group, version)
    known = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= known


def test_writes_advertise_field_validation_and_dry_run() -> None:
    for group, version in {(kind.group, kind.version) for kind in KINDS}:
        writes = 0
        for path, item in document(group, version)["paths"].items():
            for method in ("post", "patch", "put"):
                if method in item:
                    names = {each["name"] for each in item[method]["parameters"] if each["in"] == "query"}
                    assert {"fieldValidation", "dryRun", "fieldManager"} <= names, (path, method)
                    assert item[method]["x-kubernetes-group-version-kind"]["kind"]
                    writes += 1
        assert writes


def test_fields_say_how_they_merge() -> None:
    schemas = document("", "v1")["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["items"] == {
        "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}],
        "default": {},
    }
    assert schemas["io.k8s.api.core.v1.PodSpec"]["required"] == ["containers"]
    assert schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {
        "oneOf": [{"type": "string"}, {"type": "number"}]
    }


def test_subresources_have_their_own_kinds() -> None:
    paths = document("", "v1")["paths"]
    eviction = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    scale = document("apps", "v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/replicasets/{name}/scale"]
    assert {method for method in scale if method != "parameters"} == {"get", "put", "patch"}


def test_custom_resources_have_their_schema_and_metadata() -> None:
    found = document("faaslite.dev", "v1")["components"]["schemas"]["dev.faaslite.v1.Function"]
    assert found["properties"]["spec"] == SCHEMA["properties"]["spec"]
    assert found["properties"]["metadata"] == {
        "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]
    }
    assert "metadata" not in SCHEMA["properties"]


def test_the_index_has_a_hash_that_follows_what_is_served() -> None:
    first = openapi.index(KINDS, {FUNCTION: SCHEMA})["paths"]
    assert first["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")
    assert set(first) == {kind.prefix.lstrip("/") for kind in KINDS}
    second = openapi.index(KINDS, {FUNCTION: {"type": "object"}})["paths"]
    assert second["apis/faaslite.dev/v1"] != first["apis/faaslite.dev/v1"]
    assert second["api/v1"] == first["api/v1"]
    assert openapi.document(KINDS, "nothing.dev", "v1", {}) is None


@pytest.mark.kubectl
async def test_kubectl_explains(kubectl) -> None:
    pod = await kubectl("explain", "pod.spec", "--recursive")
    assert "  containers\t<[]Container> -required-" in pod
    assert "securityContext\t<PodSecurityContext>" in pod
    assert "What to run." in await kubectl("explain", "fn.spec")


@pytest.mark.kubectl
async def test_kubectl_asks_for_strict_validation_by_the_server(kubectl) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\nfoo: 1\n"
    await kubectl("create", "-f", "-", stdin=text)
    await kubectl("create", "-f", "-", "--dry-run=server", stdin=text)
    first, second = kubectl.recorder.received
    assert "fieldValidation=Strict" in first[1]
    assert "dryRun=All" in second[1]
    assert "application/json" in first[2]
