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
