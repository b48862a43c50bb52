"""Access by roles, end to end: default roles, bindings that take effect at once, and nobody giving what they don't have."""

from __future__ import annotations

import asyncio

import pytest

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.authz.bootstrap import cluster_roles
from core.errors import Forbidden

RBAC = "/apis/rbac.authorization.k8s.io/v1"
TEAM = "/api/v1/namespaces/team"
ALICE = User("alice", ("devs", "system:authenticated"))


def binding(name, role, *users, kind="ClusterRole"):
    subjects = [{"kind": "User", "name": each, "apiGroup": "rbac.authorization.k8s.io"} for each in users]
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": subjects,
    }


def role(name, *rules):
    return {"metadata": {"name": name}, "rules": list(rules)}


def rule(verbs, resources, group=""):
    return {"verbs": verbs, "apiGroups": [group], "resources": resources}


class Turning:
    """A caller of this process that lets the loop turn after a write, as every reply over HTTP does."""

    def __init__(self, caller):
        self._caller = caller

    def __getattr__(self, name):
        async def call(*arguments, **query):
            found = await getattr(self._caller, name)(*arguments, **query)
            for _ in range(3):
                await asyncio.sleep(0)
            return found

        return call


@pytest.fixture
async def team(admin):
    await admin.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    return Turning(admin)


async def test_default_roles_are_there_and_stay_as_somebody_changed_them(admin, api, store):
    names = {each["metadata"]["name"] for each in (await admin.get(f"{RBAC}/clusterroles"))["items"]}
    assert {"cluster-admin", "admin", "edit", "view", "system:basic-user", "system:discovery"} <= names
    bindings = {each["metadata"]["name"] for each in (await admin.get(f"{RBAC}/clusterrolebindings"))["items"]}
    assert "cluster-admin" in bindings
    extra = rule(["get"], ["widgets"], "example.com")
    await admin.patch(f"{RBAC}/clusterroles/system:basic-user", {"rules": [extra]})
    again = ApiServer(store, tokens={})
    await again.start()
    await again.stop()
    rules = (await admin.get(f"{RBAC}/clusterroles/system:basic-user"))["rules"]
    wanted = next(each for each in cluster_roles() if each["metadata"]["name"] == "system:basic-user")["rules"]
    assert rules == [extra, *wanted]


async def test_a_binding_counts_at_once_and_no_longer_than_it_lasts(team, caller):
    alice = caller(ALICE)
    with pytest.raises(Forbidden, match='configmaps is forbidden: User "alice" cannot list resource "configmaps"'):
        await alice.get(f"{TEAM}/configmaps")
    await team.post(f"{RBAC}/namespaces/team/roles", role("reader", rule(["list"], ["configmaps"])))
    await team.post(f"{RBAC}/namespaces/team/rolebindings", binding("alice", "reader", "alice", kind="Role"))
    assert (await alice.get(f"{TEAM}/configmaps"))["items"] == []
    for path in ("/api/v1/namespaces/default/configmaps", "/api/v1/configmaps", f"{TEAM}/secrets"):
        with pytest.raises(Forbidden):
            await alice.get(path)
    await team.delete(f"{RBAC}/namespaces/team/rolebindings/alice")
    with pytest.raises(Forbidden):
        await alice.get(f"{TEAM}/configmaps")


async def test_access_reviews_say_why(team, caller):
    await team.post(f"{RBAC}/clusterrolebindings", binding("viewers", "cluster-admin", "alice"))
    review = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}
    status = (await caller(ALICE).post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review))["status"]
    assert status["allowed"] is True
    assert status["reason"] == 'RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "cluster-admin"'


@pytest.fixture
async def manager(team, caller):
    """Alice may write roles and bindings in her namespace, and read ConfigMaps there: no more."""
    roles = f"{RBAC}/namespaces/team/roles"
    manage = rule(["create", "update", "patch", "get"], ["roles", "rolebindings"], "rbac.authorization.k8s.io")
    await team.post(roles, role("manager", manage, rule(["get", "list"], ["configmaps"])))
    await team.post(f"{RBAC}/namespaces/team/rolebindings", binding("manager", "manager", "alice", kind="Role"))
    return Turning(caller(ALICE))


async def test_roles_hold_no_more_than_their_writer(manager):
    roles = f"{RBAC}/namespaces/team/roles"
    await manager.post(roles, role("own", rule(["get"], ["configmaps"])))
    for more in (
        rule(["delete"], ["configmaps"]),
        rule(["get"], ["secrets"]),
        rule(["*"], ["configmaps"]),
        rule(["get"], ["*"]),
    ):
        with pytest.raises(Forbidden, match="attempting to grant RBAC permissions not currently held"):
            await manager.post(roles, role("more", more))
        with pytest.raises(Forbidden, match="not currently held"):
            await manager.patch(f"{roles}/own", {"rules": [more]})
        with pytest.raises(Forbidden, match="not currently held"):
            await manager.patch(f"{roles}/own", [{"op": "add", "path": "/rules/-", "value": more}], "json-patch")
        with pytest.raises(Forbidden, match="not currently held"):
            await manager.put(f"{roles}/own", role("own", more))
        applied = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **role("own", more)}
        with pytest.raises(Forbidden, match="not currently held"):
            await manager.call(
                "PATCH", f"{roles}/own", applied, "application/apply-patch+yaml", fieldManager="x", force="true"
            )
        with pytest.raises(Forbidden, match="cannot create|not currently held"):
            fresh = {**applied, "metadata": {"name": "fresh"}}
            await manager.call("PATCH", f"{roles}/fresh", fresh, "application/apply-patch+yaml", fieldManager="x")
    assert (await manager.get(f"{roles}/own"))["rules"] == [rule(["get"], ["configmaps"])]
    await manager.patch(f"{roles}/own", {"metadata": {"labels": {"a": "b"}}})


async def test_bindings_give_no_more_than_their_writer_has(manager):
    bindings = f"{RBAC}/namespaces/team/rolebindings"
    await manager.post(f"{RBAC}/namespaces/team/roles", role("own", rule(["get"], ["configmaps"])))
    await manager.post(bindings, binding("bob", "own", "bob", kind="Role"))
    with pytest.raises(Forbidden, match="not currently held"):
        await manager.post(bindings, binding("alice-admin", "cluster-admin", "alice"))
    with pytest.raises(Forbidden, match="not found"):
        await manager.post(bindings, binding("later", "not-there-yet", "alice"))
    with pytest.raises(Forbidden, match="cannot create"):
        await manager.post(f"{RBAC}/clusterrolebindings", binding("alice-admin", "cluster-admin", "alice"))


async def test_the_verbs_escalate_and_bind_lift_the_checks(manager, team):
    lifts = [
        rule(["escalate"], ["roles"], "rbac.authorization.k8s.io"),
        rule(["bind"], ["clusterroles"], "rbac.authorization.k8s.io"),
    ]
    await team.post(f"{RBAC}/namespaces/team/roles", role("lifts", *lifts))
    await team.post(f"{RBAC}/namespaces/team/rolebindings", binding("lifts", "lifts", "alice", kind="Role"))
    await manager.post(f"{RBAC}/namespaces/team/roles", role("more", rule(["*"], ["*"])))
    await manager.post(f"{RBAC}/namespaces/team/rolebindings", binding("carol", "cluster-admin", "carol"))


async def test_service_accounts_are_subjects(team, caller):
    robot = User("system:serviceaccount:team:robot", ("system:serviceaccounts", "system:serviceaccounts:team"))
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "team"}
    await team.post(
        f"{RBAC}/namespaces/team/rolebindings", {**binding("robot", "cluster-admin"), "subjects": [subject]}
    )
    await caller(robot).post(f"{TEAM}/configmaps", {"metadata": {"name": "made"}})
    with pytest.raises(Forbidden):
        await caller(robot).post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "made"}})


async def test_who_may_watch_one_object_may_ask_the_collection_for_it(admin, caller):
    """As clients do: `get -w NAME`, `wait`, the reflectors of kubelets."""
    one = {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"]}
    await admin.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    await admin.post(f"{RBAC}/namespaces/team/roles", role("one", one))
    await admin.post(f"{RBAC}/namespaces/team/rolebindings", binding("one", "one", "alice", kind="Role"))
    await asyncio.sleep(0)
    alice = caller(ALICE)
    await admin.post(f"{TEAM}/configmaps", {"metadata": {"name": "mine"}})
    for selector in ("metadata.name=mine", "metadata.name==mine", "metadata.namespace=team,metadata.name=mine"):
        found = await alice.get(f"{TEAM}/configmaps", fieldSelector=selector)
        assert [each["metadata"]["name"] for each in found["items"]] == ["mine"]
        ((kind, _),) = await alice.events(f"{TEAM}/configmaps", 1, fieldSelector=selector)
        assert kind == "ADDED"
    for selector in ("", "metadata.name=other", "metadata.name!=mine", "metadata.namespace=team"):
        with pytest.raises(Forbidden):
            await alice.get(f"{TEAM}/configmaps", fieldSelector=selector)


async def test_who_may_update_but_not_create_makes_nothing_by_an_update(team, caller):
    services = f"{TEAM}/services"
    await team.post(f"{RBAC}/namespaces/team/roles", role("updater", rule(["update"], ["services"])))
    await team.post(f"{RBAC}/namespaces/team/rolebindings", binding("updater", "updater", "alice", kind="Role"))
    body = {"spec": {"ports": [{"port": 80}]}}
    with pytest.raises(Forbidden, match='User "alice" cannot create resource "services"'):
        await caller(ALICE).put(f"{services}/s", body)
    await team.put(f"{services}/s", body)
    assert (await caller(ALICE).put(f"{services}/s", body))["metadata"]["name"] == "s"
