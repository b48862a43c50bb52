"""RBAC's decisions equal its specification: by rows, and by a naive model over random policies."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver.authn import User
from core.apiserver.authz.rbac import Grant, Index, PolicyRule, covers, read_rules
from core.apiserver.dispatch import RequestInfo

ALICE = User("alice", ("dev", "system:authenticated"))
ROBOT = User("system:serviceaccount:team-a:robot", ("system:serviceaccounts", "system:serviceaccounts:team-a"))


def ask(verb, resource, namespace="", name="", group="", sub=""):
    return RequestInfo(verb, "", group, "v1", resource, namespace, name, sub)


def binding(name, role, *subjects, namespace="", kind="ClusterRole"):
    return Grant.of(
        namespace, {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role}, "subjects": list(subjects)}
    )


def user(name):
    return {"kind": "User", "name": name}


def index():
    made = Index()
    made.put_role(
        "",
        "reader",
        read_rules({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]}),
    )
    made.put_role(
        "", "scaler", read_rules({"rules": [{"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]}]})
    )
    made.put_role("", "all", read_rules({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}))
    made.put_role(
        "", "paths", read_rules({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/metrics/*"]}]})
    )
    made.put_role(
        "team-a",
        "one-secret",
        read_rules(
            {
                "rules": [
                    {"verbs": ["get", "update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"]}
                ]
            }
        ),
    )
    made.put_binding(binding("b1", "reader", user("alice"), namespace="team-a"))
    made.put_binding(binding("b2", "scaler", {"kind": "Group", "name": "dev"}))
    made.put_binding(
        binding("b3", "one-secret", {"kind": "ServiceAccount", "name": "robot"}, namespace="team-a", kind="Role")
    )
    made.put_binding(binding("b4", "all", user("root")))
    made.put_binding(binding("b5", "paths", user("alice"), user("bob")))
    made.put_binding(binding("b6", "nowhere", user("alice")))
    return made


@pytest.mark.parametrize(
    ("who", "info", "allowed"),
    [
        (ALICE, ask("get", "pods", "team-a"), True),
        (ALICE, ask("get", "pods", "team-a", sub="log"), True),
        (ALICE, ask("get", "pods", "team-a", sub="exec"), False),
        (ALICE, ask("get", "pods", "team-b"), False),
        (ALICE, ask("list", "pods"), False),
        (ALICE, ask("delete", "pods", "team-a"), False),
        (ALICE, ask("get", "pods", "team-a", group="metrics.k8s.io"), False),
        (ALICE, ask("patch", "deployments", "team-b", group="apps", sub="scale"), True),
        (ALICE, ask("patch", "deployments", "team-b", group="apps"), False),
        (ALICE, ask("patch", "deployments", "team-b", group="apps", sub="status"), False),
        (ROBOT, ask("get", "secrets", "team-a", "db"), True),
        (ROBOT, ask("get", "secrets", "team-a", "other"), False),
        (ROBOT, ask("list", "secrets", "team-a"), False),
        (ROBOT, ask("create", "secrets", "team-a"), False),
        (ROBOT, ask("get", "secrets", "team-b", "db"), False),
        (User("root"), ask("delete", "nodes", name="n"), True),
        (User("root"), RequestInfo("get", "/metrics"), False),
        (ALICE, RequestInfo("get", "/healthz"), True),
        (ALICE, RequestInfo("get", "/metrics/slis"), True),
        (ALICE, RequestInfo("get", "/metrics"), False),
        (ALICE, RequestInfo("post", "/healthz"), False),
        (User("bob"), RequestInfo("get", "/healthz"), True),
        (User("mallory"), ask("get", "pods", "team-a"), False),
        (User("u:alice"), ask("get", "pods", "team-a"), False),
        (User("dev"), ask("patch", "deployments", "x", group="apps", sub="scale"), False),
    ],
)
def test_rows(who, info, allowed):
    assert bool(index().allows(who, info)) is allowed


def test_the_reason_names_binding_and_role():
    assert (
        index().allows(ALICE, ask("get", "pods", "team-a"))
        == 'RBAC: allowed by RoleBinding "b1/team-a" of ClusterRole "reader"'
    )


def test_changes_take_effect_and_leave_nothing_behind():
    made = index()
    made.drop_binding("team-a", "b1")
    assert not made.allows(ALICE, ask("get", "pods", "team-a"))
    made.put_binding(binding("b1", "reader", user("bob"), namespace="team-a"))
    assert made.allows(User("bob"), ask("get", "pods", "team-a"))
    made.put_binding(binding("b1", "reader", user("carol"), namespace="team-a"))
    assert not made.allows(User("bob"), ask("get", "pods", "team-a"))
    made.drop_role("", "reader")
    assert not made.allows(User("carol"), ask("get", "pods", "team-a"))
    made.put_role("", "nowhere", read_rules({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]}))
    assert made.allows(ALICE, ask("get", "nodes", name="n"))


VERBS, GROUPS, RESOURCES, NAMES = (
    ("get", "list", "delete"),
    ("", "apps"),
    ("pods", "pods/log", "sets", "sets/scale"),
    ("a", "b"),
)


def some(values, star=True):
    return st.sets(st.sampled_from((*values, "*") if star else values), min_size=1, max_size=3)


RULES = st.builds(
    lambda v, g, r, n: {"verbs": sorted(v), "apiGroups": sorted(g), "resources": sorted(r), "resourceNames": sorted(n)},
    some(VERBS), some(GROUPS), some((*RESOURCES, "*/scale")), st.sets(st.sampled_from(NAMES), max_size=2),
)  # fmt: skip


def naive(rules, verb, group, resource, name):
    """The specification, said the long way."""
    for rule in rules:
        verb_fits = verb in rule["verbs"] or "*" in rule["verbs"]
        group_fits = group in rule["apiGroups"] or "*" in rule["apiGroups"]
        wild = "*/" + resource.split("/")[1] if "/" in resource else None
        resource_fits = "*" in rule["resources"] or resource in rule["resources"] or wild in rule["resources"]
        name_fits = not rule["resourceNames"] or name in rule["resourceNames"]
        if verb_fits and group_fits and resource_fits and name_fits:
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.lists(RULES, max_size=3))
def test_it_is_the_naive_model(rules):
    made = Index()
    made.put_role("", "r", read_rules({"rules": rules}))
    made.put_binding(binding("b", "r", user("alice")))
    for verb, group, resource, name in itertools.product(VERBS, GROUPS, RESOURCES, ("", *NAMES)):
        base, _, sub = resource.partition("/")
        found = bool(made.allows(ALICE, ask(verb, base, "ns", name, group, sub)))
        assert found is naive(rules, verb, group, resource, name), (verb, group, resource, name)


@settings(max_examples=150, deadline=None)
@given(st.lists(RULES, max_size=3), st.lists(RULES, max_size=2))
def test_nobody_gains_by_what_is_covered(owned, wanted):
    """If every wanted rule is covered, then whatever it allows, the owned rules allow."""
    mine, theirs = read_rules({"rules": owned}), read_rules({"rules": wanted})
    if covers(mine, theirs):
        return
    for verb, group, resource, name in itertools.product(VERBS, GROUPS, RESOURCES, ("", *NAMES)):
        if naive(wanted, verb, group, resource, name):
            assert naive(owned, verb, group, resource, name), (verb, group, resource, name)


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        (["get"], ["get"], []),
        (["*"], ["get", "delete"], []),
        (["get"], ["get", "delete"], ["delete"]),
        (["get"], ["*"], ["*"]),
    ],
)
def test_covers_says_what_is_missing(owned, wanted, missing):
    def rule(verbs):
        return [PolicyRule(frozenset(verbs), frozenset(("",)), frozenset(("pods",)))]

    assert [next(iter(each.verbs)) for each in covers(rule(owned), rule(wanted))] == missing


def test_covers_names_and_paths():
    base = (frozenset(("get",)), frozenset(("",)), frozenset(("secrets",)))
    assert not covers([PolicyRule(*base)], [PolicyRule(*base, frozenset(("db",)))])
    assert covers([PolicyRule(*base, frozenset(("db",)))], [PolicyRule(*base)])
    paths = PolicyRule(frozenset(("get",)), paths=("/metrics/*",))
    assert not covers([paths], [PolicyRule(frozenset(("get",)), paths=("/metrics/slis",))])
    assert covers([paths], [PolicyRule(frozenset(("get",)), paths=("/healthz",))])
