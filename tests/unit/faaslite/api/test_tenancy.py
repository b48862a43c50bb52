"""A team's namespace as documents, and what it takes to change one."""

from __future__ import annotations

from typing import Any

import pytest

from core.api.kinds import LIMIT_RANGE, NAMESPACE, NETWORK_POLICY, RESOURCE_QUOTA, ROLE_BINDING
from faaslite.api.tenancy import Bounds, changed, read_bounds, team_documents

FULL = Bounds("4", "8Gi", "50", "20", "200", "50")


def documents(bounds: Bounds, **groups: Any) -> dict[str, Any]:
    return {
        f"{kind.kind}/{each['metadata']['name']}": each for kind, each in team_documents("team-a", bounds, **groups)
    }


def test_what_a_team_gets() -> None:
    found = documents(FULL, developers=["oidc:a"])
    namespace = found[f"{NAMESPACE.kind}/team-a"]["metadata"]
    assert namespace["annotations"] == {"faaslite.dev/rps": "200", "faaslite.dev/concurrency": "50"}
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert found[f"{RESOURCE_QUOTA.kind}/team"]["spec"]["hard"] == {
        "requests.cpu": "4", "requests.memory": "8Gi", "limits.memory": "8Gi", "pods": "50", "count/functions.faaslite.dev": "20",
    }  # fmt: skip
    assert found[f"{LIMIT_RANGE.kind}/team"]["spec"]["limits"]
    rule = found[f"{NETWORK_POLICY.kind}/team"]["spec"]
    assert rule["policyTypes"] == ["Ingress"] and rule["podSelector"] == {} and len(rule["ingress"]) == 1
    bindings = {name: each["roleRef"]["name"] for name, each in found.items() if name.startswith(ROLE_BINDING.kind)}
    assert bindings == {
        "RoleBinding/faaslite-ci": "faaslite-ci",
        "RoleBinding/team-developers": "faaslite-developer",
        "RoleBinding/team-viewers": "faaslite-viewer",
    }
    assert [each["name"] for each in found["RoleBinding/team-developers"]["subjects"]] == ["oidc:a"]


def test_bounds_are_read_back_as_they_were_written() -> None:
    found = documents(FULL)
    assert read_bounds(found["Namespace/team-a"], [found["ResourceQuota/team"]]) == FULL
    assert read_bounds({"metadata": {}}, []) == Bounds(pod_security="privileged")


def test_what_isnt_said_stays_and_none_lifts() -> None:
    found = FULL.changed(cpu="none", pods="60", memory=None)
    assert (found.cpu, found.pods, found.memory, found.rps) == ("", "60", "8Gi", "200")
    assert found.described() == "memory 8Gi, pods 60, functions 20, rps 200, concurrency 50"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"cpu": "lots"}, "--cpu 'lots' is not a quantity"), ({"memory": "-1"}, "more than nothing"), ({"memory": "0"}, "more than nothing"),
        ({"pods": "-1"}, "--pods '-1' is not a whole number from 0"), ({"functions": "2.5"}, "whole number"), ({"concurrency": "0"}, "from 1 on"),
        ({"rps": "0"}, "above 0"), ({"rps": "nan"}, "above 0"), ({"rps": "many"}, "above 0"), ({"pod_security": "lax"}, "there are privileged, baseline, restricted"),
    ],
)  # fmt: skip
def test_bad_bounds_are_one_line(said: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")) as caught:
        Bounds().changed(**said)
    assert "\n" not in str(caught.value)


def merged(stored: dict[str, Any], patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    found = dict(stored or {})
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key) or {}, value)
    return found


@pytest.mark.parametrize(
    "after", [FULL, Bounds(), FULL.changed(cpu="none", memory="none"), FULL.changed(rps="none", pods="1")]
)
@pytest.mark.parametrize("before", [FULL, Bounds(pods="3")])
def test_a_change_leads_there_and_a_second_one_changes_nothing(before: Bounds, after: Bounds) -> None:
    old, new = documents(before, viewers=["a"]), documents(after, viewers=["b"])
    old["Namespace/team-a"]["metadata"]["labels"]["somebody"] = "else"
    old["ResourceQuota/team"]["spec"]["hard"]["services"] = "7"
    for name, wanted in new.items():
        patch = changed(old[name], wanted)
        reached = merged(old[name], patch) if patch else old[name]
        assert changed(reached, wanted) is None
        if name == "ResourceQuota/team":
            assert reached["spec"]["hard"] == {**wanted["spec"]["hard"], "services": "7"}
        if name == "Namespace/team-a":
            assert reached["metadata"]["labels"]["somebody"] == "else"
            assert reached["metadata"].get("annotations", {}) == wanted["metadata"]["annotations"]
        if name == "RoleBinding/team-viewers":
            assert [each["name"] for each in reached["subjects"]] == ["a", "b"]
