"""Which flow a request is of, by the default objects; seats by shares."""

from __future__ import annotations

import pytest

from core.apiserver import dispatch
from core.apiserver.authn import User
from core.apiserver.flow import bootstrap
from core.apiserver.flow.schemas import limits, parse
from core.apiserver.flow.width import width

SCHEMAS = sorted((parse(each) for each in bootstrap.schemas()), key=lambda each: (each.precedence, each.name))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
ANN = User("ann", ("devs", "system:authenticated"))
NOBODY = User("system:anonymous", ("system:unauthenticated",))
MASTER = User("root", ("system:masters", "system:authenticated"))
MANAGER = User("system:kube-controller-manager", ("system:authenticated",))
LEASES = "/apis/coordination.k8s.io/v1/namespaces"


def _account(namespace, name):
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


@pytest.mark.parametrize(
    ("user", "method", "path", "schema", "level", "flow"),
    [
        (MASTER, "GET", "/api/v1/pods", "exempt", "exempt", ""),
        (MASTER, "GET", "/metrics", "exempt", "exempt", ""),
        (NOBODY, "GET", "/healthz", "probes", "exempt", ""),
        (NOBODY, "GET", "/version", "global-default", "global-default", "system:anonymous"),
        (NODE, "PUT", f"{LEASES}/kube-node-lease/leases/n1", "system-node-high", "node-high", NODE.name),
        (NODE, "PATCH", "/api/v1/nodes/n1/status", "system-node-high", "node-high", NODE.name),
        (NODE, "GET", "/api/v1/nodes", "system-node-high", "node-high", NODE.name),
        (NODE, "PATCH", "/api/v1/namespaces/a/pods/b/status", "system-nodes", "system", NODE.name),
        (NODE, "GET", "/api", "system-nodes", "system", NODE.name),
        (MANAGER, "PUT", f"{LEASES}/kube-system/leases/x", "system-leader-election", "leader-election", MANAGER.name),
        (MANAGER, "PUT", "/api/v1/namespaces/team/endpoints/x", "endpoint-controller", "workload-high", MANAGER.name),
        (MANAGER, "POST", "/api/v1/namespaces/team/pods", "kube-controller-manager", "workload-high", "team"),
        (_account("kube-system", "x"), "POST", "/api/v1/namespaces/team/pods", "kube-system-service-accounts", "workload-high", "team"),
        (_account("faaslite-system", "jobs"), "PUT", f"{LEASES}/faaslite-system/leases/faaslite-jobs", "workload-leader-election",
         "leader-election", "system:serviceaccount:faaslite-system:jobs"),
        (_account("faaslite-system", "gateway"), "GET", "/api/v1/pods", "faaslite-system-service-accounts", "workload-high",
         "system:serviceaccount:faaslite-system:gateway"),
        (_account("team", "bot"), "GET", "/api/v1/pods", "service-accounts", "workload-low", "system:serviceaccount:team:bot"),
        (ANN, "GET", "/api/v1/pods", "global-default", "global-default", "ann"),
        (User("x", ()), "GET", "/api/v1/pods", None, None, None),
    ],
)  # fmt: skip
def test_the_default_objects(user, method, path, schema, level, flow):
    info = dispatch.parse(method, path, {})
    found = next((each for each in SCHEMAS if each.matches(user, info)), None)
    if schema is None:
        assert found is None
    else:
        assert found is not None and (found.name, found.level, found.flow(user, info)) == (schema, level, flow)


@pytest.mark.parametrize(
    ("rule", "method", "path", "expected"),
    [
        ({"verbs": ["get"], "nonResourceURLs": ["/debug/*"]}, "GET", "/debug/x/y", True),
        ({"verbs": ["get"], "nonResourceURLs": ["/debug/*"]}, "GET", "/debugging", False),
        ({"verbs": ["post"], "nonResourceURLs": ["*"]}, "GET", "/debug", False),
    ],
)
def test_paths(rule, method, path, expected):
    subjects = [{"kind": "Group", "group": {"name": "*"}}]
    spec = {"rules": [{"subjects": subjects, "nonResourceRules": [rule]}]}
    schema = parse({"metadata": {"name": "x"}, "spec": spec})
    assert schema.matches(ANN, dispatch.parse(method, path, {})) is expected


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ({"namespaces": ["a"]}, "/api/v1/namespaces/a/pods", True),
        ({"namespaces": ["a"]}, "/api/v1/namespaces/b/pods", False),
        ({"namespaces": ["a"]}, "/api/v1/pods", False),
        ({"clusterScope": True}, "/api/v1/pods", True),
        ({"clusterScope": True}, "/api/v1/namespaces/a/pods", False),
        ({"clusterScope": True, "apiGroups": ["apps"]}, "/api/v1/pods", False),
        ({"namespaces": ["*"], "resources": ["pods/log"]}, "/api/v1/namespaces/a/pods/x/log", True),
        ({"namespaces": ["*"]}, "/api/v1/namespaces/a/pods/x/log", False),
    ],
)
def test_resources(rule, path, expected):
    full = {"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], **rule}
    subjects = [{"kind": "User", "user": {"name": "ann"}}]
    schema = parse({"metadata": {"name": "x"}, "spec": {"rules": [{"subjects": subjects, "resourceRules": [full]}]}})
    assert schema.matches(ANN, dispatch.parse("GET", path, {})) is expected


def test_seats_by_shares():
    found = limits({each["metadata"]["name"]: each["spec"] for each in bootstrap.levels()}, 600)
    # What Kubernetes 1.32 shows for 600 seats (apiserver_flowcontrol_nominal_limit_seats).
    nominal = {name: each.nominal for name, each in found.items()}
    assert nominal == {
        "exempt": 0, "catch-all": 13, "global-default": 49, "leader-election": 25, "node-high": 98, "system": 74,
        "workload-high": 98, "workload-low": 245,
    }  # fmt: skip
    assert found["workload-low"].guaranteed == 25 and found["leader-election"].guaranteed == 25
    assert (found["global-default"].per_flow, found["global-default"].waiting) == (300, 6400)
    assert found["catch-all"].waiting == 0
    # Half of what the level has when all others lend what they may.
    kept = sum(each.guaranteed for name, each in found.items() if name != "workload-low")
    assert found["workload-low"].flow_most == -(-(600 - kept) // 2)


def test_a_flow_has_half_of_what_its_level_may_have():
    spec = {"limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 100}}
    other = {"limited": {"nominalConcurrencyShares": 3, "lendablePercent": 100}}
    found = limits({"a": spec, "b": other, "one": {"limited": {"nominalConcurrencyShares": 0}}}, 40)
    assert (found["a"].most, found["a"].flow_most, found["b"].flow_most) == (20, 10, 15)


@pytest.mark.parametrize(
    ("objects", "query", "seats"),
    [
        (0, {}, 1),
        (100, {}, 1),
        (101, {}, 2),
        (50_000, {}, 10),
        (50_000, {"limit": "500"}, 5),
        (50_000, {"limit": "500", "labelSelector": "a=b"}, 10),
        (50_000, {"fieldSelector": "metadata.name=x"}, 1),
        (50_000, {"limit": "-1"}, 10),
    ],
)
def test_widths(objects, query, seats):
    assert width(objects, query) == seats
