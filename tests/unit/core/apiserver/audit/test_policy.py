"""The audit policy: what is read, what is refused in one line, and which rule decides."""

import pytest

from core.apiserver.audit.policy import DEFAULT, Level, PolicyError, capped, read_policy
from core.apiserver.authn import User
from core.apiserver.dispatch import parse

ANN = User("ann", ("dev", "system:authenticated"))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
JOBS = User("system:serviceaccount:faaslite-system:jobs", ("system:authenticated",))
CORE = User("system:kube-controller-manager", ("system:masters",))


def policy(rules, **more):
    import json

    return read_policy(
        json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules, **more}), "p.yaml"
    )


def level(found, user, method, path, **query):
    info = parse(method, path, query)
    return capped(found.rule(user, info).level, info)


PODS, SECRET = "/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/secrets/s"
ROWS = [
    ({"users": ["ann"]}, ANN, "GET", PODS, True),
    ({"users": ["ben"]}, ANN, "GET", PODS, False),
    ({"userGroups": ["x", "dev"]}, ANN, "GET", PODS, True),
    ({"userGroups": ["ops"]}, ANN, "GET", PODS, False),
    ({"verbs": ["list"]}, ANN, "GET", PODS, True),
    ({"verbs": ["get"]}, ANN, "GET", PODS, False),
    ({"namespaces": ["a"]}, ANN, "GET", PODS, True),
    ({"namespaces": ["b"]}, ANN, "GET", PODS, False),
    ({"namespaces": [""]}, ANN, "GET", "/api/v1/nodes", True),
    ({"namespaces": ["a"]}, ANN, "GET", "/healthz", False),
    ({"resources": [{"group": ""}]}, ANN, "GET", PODS, True),
    ({"resources": [{"group": "apps"}]}, ANN, "GET", PODS, False),
    ({"resources": [{"group": "", "resources": ["pods"]}]}, ANN, "GET", f"{PODS}/x/log", False),
    ({"resources": [{"group": "", "resources": ["pods/log"]}]}, ANN, "GET", f"{PODS}/x/log", True),
    ({"resources": [{"group": "", "resources": ["pods/*"]}]}, ANN, "GET", f"{PODS}/x/log", True),
    ({"resources": [{"group": "", "resources": ["*/log"]}]}, ANN, "GET", f"{PODS}/x/log", True),
    ({"resources": [{"group": "", "resources": ["*"]}]}, ANN, "GET", f"{PODS}/x/log", True),
    ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["x"]}]}, ANN, "GET", f"{PODS}/x", True),
    ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["x"]}]}, ANN, "GET", f"{PODS}/y", False),
    ({"nonResourceURLs": ["/healthz*"]}, ANN, "GET", "/healthz/ping", True),
    ({"nonResourceURLs": ["/healthz"]}, ANN, "GET", "/healthz/ping", False),
    ({"nonResourceURLs": ["*"]}, ANN, "GET", PODS, False),
]


@pytest.mark.parametrize(("rule", "user", "method", "path", "matches"), ROWS)
def test_what_a_rule_is_about(rule, user, method, path, matches):
    found = policy([{"level": "Request", **rule}])
    assert level(found, user, method, path) is (Level.REQUEST if matches else Level.NONE)
    assert level(found, user, method, path) is (Level.REQUEST if matches else Level.NONE), "asked again"


def test_the_first_rule_decides_and_bodies_of_secrets_are_never_written():
    found = policy([{"level": "None", "verbs": ["get"]}, {"level": "RequestResponse"}])
    assert level(found, ANN, "GET", SECRET) is Level.NONE
    assert level(found, ANN, "PUT", SECRET) is Level.METADATA
    assert level(found, ANN, "PUT", "/api/v1/namespaces/a/configmaps/s") is Level.REQUEST_RESPONSE
    assert level(found, ANN, "POST", "/api/v1/namespaces/a/serviceaccounts/r/token") is Level.METADATA
    assert level(found, ANN, "POST", "/apis/authentication.k8s.io/v1/tokenreviews") is Level.METADATA


DEFAULTS = [
    (ANN, "POST", PODS, Level.METADATA),
    (ANN, "GET", PODS, Level.NONE),
    (ANN, "GET", SECRET, Level.METADATA),
    (ANN, "GET", f"{PODS}/x/exec", Level.METADATA),
    (ANN, "POST", f"{PODS}/x/portforward", Level.METADATA),
    (ANN, "DELETE", "/apis/faaslite.dev/v1/namespaces/a/functions", Level.METADATA),
    (ANN, "PATCH", "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", Level.NONE),
    (NODE, "PATCH", "/api/v1/nodes/n1/status", Level.NONE),
    (NODE, "PATCH", f"{PODS}/x/status", Level.NONE),
    (NODE, "GET", SECRET, Level.NONE),
    (NODE, "DELETE", f"{PODS}/x", Level.METADATA),
    (NODE, "POST", "/api/v1/namespaces/a/events", Level.NONE),
    (JOBS, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", Level.NONE),
    (JOBS, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Level.REQUEST),
    (CORE, "POST", PODS, Level.NONE),
    (ANN, "GET", "/healthz", Level.NONE),
]


@pytest.mark.parametrize(("user", "method", "path", "wanted"), DEFAULTS)
def test_the_built_in_policy(user, method, path, wanted):
    assert level(read_policy(DEFAULT, "it"), user, method, path) is wanted


def test_stages_and_managed_fields_are_inherited():
    rules = [
        {"level": "Metadata", "omitStages": ["ResponseStarted"]},
        {"level": "Metadata", "omitManagedFields": False},
    ]
    found = policy(rules, omitStages=["RequestReceived"], omitManagedFields=True)
    assert found.rules[0].omit == {"RequestReceived", "ResponseStarted"} and found.rules[1].omit == {"RequestReceived"}
    assert [each.no_managed_fields for each in found.rules] == [True, False]
    assert not found.early and policy([{"level": "Metadata"}]).early and policy([{"level": "None"}]).silent


WRONG = [
    ("rules: [", "is not YAML"),
    ("- a", "an object is expected"),
    ("kind: Policy", "apiVersion: audit.k8s.io/v1 and kind: Policy are expected"),
    ({"rules": []}, "rules: at least one"),
    ({"rules": [{}]}, "rules[0].level: None is no level; there are None, Metadata, Request, RequestResponse"),
    ({"rules": [{"level": "metadata"}]}, "rules[0].level: 'metadata' is no level"),
    ({"rules": [{"level": "None", "user": ["x"]}]}, "rules[0]: unknown field 'user'"),
    ({"rules": [{"level": "None", "users": "x"}]}, "rules[0].users: a list of texts is expected"),
    ({"rules": [{"level": "None", "omitStages": ["Done"]}]}, "'Done' is no stage"),
    ({"rules": [{"level": "None", "nonResourceURLs": ["health"]}]}, "must begin with /"),
    ({"rules": [{"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["a"]}]}, "not for both"),
    ({"rules": [{"level": "None", "resources": [{"group": "apps/v1"}]}]}, "is no API group"),
    ({"rules": [{"level": "None", "resources": [{"group": "", "resourceNames": ["a"]}]}]}, "they need resources"),
    ({"rules": [{"level": "None"}], "metadata": {"annotations": {"faaslite.dev/denied": "x"}}}, "'x' is no level"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_no_policy(text, why):
    with pytest.raises(PolicyError) as refused:
        if isinstance(text, str):
            read_policy(text, "p.yaml")
        else:
            policy(text.pop("rules"), **text)
    assert str(refused.value).startswith("p.yaml") and why in str(refused.value) and "\n" not in str(refused.value)
