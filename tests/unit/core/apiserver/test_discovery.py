import pytest

from core.api.kinds import BUILT_IN, Kind
from core.apiserver import discovery

KINDS = (
    *BUILT_IN,
    Kind("x.dev", "v1beta1", "Thing", "things"),
    Kind("x.dev", "v1", "Thing", "things"),
    Kind("x.dev", "v2alpha1", "Thing", "things"),
)


def test_groups_name_their_versions_the_preferred_first() -> None:
    groups = {each["name"]: each for each in discovery.group_list(KINDS)["groups"]}
    assert "" not in groups
    assert [each["version"] for each in groups["x.dev"]["versions"]] == ["v1", "v1beta1", "v2alpha1"]
    assert groups["x.dev"]["preferredVersion"] == {"groupVersion": "x.dev/v1", "version": "v1"}
    assert discovery.group(KINDS, "x.dev") == {"kind": "APIGroup", "apiVersion": "v1", **groups["x.dev"]}
    assert discovery.group(KINDS, "nothing.dev") is None
    assert discovery.group(KINDS, "") is None
    assert discovery.api_versions()["versions"] == ["v1"]


def test_resource_lists_have_subresources_with_their_kinds() -> None:
    found = discovery.resource_list(KINDS, "", "v1")
    assert found is not None
    by_name = {each["name"]: each for each in found["resources"]}
    assert found["groupVersion"] == "v1"
    assert by_name["pods"] == {
        "name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "shortNames": ["po"], "categories": ["all"],
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }  # fmt: skip
    assert by_name["pods/eviction"] == {
        "name": "pods/eviction", "singularName": "", "namespaced": True, "kind": "Eviction", "verbs": ["create"], "group": "policy", "version": "v1",
    }  # fmt: skip
    assert by_name["nodes/proxy"]["kind"] == "NodeProxyOptions"
    apps = discovery.resource_list(KINDS, "apps", "v1")
    assert apps is not None
    scale = next(each for each in apps["resources"] if each["name"] == "replicasets/scale")
    assert (scale["group"], scale["version"], scale["kind"], scale["verbs"]) == (
        "autoscaling",
        "v1",
        "Scale",
        ["get", "patch", "update"],
    )
    assert discovery.resource_list(KINDS, "apps", "v2") is None


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_the_aggregated_form_says_what_the_lists_say(version: str) -> None:
    for core in (True, False):
        document = discovery.aggregated(KINDS, core, version)
        assert document["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        for item in document["items"]:
            group = item["metadata"].get("name", "")
            assert core == (group == "")
            for each in item["versions"]:
                listed = discovery.resource_list(KINDS, group, each["version"])
                assert listed is not None
                names = {entry["name"] for entry in listed["resources"]}
                mine = {entry["resource"] for entry in each["resources"]}
                mine |= {
                    f"{entry['resource']}/{sub['subresource']}"
                    for entry in each["resources"]
                    for sub in entry.get("subresources", ())
                }
                assert mine == names
    scale = next(
        sub
        for item in discovery.aggregated(KINDS, False)["items"]
        for entry in item["versions"][0]["resources"]
        for sub in entry.get("subresources", ())
        if sub["subresource"] == "scale"
    )
    assert scale["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


@pytest.mark.kubectl
@pytest.mark.parametrize("aggregated", [True, False])
async def test_kubectl_lists_the_resources(kubectl, aggregated: bool) -> None:
    kubectl.recorder.aggregated = aggregated
    lines = [line.split() for line in (await kubectl("api-resources", "--no-headers")).splitlines()]
    assert ["pods", "po", "v1", "true", "Pod"] in lines
    assert [
        "customresourcedefinitions",
        "crd,crds",
        "apiextensions.k8s.io/v1",
        "false",
        "CustomResourceDefinition",
    ] in lines
    assert ["functions", "fn", "faaslite.dev/v1", "true", "Function"] in lines
    assert len(lines) == len({each.resource for each in kubectl.recorder.kinds}), (
        "each resource once, in its preferred version"
    )
    everything = (await kubectl("api-resources", "--no-headers", "--categories=all", "-o", "name")).split()
    assert set(everything) >= {"pods", "services", "replicasets.apps", "functions.faaslite.dev"}
    assert "secrets" not in everything


def test_stored_kinds_have_the_hash_that_kubernetes_gives_them() -> None:
    listed = discovery.resource_list(KINDS, "", "v1")
    assert listed is not None
    found = {each["name"]: each.get("storageVersionHash") for each in listed["resources"]}
    assert found["pods"] == "xPOwRZ+Yhw8="
    assert found["bindings"] is None and found["componentstatuses"] is None and found["pods/status"] is None
    deployment = next(each for each in KINDS if each.kind == "Deployment")
    assert discovery.storage_version_hash(deployment, "apps/v1") == "8aSe+NMegvE="
    assert discovery.storage_version_hash(deployment, "apps/v2") != "8aSe+NMegvE="
