"""Who may do what, asked over HTTP: a table of subjects, verbs, resources and namespaces equals what the roles say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import aiohttp
import pytest

RBAC = "rbac.authorization.k8s.io"
PLACES = {
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "pods": "/api/v1",
    "roles": f"/apis/{RBAC}/v1",
    "replicasets": "/apis/apps/v1",
}
GROUPS = {"configmaps": "", "secrets": "", "pods": "", "roles": RBAC, "replicasets": "apps"}
NAMESPACES = ("team-a", "team-b")
VERBS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}

# role -> (verbs, groups, resources, names); subject -> [(role, namespace or "" for everywhere)]
ROLES = {
    "reader": (("get", "list"), ("",), ("configmaps", "pods"), ()),
    "writer": (("create", "patch", "delete"), ("",), ("configmaps",), ()),
    "one-secret": (("get", "patch"), ("",), ("secrets",), ("thing",)),
    "apps": (("*",), ("apps",), ("*",), ()),
    "everything": (("*",), ("*",), ("*",), ()),
}
BINDINGS = {
    "nobody": [],
    "ann": [("reader", "team-a")],
    "ben": [("reader", ""), ("writer", "team-b")],
    "cat": [("one-secret", "team-a"), ("apps", "team-a")],
    "dan": [("everything", "team-b")],
    "eve": [("writer", "team-a"), ("one-secret", "")],
    "system:serviceaccount:team-a:robot": [("reader", "team-b"), ("apps", "")],
}
GROUP_BINDINGS = {"operators": [("reader", "")]}


def expected(bindings, verb, resource, namespace, name):
    """RBAC's specification, by hand."""
    for role, where in bindings:
        verbs, groups, resources, names = ROLES[role]
        if where not in ("", namespace):
            continue
        if (
            not {"*", verb} & set(verbs)
            or not {"*", GROUPS[resource]} & set(groups)
            or not {"*", resource} & set(resources)
        ):
            continue
        if not names or name in names:
            return True
    return False


@pytest.fixture
async def session(serving) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": "Bearer admin-token"}
    connector = aiohttp.TCPConnector(ssl=serving.client_ssl())
    async with aiohttp.ClientSession(serving.url, headers=headers, connector=connector) as made:
        yield made


async def ask(session, method, path, user="", groups=(), body=None, content_type="application/json"):
    headers = [("Content-Type", content_type)]
    if user:
        headers += [("Impersonate-User", user), *(("Impersonate-Group", each) for each in groups)]
    async with session.request(method, path, headers=headers, json=body) as reply:
        return reply.status, await reply.json()


async def build(session):
    for namespace in NAMESPACES:
        assert (await ask(session, "POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}}))[0] == 201
    for name, (verbs, groups, resources, names) in ROLES.items():
        rule = {"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}
        status, _ = await ask(
            session, "POST", f"/apis/{RBAC}/v1/clusterroles", body={"metadata": {"name": name}, "rules": [rule]}
        )
        assert status == 201
    subjects = [("User", user, bound) for user, bound in BINDINGS.items()] + [
        ("Group", group, bound) for group, bound in GROUP_BINDINGS.items()
    ]
    for number, (kind, subject, bound) in enumerate(subjects):
        for role, where in bound:
            said = {"kind": kind, "name": subject, "apiGroup": RBAC}
            if subject.startswith("system:serviceaccount:"):
                said = {"kind": "ServiceAccount", "name": "robot", "namespace": "team-a"}
            reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
            body = {"metadata": {"name": f"b{number}-{role}"}, "roleRef": reference, "subjects": [said]}
            path = f"/namespaces/{where}/rolebindings" if where else "/clusterrolebindings"
            status, answer = await ask(session, "POST", f"/apis/{RBAC}/v1{path}", body=body)
            assert status == 201, answer


def request(verb, resource, namespace):
    """(path, body, content type) of a request that changes nothing: writes are dry."""
    path = f"{PLACES[resource]}/namespaces/{namespace}/{resource}"
    if verb in ("get", "patch", "delete"):
        path += "/thing"
    if verb in ("list", "get"):
        return path, None, "application/json"
    body = (
        {"metadata": {"name": "thing"}}
        if verb == "create"
        else {"metadata": {"labels": {"a": "b"}}}
        if verb == "patch"
        else None
    )
    return f"{path}?dryRun=All", body, "application/merge-patch+json" if verb == "patch" else "application/json"


async def test_the_table(session):
    await build(session)
    asking = [(user, (), bound) for user, bound in BINDINGS.items()]
    asking.append(("fay", ("operators",), GROUP_BINDINGS["operators"]))
    rows = list(itertools.product(asking, VERBS, PLACES, NAMESPACES))
    assert len(rows) == 8 * 6 * 5 * 2

    async def check(row):
        (user, groups, bound), verb, resource, namespace = row
        path, body, content_type = request(verb, resource, namespace)
        name = "thing" if verb in ("get", "patch", "delete") else ""
        status, answer = await ask(session, VERBS[verb], path, user, groups, body, content_type)
        refused = status == 403 and f'User "{user}" cannot {verb} resource "{resource}"' in answer["message"]
        return None if refused is not expected(bound, verb, resource, namespace, name) else (row, status, answer)

    wrong = [each for each in await asyncio.gather(*map(check, rows)) if each]
    assert not wrong


async def test_only_whom_one_may_be(session, serving):
    await build(session)
    body = {
        "metadata": {"name": "acting"},
        "rules": [{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]}],
    }
    assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterroles", body=body))[0] == 201
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "acting"}
    bound = {
        "metadata": {"name": "acting"},
        "roleRef": reference,
        "subjects": [{"kind": "User", "name": "nobody", "apiGroup": RBAC}],
    }
    assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterrolebindings", body=bound))[0] == 201
    nobody = {"Authorization": "Bearer nobody-token"}
    maps = f"{serving.url}/api/v1/namespaces/team-a/configmaps"
    for headers, status in (
        ({}, 403),
        ({"Impersonate-User": "ann"}, 200),
        ({"Impersonate-User": "ben"}, 403),
        ({"Impersonate-User": "ann", "Impersonate-Group": "system:masters"}, 403),
        ({"Impersonate-User": "system:serviceaccount:team-a:robot"}, 403),
        ({"Impersonate-Group": "system:masters"}, 400),
    ):
        async with session.get(maps.removeprefix(serving.url), headers={**nobody, **headers}) as reply:
            assert reply.status == status, (headers, await reply.text())


# Subresources, names, paths and nodes: rows of (role rules, request) and what RBAC's specification says of them.

RULES = {
    "logs": {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]},
    "statuses": {"verbs": ["get", "patch"], "apiGroups": [""], "resources": ["pods/status"]},
    "any-scale": {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]},
    "pods-alone": {"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]},
    "named": {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["thing"]},
    "tokens": {
        "verbs": ["create"],
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": ["thing"],
    },
    "nodes": {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"]},
}
BELOW = [
    ("GET", "/api/v1/namespaces/team-a/pods/thing", {"pods-alone"}),
    ("GET", "/api/v1/namespaces/team-a/pods/thing/log", {"logs"}),
    ("GET", "/api/v1/namespaces/team-a/pods/thing/status", {"statuses"}),
    ("PATCH", "/api/v1/namespaces/team-a/pods/thing/status", {"statuses"}),
    ("PUT", "/api/v1/namespaces/team-a/pods/thing/status", set()),
    ("POST", "/api/v1/namespaces/team-a/pods/thing/eviction", set()),
    ("POST", "/api/v1/namespaces/team-a/pods/thing/binding", set()),
    ("GET", "/api/v1/namespaces/team-a/pods/thing/exec", set()),
    ("POST", "/api/v1/namespaces/team-a/pods/thing/exec", set()),
    ("POST", "/api/v1/namespaces/team-a/pods/thing/attach", set()),
    ("POST", "/api/v1/namespaces/team-a/pods/thing/portforward", set()),
    ("PATCH", "/api/v1/namespaces/team-a/pods/thing/ephemeralcontainers", set()),
    ("PATCH", "/api/v1/namespaces/team-a/pods/thing/resize", set()),
    ("GET", "/apis/apps/v1/namespaces/team-a/deployments/thing/scale", {"any-scale"}),
    ("PATCH", "/apis/apps/v1/namespaces/team-a/replicasets/thing/scale", {"any-scale"}),
    ("PATCH", "/apis/apps/v1/namespaces/team-a/replicasets/thing/status", set()),
    ("GET", "/apis/apps/v1/namespaces/team-a/replicasets/thing", set()),
    ("GET", "/api/v1/namespaces/team-a/configmaps/thing", {"named"}),
    ("DELETE", "/api/v1/namespaces/team-a/configmaps/thing", {"named"}),
    ("GET", "/api/v1/namespaces/team-a/configmaps/other", set()),
    ("GET", "/api/v1/namespaces/team-a/configmaps", set()),
    ("POST", "/api/v1/namespaces/team-a/configmaps", set()),
    ("DELETE", "/api/v1/namespaces/team-a/configmaps", set()),
    ("GET", "/api/v1/namespaces/team-a/configmaps?fieldSelector=metadata.name%3Dthing", {"named"}),
    ("GET", "/api/v1/namespaces/team-a/configmaps?fieldSelector=metadata.name%3Dother", set()),
    ("GET", "/api/v1/configmaps?fieldSelector=metadata.name%3Dthing", {"named"}),
    ("POST", "/api/v1/namespaces/team-a/serviceaccounts/thing/token", {"tokens"}),
    ("POST", "/api/v1/namespaces/team-a/serviceaccounts/other/token", set()),
    ("GET", "/api/v1/nodes", {"nodes"}),
    ("GET", "/api/v1/nodes/n1", {"nodes"}),
    ("GET", "/api/v1/nodes/n1/status", set()),
    ("DELETE", "/api/v1/nodes/n1", set()),
]
URLS = {
    "exact": ["/metrics"],
    "below": ["/openapi/*"],
    "prefix": ["/heal*"],
    "all": ["*"],
    "discovery": ["/openid/v1/jwks"],
}
PATHS = {
    "/metrics": {"exact", "all"},
    "/metrics/slis": {"all"},
    "/openid/v1/jwks": {"discovery", "all"},
    "/.well-known/openid-configuration": {"all"},
    "/debug/pprof": {"all"},
    "/secret": {"all"},
}
"""Without those that everybody may read (health, version, discovery)."""


async def grant(session, name, rules):
    body = {"metadata": {"name": name}, "rules": rules}
    assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterroles", body=body))[0] == 201
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    bound = {
        "metadata": {"name": name},
        "roleRef": reference,
        "subjects": [{"kind": "User", "name": name, "apiGroup": RBAC}],
    }
    assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterrolebindings", body=bound))[0] == 201


async def refused(session, method, path, user):
    """Whether the authoriser, and nobody behind it, said no."""
    headers = {"Impersonate-User": user, "Content-Type": "application/json"}
    separator = "&" if "?" in path else "?"
    dry = "" if method == "GET" else f"{separator}dryRun=All"
    async with session.request(method, path + dry, headers=headers, data=None if method == "GET" else "{}") as reply:
        text = await reply.text()
        return reply.status == 403 and f'User \\"{user}\\" cannot' in text


async def test_subresources_and_names(session):
    assert (await ask(session, "POST", "/api/v1/namespaces", body={"metadata": {"name": "team-a"}}))[0] == 201
    for name, rule in RULES.items():
        await grant(session, name, [rule])
    rows = list(itertools.product(RULES, BELOW))
    assert len(rows) == len(RULES) * len(BELOW) > 200

    async def check(row):
        role, (method, path, allowed) = row
        return None if await refused(session, method, path, role) is (role not in allowed) else row

    assert not [each for each in await asyncio.gather(*map(check, rows)) if each]


async def test_paths(session):
    for name, urls in URLS.items():
        await grant(session, name, [{"verbs": ["get"], "nonResourceURLs": urls}])

    async def check(row):
        role, path = row
        return None if await refused(session, "GET", path, role) is (role not in PATHS[path]) else row

    rows = list(itertools.product(URLS, PATHS))
    assert not [each for each in await asyncio.gather(*map(check, rows)) if each]
    assert await refused(session, "POST", "/metrics", "exact"), "the verb counts too"


ACTING = [
    ({}, {}, False),
    ({"resources": ["users"], "resourceNames": ["ann"]}, {"Impersonate-User": "ann"}, True),
    ({"resources": ["users"], "resourceNames": ["ann"]}, {"Impersonate-User": "ben"}, False),
    ({"resources": ["users"]}, {"Impersonate-User": "ben"}, True),
    ({"resources": ["users"]}, {"Impersonate-User": "ben", "Impersonate-Group": "dev"}, False),
    ({"resources": ["users", "groups"]}, {"Impersonate-User": "ben", "Impersonate-Group": "dev"}, True),
    ({"resources": ["users", "groups"], "resourceNames": ["ben", "dev"]}, {"Impersonate-User": "ben", "Impersonate-Group": "ops"}, False),
    ({"resources": ["users"]}, {"Impersonate-User": "ben", "Impersonate-Uid": "7"}, False),
    ({"resources": ["users", "uids"], "apiGroups": ["", "authentication.k8s.io"]}, {"Impersonate-User": "ben", "Impersonate-Uid": "7"}, True),
    ({"resources": ["users"]}, {"Impersonate-User": "ben", "Impersonate-Extra-Scopes": "x"}, False),
    (
        {"resources": ["users", "userextras/scopes"], "apiGroups": ["", "authentication.k8s.io"]},
        {"Impersonate-User": "ben", "Impersonate-Extra-Scopes": "x"},
        True,
    ),
    ({"resources": ["users"]}, {"Impersonate-User": "system:serviceaccount:team-a:robot"}, False),
    ({"resources": ["serviceaccounts"]}, {"Impersonate-User": "system:serviceaccount:team-a:robot"}, True),
    ({"resources": ["users"]}, {"Impersonate-User": "system:node:n1"}, True),
    ({"resources": ["users"]}, {"Impersonate-User": "system:node:n1", "Impersonate-Group": "system:nodes"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "headers", "allowed"), ACTING)
async def test_impersonation(session, rule, headers, allowed):
    if rule:
        full = {"verbs": ["impersonate"], "apiGroups": [""], **rule}
        body = {"metadata": {"name": "acting"}, "rules": [full]}
        assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterroles", body=body))[0] == 201
        reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "acting"}
        subjects = [{"kind": "User", "name": "nobody", "apiGroup": RBAC}]
        bound = {"metadata": {"name": "acting"}, "roleRef": reference, "subjects": subjects}
        assert (await ask(session, "POST", f"/apis/{RBAC}/v1/clusterrolebindings", body=bound))[0] == 201
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with session.post(path, headers={"Authorization": "Bearer nobody-token", **headers}, json={}) as reply:
        found = await reply.json()
    if not headers:
        assert found["status"]["userInfo"]["username"] == "nobody"
    elif allowed:
        assert reply.status == 201 and found["status"]["userInfo"]["username"] == headers["Impersonate-User"]
    else:
        assert reply.status == 403 and "cannot impersonate resource" in found["message"]


NODE_ROWS = [
    ("GET", "/api/v1/secrets", False),
    ("GET", "/api/v1/namespaces/team-a/secrets/db", True),
    ("GET", "/api/v1/namespaces/team-a/secrets/other", False),
    ("GET", "/api/v1/namespaces/team-a/secrets?fieldSelector=metadata.name%3Ddb", True),
    ("GET", "/api/v1/namespaces/team-a/secrets?watch=true&timeoutSeconds=1", False),
    ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", True),
    ("GET", "/api/v1/pods", False),
    ("GET", "/api/v1/nodes/n2", False),
    ("PATCH", "/api/v1/nodes/n2", False),
    ("DELETE", "/api/v1/nodes/n1", False),
    ("POST", "/api/v1/namespaces/team-a/pods", False),
    ("GET", "/metrics", False),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", False),
]


async def test_a_node(session):
    assert (await ask(session, "POST", "/api/v1/namespaces", body={"metadata": {"name": "team-a"}}))[0] == 201
    volumes = [{"name": "v", "secret": {"secretName": "db"}}]
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    await ask(session, "POST", "/api/v1/namespaces/team-a/secrets", body={"metadata": {"name": "db"}})
    pod = {"metadata": {"name": "a"}, "spec": spec}
    assert (await ask(session, "POST", "/api/v1/namespaces/team-a/pods", body=pod))[0] == 201
    wrong = []
    for method, path, allowed in NODE_ROWS:
        headers = {"Authorization": "Bearer node-token", "Content-Type": "application/json"}
        async with session.request(method, path, headers=headers, data=None if method == "GET" else "{}") as reply:
            if (reply.status == 403) is allowed:
                wrong.append((method, path, reply.status, await reply.text()))
    assert not wrong
