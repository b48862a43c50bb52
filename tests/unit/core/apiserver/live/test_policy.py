"""Who may do what: the fixed table, nodes, and the reviews that tell of it."""

from __future__ import annotations

import pytest

from core.api import release
from core.apiserver.authn import ANONYMOUS, Authenticator, User
from core.errors import Forbidden, Invalid, NotFound, Unauthorized

NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
GATEWAY = User("system:serviceaccount:faaslite-system:gateway", ("system:authenticated",))
JOBS = User("system:serviceaccount:faaslite-system:jobs", ("system:authenticated",))
NOBODY = User("nobody", ("system:authenticated",))
PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


async def test_bearer_tokens():
    authenticator = Authenticator({"secret": User("alice", ("devs",)), "": User("ghost")})
    assert await authenticator.authenticate("Bearer secret") == User("alice", ("devs", "system:authenticated"))
    assert await authenticator.authenticate("") == ANONYMOUS
    for wrong in ("Bearer other", "Bearer ", "Basic secret", "secret"):
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(wrong)


async def test_refusals_in_the_words_of_kubernetes(caller):
    nobody = caller(NOBODY)
    with pytest.raises(Forbidden) as refused:
        await nobody.get(PODS)
    assert refused.value.message == (
        'pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    with pytest.raises(Forbidden) as named:
        await nobody.get("/apis/apps/v1/namespaces/default/replicasets/a/scale")
    assert named.value.message == (
        'replicasets.apps "a" is forbidden: User "nobody" cannot get resource "replicasets/scale" in API group "apps" in the namespace "default"'
    )
    with pytest.raises(Forbidden, match='cannot list resource "nodes" in API group "" at the cluster scope'):
        await nobody.get("/api/v1/nodes")
    with pytest.raises(Forbidden, match='forbidden: User "nobody" cannot get path "/metrics"'):
        await nobody.get("/metrics")
    assert (await nobody.get("/version"))["minor"] == release.MINOR
    assert (await nobody.get("/apis"))["kind"] == "APIGroupList"
    with pytest.raises(Forbidden):
        await caller(ANONYMOUS).get("/apis")


async def test_nodes_write_what_is_theirs(admin, caller, pod):
    node = caller(NODE)
    for name in ("mine", "theirs"):
        await admin.post(PODS, pod(name, nodeName="n1" if name == "mine" else "n2"))
    await node.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    await node.patch("/api/v1/nodes/n1/status", {"status": {"phase": "Running"}})
    await node.post(LEASES, {"metadata": {"name": "n1"}})
    await node.patch(f"{LEASES}/n1", {"spec": {"holderIdentity": "n1"}})
    await node.patch(f"{PODS}/mine/status", {"status": {"phase": "Running"}})
    await node.patch("/api/v1/nodes/n1", {"metadata": {"labels": {"faaslite.dev/a": "b"}}})
    await node.delete(f"{PODS}/mine", gracePeriodSeconds="0")
    with pytest.raises(NotFound):
        await node.delete(f"{PODS}/mine", gracePeriodSeconds="0")
    await admin.post("/api/v1/nodes", {"metadata": {"name": "n2"}})
    for refused in (
        node.post("/api/v1/nodes", {"metadata": {"name": "n3"}}),
        node.post(LEASES, {"metadata": {"name": "n3"}}),
        node.patch("/api/v1/nodes/n2", {"spec": {"unschedulable": True}}),
        node.patch("/api/v1/nodes/n2/status", {"status": {}}),
        node.post(LEASES.replace("kube-node-lease", "default"), {"metadata": {"name": "n1"}}),
        node.patch(f"{PODS}/theirs/status", {"status": {"phase": "Failed"}}),
        node.delete(f"{PODS}/theirs"),
        node.patch(f"{PODS}/theirs", {"metadata": {"labels": {"a": "b"}}}),
        node.post(PODS, pod("new")),
        node.get("/apis/apps/v1/deployments"),
        caller(User("system:node:n1", ())).get("/api/v1/pods"),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_gateway_and_jobs(caller):
    gateway, jobs = caller(GATEWAY), caller(JOBS)
    for path in (PODS, "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/apis/apps/v1/replicasets"):
        names = [each["metadata"]["name"] for each in (await gateway.get(path))["items"]]
        assert names == (["kubernetes"] if path.endswith("services") else [])
        assert len((await jobs.get(path))["items"]) == len(names)
    for path in ("/api/v1/secrets", "/api/v1/configmaps", "/apis/coordination.k8s.io/v1/leases"):
        with pytest.raises(Forbidden):
            await gateway.get(path)
    await jobs.post("/apis/coordination.k8s.io/v1/namespaces/faaslite-system/leases", {"metadata": {"name": "jobs"}})
    with pytest.raises(Forbidden):
        await jobs.get("/api/v1/secrets")


async def test_reviews(admin, caller):
    auth, authz = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
    me = await caller(NOBODY).post(f"{auth}/selfsubjectreviews", {})
    assert me["status"]["userInfo"] == {"username": "nobody", "groups": ["system:authenticated"]}
    token = await caller(GATEWAY).post(f"{auth}/tokenreviews", {"spec": {"token": "secret"}})
    assert token["status"]["authenticated"] is True
    assert token["status"]["user"] == {"username": "alice", "uid": "u-7", "groups": ["devs", "system:authenticated"]}
    assert (await caller(GATEWAY).post(f"{auth}/tokenreviews", {"spec": {"token": "x"}}))["status"][
        "authenticated"
    ] is False
    asked = {"verb": "list", "resource": "pods", "namespace": "default"}
    assert (await caller(NOBODY).post(f"{authz}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": asked}}))[
        "status"
    ] == {"allowed": False}
    for user, groups, allowed in ((GATEWAY.name, [], True), ("x", ["system:masters"], True), ("x", [], False)):
        spec = {"user": user, "groups": groups, "resourceAttributes": asked}
        answer = await caller(JOBS).post(f"{authz}/subjectaccessreviews", {"spec": spec})
        assert answer["status"]["allowed"] is allowed
    path = {
        "user": "x",
        "groups": ["system:authenticated"],
        "nonResourceAttributes": {"verb": "get", "path": "/apis/apps"},
    }
    assert (await admin.post(f"{authz}/subjectaccessreviews", {"spec": path}))["status"]["allowed"] is True
    with pytest.raises(Invalid, match="exactly one of nonResourceAttributes or resourceAttributes"):
        await admin.post(f"{authz}/selfsubjectaccessreviews", {"spec": {}})
    with pytest.raises(Forbidden):
        await caller(NOBODY).post(f"{auth}/tokenreviews", {"spec": {"token": "secret"}})
