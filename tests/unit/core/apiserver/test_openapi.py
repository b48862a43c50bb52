import functools
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from core.api.kinds import BUILT_IN, Kind
from core.apiserver import openapi
from core.apiserver.openapi_pages import pages

FUNCTION = Kind("faaslite.dev", "v1", "Function", "functions", True, subresources=("status", "scale"))
KINDS = (*BUILT_IN, FUNCTION)
SCHEMA = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"runtime": {"type": "string"}}}}}


@functools.cache
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
                if method in item and item[method]["x-kubernetes-action"] != "connect":
                    names = {each["name"] for each in item[method]["parameters"] if each["in"] == "query"}
                    assert {"fieldValidation", "dryRun", "fieldManager"} <= names, (path, method)
                    assert item[method]["x-kubernetes-group-version-kind"]["kind"]
                    writes += 1
        assert writes or group == "metrics.k8s.io"


def test_fields_say_how_they_merge() -> None:
    schemas = document("", "v1")["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["items"] == {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]}
    assert schemas["io.k8s.api.core.v1.PodSpec"]["required"] == ["containers"]
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]


def test_subresources_have_their_own_kinds() -> None:
    paths = document("", "v1")["paths"]
    eviction = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    scale = document("apps", "v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/replicasets/{name}/scale"]
    assert {method for method in scale if method != "parameters"} == {"get", "put", "patch"}


def test_custom_resources_have_their_schema_and_metadata() -> None:
    found = document("faaslite.dev", "v1")["components"]["schemas"]["dev.faaslite.v1.Function"]
    assert found["properties"]["spec"] == SCHEMA["properties"]["spec"]
    metadata = found["properties"]["metadata"]
    assert metadata["allOf"] == [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]
    assert metadata["description"].startswith("Standard object's metadata")
    assert found["properties"]["kind"]["description"]
    assert "metadata" not in SCHEMA["properties"]


def test_the_index_has_a_hash_that_follows_what_is_served() -> None:
    first = openapi.index(openapi.digests(KINDS, {FUNCTION: SCHEMA}))["paths"]
    assert first["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")
    assert set(first) == {kind.prefix.lstrip("/") for kind in KINDS} | set(pages(kind.group for kind in KINDS))
    assert {"version", "apis", "apis/apps", "openid/v1/jwks"} <= set(first)
    second = openapi.index(openapi.digests(KINDS, {FUNCTION: {"type": "object"}}))["paths"]
    assert second["apis/faaslite.dev/v1"] != first["apis/faaslite.dev/v1"]
    assert second["api/v1"] == first["api/v1"]
    assert openapi.document(KINDS, "nothing.dev", "v1", {}) is None


@pytest.mark.parametrize(("group", "version"), sorted({(kind.group, kind.version) for kind in KINDS}))
def test_the_documents_are_valid(group: str, version: str) -> None:
    errors = [
        f"{'/'.join(map(str, each.absolute_path))}: {each.message}"
        for each in OpenAPIV30SpecValidator(document(group, version)).iter_errors()
    ]
    assert not errors, "\n".join(errors[:20])


def operations(group: str, version: str) -> dict[tuple[str, str], dict[str, Any]]:
    methods = ("get", "put", "post", "patch", "delete")
    return {
        (method, path): each
        for path, item in document(group, version)["paths"].items()
        for method, each in item.items()
        if method in methods
    }


def test_every_verb_of_every_kind_has_an_operation_that_says_all_of_it() -> None:
    methods = {"list": "get", "get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
    for kind in KINDS:
        found = operations(kind.group, kind.version)
        for verb, method in methods.items():
            if verb not in kind.verbs:
                continue
            name = "" if verb in ("list", "create") else "{name}"
            each = found[method, kind.path("{namespace}", name)]
            assert each["x-kubernetes-group-version-kind"]["kind"] == kind.kind
            assert each["responses"]["default"], "what goes wrong is said as a Status"
            if verb in ("create", "update"):
                assert {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"} == set(
                    each["requestBody"]["content"]
                )
        for name in kind.subresources:
            assert any(path == kind.path("{namespace}", "{name}", name) for _, path in found), (kind.kind, name)


@pytest.mark.parametrize(("group", "version"), sorted({(kind.group, kind.version) for kind in KINDS}))
def test_operations_have_names_of_their_own(group: str, version: str) -> None:
    names = [each["operationId"] for each in operations(group, version).values()]
    assert len(names) == len(set(names))


def test_operations_are_named_as_generated_clients_name_them() -> None:
    core = {each["operationId"] for each in operations("", "v1").values()}
    assert {
        "listCoreV1NamespacedPod", "listCoreV1PodForAllNamespaces", "readCoreV1NamespacedPod", "createCoreV1NamespacedPod",
        "replaceCoreV1NamespacedPodStatus", "patchCoreV1NamespacedPod", "deleteCoreV1NamespacedPod", "readCoreV1Node",
        "deleteCoreV1CollectionNamespacedPod", "readCoreV1NamespacedPodLog", "createCoreV1NamespacedPodEviction",
    } <= core  # fmt: skip
    roles = {each["operationId"] for each in operations("rbac.authorization.k8s.io", "v1").values()}
    assert "listRbacAuthorizationV1NamespacedRole" in roles


def test_lists_are_answered_by_lists() -> None:
    listed = operations("", "v1")["get", "/api/v1/namespaces/{namespace}/pods"]["responses"]["200"]
    assert listed["content"]["application/json"]["schema"]["$ref"].endswith(".PodList")
    custom = operations("faaslite.dev", "v1")["get", "/apis/faaslite.dev/v1/namespaces/{namespace}/functions"]
    name = custom["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    items = document("faaslite.dev", "v1")["components"]["schemas"][name]["properties"]["items"]
    assert items["items"]["allOf"][0]["$ref"].endswith("dev.faaslite.v1.Function")


def test_nearly_every_field_says_what_it_is_for() -> None:
    silent = total = 0
    for group, version in {(kind.group, kind.version) for kind in BUILT_IN}:
        for name, each in document(group, version)["components"]["schemas"].items():
            # JSON schemas of definitions have no texts in Kubernetes either.
            if "JSONSchemaProps" not in name and not name.startswith("io.k8s.metrics"):
                total += len(each.get("properties", {}))
                silent += sum(not field.get("description") for field in each.get("properties", {}).values())
    assert total > 4000
    assert silent / total < 0.01


def test_fields_with_fixed_values_say_them() -> None:
    schemas = document("", "v1")["components"]["schemas"]
    container = schemas["io.k8s.api.core.v1.Container"]["properties"]
    assert container["imagePullPolicy"]["enum"] == ["Always", "IfNotPresent", "Never"]
    service = schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]
    assert "IPv6" in service["ipFamilies"]["items"]["enum"]
    ephemeral = schemas["io.k8s.api.core.v1.EphemeralContainer"]["properties"]
    assert ephemeral["imagePullPolicy"]["enum"] == ["Always", "IfNotPresent", "Never"]


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
