"""A node reads what its Pods take and no more, and writes what is its own: rows over a running server."""

from __future__ import annotations

import asyncio
import base64

import pytest

from core.apiserver.authn import User
from core.errors import ApiError, Forbidden, NotFound

CORE = "/api/v1/namespaces/default"
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
OTHER = User("system:node:n2", ("system:nodes", "system:authenticated"))
STRAY = User("robot", ("system:nodes", "system:authenticated"))
SECRETS, MAPS, PODS = f"{CORE}/secrets", f"{CORE}/configmaps", f"{CORE}/pods"
TOKENS = f"{CORE}/serviceaccounts/runner/token"


def using(name, node, **spec):
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec},
    }


@pytest.fixture
async def world(admin):
    """n1 runs `mine`, which takes the Secret `db`, the ConfigMap `conf`, the claim `data` and the account `runner`; n2 runs `theirs`."""
    for name in ("db", "other"):
        await admin.post(SECRETS, {"metadata": {"name": name}, "data": {"k": base64.b64encode(b"v").decode()}})
    for name in ("conf", "other"):
        await admin.post(MAPS, {"metadata": {"name": name}, "data": {"k": "v"}})
    await admin.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "runner"}})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await admin.post(f"{CORE}/persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim})
    volumes = [
        {"name": "a", "secret": {"secretName": "db"}},
        {"name": "b", "configMap": {"name": "conf"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    await admin.post(PODS, using("mine", "n1", volumes=volumes, serviceAccountName="runner"))
    await admin.post(PODS, using("theirs", "n2"))
    for name in ("n1", "n2"):
        await admin.post("/api/v1/nodes", {"metadata": {"name": name}})
    return admin


READS = [
    (f"{SECRETS}/db", {}, True),
    (f"{SECRETS}/other", {}, False),
    (SECRETS, {}, False),
    ("/api/v1/secrets", {}, False),
    (SECRETS, {"fieldSelector": "metadata.name=db"}, True),
    (SECRETS, {"fieldSelector": "metadata.name=other"}, False),
    (SECRETS, {"fieldSelector": "metadata.name!=x"}, False),
    ("/api/v1/namespaces/kube-system/secrets/db", {}, False),
    (f"{MAPS}/conf", {}, True),
    (f"{MAPS}/other", {}, False),
    (MAPS, {}, False),
    (MAPS, {"fieldSelector": "metadata.name=conf"}, True),
    (f"{CORE}/persistentvolumeclaims/data", {}, True),
    (f"{CORE}/persistentvolumeclaims", {}, False),
    (f"{CORE}/persistentvolumeclaims", {"fieldSelector": "metadata.name=data"}, False),
    (f"{CORE}/serviceaccounts/runner", {}, True),
    (f"{CORE}/serviceaccounts", {}, False),
    (f"{PODS}/mine", {}, True),
    (f"{PODS}/theirs", {}, False),
    ("/api/v1/pods", {}, False),
    ("/api/v1/pods", {"fieldSelector": "spec.nodeName=n1"}, True),
    ("/api/v1/pods", {"fieldSelector": "spec.nodeName=n2"}, False),
    ("/api/v1/pods", {"fieldSelector": "spec.nodeName!=n1"}, False),
    ("/api/v1/nodes/n1", {}, True),
    ("/api/v1/nodes/n2", {}, False),
    ("/api/v1/nodes", {}, False),
    ("/api/v1/nodes", {"fieldSelector": "metadata.name=n1"}, True),
    ("/api/v1/services", {}, True),
    ("/apis/discovery.k8s.io/v1/endpointslices", {}, True),
    ("/apis/apps/v1/replicasets", {}, True),
    ("/apis/apps/v1/deployments", {}, False),
    ("/api/v1/namespaces", {}, False),
    ("/apis/coordination.k8s.io/v1/leases", {}, False),
]


@pytest.mark.parametrize(("path", "query", "allowed"), READS)
async def test_reads(world, caller, path, query, allowed):
    if allowed:
        assert await caller(NODE).get(path, **query)
    else:
        with pytest.raises(Forbidden):
            await caller(NODE).get(path, **query)
    for nobody in (STRAY,):
        with pytest.raises(Forbidden):
            await caller(nobody).get(path, **query)


async def test_the_refusal_says_why(world, caller):
    with pytest.raises(Forbidden) as refused:
        await caller(OTHER).get(f"{SECRETS}/db")
    assert refused.value.message == (
        'secrets "db" is forbidden: User "system:node:n2" cannot get resource "secrets" in API group "" in the namespace "default": '
        "no relationship found between node 'n2' and this object"
    )


async def test_a_secret_is_read_from_the_binding_to_the_end_of_its_pod(world, caller):
    node = caller(NODE)
    await world.post(PODS, {**using("late", "", volumes=[{"name": "a", "secret": {"secretName": "other"}}])})
    with pytest.raises(Forbidden):
        await node.get(f"{SECRETS}/other")
    await world.post(f"{PODS}/late/binding", {"metadata": {"name": "late"}, "target": {"kind": "Node", "name": "n1"}})
    assert (await node.get(f"{SECRETS}/other"))["metadata"]["name"] == "other"
    with pytest.raises(Forbidden):
        await caller(OTHER).get(f"{SECRETS}/other")
    await world.delete(f"{PODS}/late", gracePeriodSeconds="0")
    with pytest.raises(Forbidden):
        await node.get(f"{SECRETS}/other")


async def test_a_watch_by_name(world, caller):
    events = await caller(NODE).events(SECRETS, 1, fieldSelector="metadata.name=db")
    assert [(kind, each["metadata"]["name"]) for kind, each in events] == [("ADDED", "db")]
    with pytest.raises(Forbidden):
        await caller(NODE).events(SECRETS, 1)


async def test_rbac_gives_a_list_by_name_as_well(admin, caller):
    await admin.post(SECRETS, {"metadata": {"name": "db"}})
    role = {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    await admin.post(f"{rbac}/roles", {"metadata": {"name": "one"}, "rules": [role]})
    subject = {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "one"}, "roleRef": {"kind": "Role", "name": "one"}, "subjects": [subject]}
    await admin.post(f"{rbac}/rolebindings", binding)
    ann = caller(User("ann", ("system:authenticated",)))
    for _ in range(5):  # turns of the loop in which the policy hears of the binding
        await asyncio.sleep(0)
    found = await ann.get(SECRETS, fieldSelector="metadata.name=db")
    assert [each["metadata"]["name"] for each in found["items"]] == ["db"]
    for fields in ("metadata.name=other", "type=Opaque", ""):
        with pytest.raises(Forbidden):
            await ann.get(SECRETS, **({"fieldSelector": fields} if fields else {}))


LABELS = [
    ({"node-restriction.kubernetes.io/fips": "true"}, False),
    ({"a.node-restriction.kubernetes.io/x": "y"}, False),
    ({"kubernetes.io/anything": "x"}, False),
    ({"node-role.kubernetes.io/control-plane": ""}, False),
    ({"foo.k8s.io/x": "y"}, False),
    ({"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "a"}, True),
    ({"node.kubernetes.io/thing": "x", "a.kubelet.kubernetes.io/b": "c"}, True),
    ({"faaslite.dev/tier": "gold", "plain": "x"}, True),
]


@pytest.mark.parametrize(("labels", "allowed"), LABELS)
async def test_labels_of_a_node(world, caller, labels, allowed):
    node, body = caller(NODE), {"metadata": {"labels": labels}}
    if allowed:
        await node.patch("/api/v1/nodes/n1", body)
        await node.patch("/api/v1/nodes/n1/status", body)
        return
    with pytest.raises(Forbidden, match="is not allowed to modify labels"):
        await node.patch("/api/v1/nodes/n1", body)
    with pytest.raises(Forbidden):
        await node.patch("/api/v1/nodes/n1/status", body)
    with pytest.raises(Forbidden):
        await node.put("/api/v1/nodes/n1", {"metadata": {"name": "n1", "labels": labels}})
    await world.patch("/api/v1/nodes/n1", body)
    with pytest.raises(Forbidden):  # nor take it away
        await node.patch("/api/v1/nodes/n1", {"metadata": {"labels": dict.fromkeys(labels)}})
    await world.delete("/api/v1/nodes/n1")
    with pytest.raises(Forbidden, match="is not allowed to set the following labels"):
        await node.post("/api/v1/nodes", {"metadata": {"name": "n1", "labels": labels}})


async def test_taints_owners_and_pods(world, caller):
    node = caller(NODE)
    taint = [{"key": "a", "effect": "NoSchedule"}]
    with pytest.raises(Forbidden, match='node "n1" is not allowed to modify taints'):
        await node.patch("/api/v1/nodes/n1", {"spec": {"taints": taint}})
    owner = [{"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"}]
    with pytest.raises(Forbidden, match="ownerReferences"):
        await node.patch("/api/v1/nodes/n1", {"metadata": {"ownerReferences": owner}})
    with pytest.raises(Forbidden, match="cannot update labels through pod status"):
        await node.patch(f"{PODS}/mine/status", {"metadata": {"labels": {"a": "b"}}})
    await world.delete("/api/v1/nodes/n1")
    made = await node.post("/api/v1/nodes", {"metadata": {"name": "n1"}, "spec": {"taints": taint}})
    assert made["spec"]["taints"][0]["key"] == "a", "it may say taints of its own when it registers"
    csi = "/apis/storage.k8s.io/v1/csinodes"
    await node.post(csi, {"metadata": {"name": "n1"}, "spec": {"drivers": []}})
    for refused in (
        node.post(csi, {"metadata": {"name": "n2"}, "spec": {"drivers": []}}),
        node.delete("/api/v1/nodes/n1"),
        node.post(f"{PODS}/theirs/eviction", {"metadata": {"name": "theirs"}}),
        node.post(PODS, using("new", "n1")),
        node.patch(f"{PODS}/mine", {"metadata": {"labels": {"a": "b"}}}),
        node.patch(f"{SECRETS}/db", {"data": {}}),
        node.delete(f"{SECRETS}/db"),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_tokens_only_of_pods_that_run_there(world, caller):
    uid = (await world.get(f"{PODS}/mine"))["metadata"]["uid"]

    def asking(**reference):
        return {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **reference} if reference else None}}

    made = await caller(NODE).post(TOKENS, asking(name="mine", uid=uid))
    assert made["status"]["token"]
    theirs = (await world.get(f"{PODS}/theirs"))["metadata"]["uid"]
    for body, why in (
        (asking(), "not bound to a pod"),
        (asking(name="mine"), "without a uid"),
        (asking(name="mine", uid="u"), "gone or another"),
        (asking(name="theirs", uid=theirs), "scheduled on a different node"),
        ({"spec": {"boundObjectRef": {"kind": "Node", "name": "n1", "uid": "u"}}}, "not bound to a pod"),
    ):
        with pytest.raises(Forbidden, match=why):
            await caller(NODE).post(TOKENS, body)
    with pytest.raises(Forbidden, match="no relationship found"):
        await caller(OTHER).post(TOKENS, asking(name="mine", uid=uid))
    await world.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "idle"}})
    with pytest.raises(Forbidden):
        await caller(NODE).post(TOKENS.replace("runner", "idle"), asking(name="mine", uid=uid))


async def test_reviews_tell_the_same(world, caller):
    """What jobs or a webhook asks of a node is what the node is allowed itself."""
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

    async def ask(**attributes):
        spec = {
            "user": NODE.name,
            "groups": ["system:nodes"],
            "resourceAttributes": {"namespace": "default", **attributes},
        }
        return (await world.post(path, {"spec": spec}))["status"]

    assert (await ask(verb="get", resource="secrets", name="db"))["allowed"]
    denied = await ask(verb="get", resource="secrets", name="other")
    assert denied == {"allowed": False, "reason": "no relationship found between node 'n1' and this object"}
    requirement = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    assert (await ask(verb="list", resource="pods", fieldSelector={"requirements": [requirement]}))["allowed"]
    assert (await ask(verb="list", resource="pods", fieldSelector={"rawSelector": "spec.nodeName=n1"}))["allowed"]
    assert not (await ask(verb="list", resource="pods"))["allowed"]


async def test_what_is_gone_is_not_forbidden(world, caller):
    with pytest.raises(NotFound):
        await caller(NODE).delete(f"{PODS}/gone")
    with pytest.raises(ApiError):
        await caller(NODE).get(f"{SECRETS}/gone")
