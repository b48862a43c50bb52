"""Tokens of ServiceAccounts: issued by the subresource, good as bearers until what they stand on is gone."""

from __future__ import annotations

import json

import pytest

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.authn.tokens import ServiceAccountTokens, new_key
from core.clock import wall
from core.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound, TooManyRequests
from core.store.memory import MemoryStore

CORE = "/api/v1/namespaces/default"
TOKENS = f"{CORE}/serviceaccounts/robot/token"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.fixture
async def robot(admin):
    return await admin.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "robot"}})


async def _review(admin, token, *audiences):
    return (await admin.post(REVIEWS, {"spec": {"token": token, "audiences": list(audiences)}}))["status"]


async def test_a_token_is_its_account(admin, robot):
    made = await admin.post(TOKENS, {"spec": {"expirationSeconds": 900}})
    assert (made["kind"], made["spec"]["expirationSeconds"]) == ("TokenRequest", 900)
    found = await _review(admin, made["status"]["token"])
    assert found["authenticated"] and found["audiences"] == ["https://kubernetes.default.svc"]
    user = found["user"]
    assert (user["username"], user["uid"]) == ("system:serviceaccount:default:robot", robot["metadata"]["uid"])
    assert set(user["groups"]) == {"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"}


async def test_a_token_ends_with_its_account(admin, robot):
    token = (await admin.post(TOKENS, {"spec": {}}))["status"]["token"]
    await admin.delete(f"{CORE}/serviceaccounts/robot")
    assert not (await _review(admin, token))["authenticated"]
    await admin.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "robot"}})
    assert not (await _review(admin, token))["authenticated"], "another account of that name"


async def test_audiences(admin, robot):
    token = (await admin.post(TOKENS, {"spec": {"audiences": ["vault", "x"]}}))["status"]["token"]
    assert not (await _review(admin, token))["authenticated"]
    assert (await _review(admin, token, "y", "vault"))["audiences"] == ["vault"]


async def test_bound_to_a_pod(admin, robot, pod):
    uid = (await admin.post(f"{CORE}/pods", pod("a")))["metadata"]["uid"]
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "a"}
    token = (await admin.post(TOKENS, {"spec": {"boundObjectRef": reference}}))["status"]["token"]
    found = await _review(admin, token)
    assert found["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]
    with pytest.raises(Conflict, match="the UID in the bound object reference"):
        await admin.post(TOKENS, {"spec": {"boundObjectRef": {**reference, "uid": "other"}}})
    with pytest.raises(NotFound):
        await admin.post(TOKENS, {"spec": {"boundObjectRef": {**reference, "name": "b"}}})
    with pytest.raises(BadRequest, match="cannot bind token"):
        await admin.post(TOKENS, {"spec": {"boundObjectRef": {"kind": "Job", "name": "a"}}})
    await admin.delete(f"{CORE}/pods/a")
    assert not (await _review(admin, token))["authenticated"]


async def test_refusals(admin, robot):
    with pytest.raises(Invalid, match="may not specify a duration less than 10 minutes"):
        await admin.post(TOKENS, {"spec": {"expirationSeconds": 5}})
    with pytest.raises(NotFound, match='serviceaccounts "nobody" not found'):
        await admin.post(f"{CORE}/serviceaccounts/nobody/token", {"spec": {}})


async def test_forgeries_and_the_end_of_a_token():
    store, now = MemoryStore(), [wall()]
    try:
        await store.create("/serviceaccounts/default/robot", json.dumps({"metadata": {"uid": "u"}}).encode())
        ours = ServiceAccountTokens(store, new_key(), lambda: now[0])
        theirs = ServiceAccountTokens(store, new_key())
        token, end = ours.issue("default", "robot", "u", 600, ["https://kubernetes.default.svc"])
        assert await ours.user(token) is not None and await ours.user(token) is not None
        head, body, signature = token.split(".")
        for wrong in (
            theirs.issue("default", "robot", "u", 600, ["https://kubernetes.default.svc"])[0],
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{head}.{body[:-4]}AAAA.{signature}",
            f"{head}.{body}.{signature[:-8]}AAAAAAAA",
            "..",
            "",
        ):
            assert await ours.user(wrong) is None
        now[0] = end + 1
        assert await ours.user(token) is None
    finally:
        await store.close()


async def test_a_key_outlives_the_server(store):
    key = new_key()
    first = ApiServer(store, tokens={}, signing_key=key)
    await first.start()
    from core.apiserver.authn import User

    local = first.local(User("admin", ("system:masters",)))
    await local.request("POST", f"{CORE}/serviceaccounts", None, b'{"metadata": {"name": "robot"}}')
    token = json.loads(await local.request("POST", TOKENS, None, b'{"spec": {}}'))["status"]["token"]
    await first.stop()
    second = ApiServer(store, tokens={}, signing_key=key)
    assert (await second._authenticator.authenticate(f"Bearer {token}")).name == "system:serviceaccount:default:robot"
    await store.close()


async def test_evictions_spend_a_budget(admin, pod):
    await admin.post(
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}},
    )
    for name in ("a", "b"):
        await admin.post(f"{CORE}/pods", {**pod(name), "metadata": {"name": name, "labels": {"app": "a"}}})
        await admin.patch(
            f"{CORE}/pods/{name}/status",
            {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
        )
    budget = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    with pytest.raises(TooManyRequests, match="Cannot evict pod as it would violate") as early:
        await admin.post(f"{CORE}/pods/a/eviction", eviction)
    assert (
        early.value.details["causes"][0]["message"] == "The disruption budget b is still being processed by the server."
    )
    await admin.patch(
        f"{budget}/status",
        {"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2}},
    )
    await admin.post(f"{CORE}/pods/a/eviction", eviction)
    status = (await admin.get(budget))["status"]
    assert status["disruptionsAllowed"] == 0 and list(status["disruptedPods"]) == ["a"]
    with pytest.raises(TooManyRequests) as spent:
        await admin.post(f"{CORE}/pods/b/eviction", {**eviction, "metadata": {"name": "b"}})
    cause = spent.value.details["causes"][0]
    assert cause["reason"] == "DisruptionBudget" and "needs 1 healthy pods and has 2 currently" in cause["message"]
    await admin.post(
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"metadata": {"name": "c"}, "spec": {"selector": {}}}
    )
    with pytest.raises(Exception, match="more than one PodDisruptionBudget"):
        await admin.post(f"{CORE}/pods/b/eviction", {**eviction, "metadata": {"name": "b"}})


async def test_bindings_by_themselves_and_reviews_of_rules(admin, pod):
    await admin.post(f"{CORE}/pods", pod("a"))
    await admin.post(f"{CORE}/bindings", {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}})
    assert (await admin.get(f"{CORE}/pods/a"))["spec"]["nodeName"] == "n"
    rules = await admin.post(
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}
    )
    assert rules["status"]["resourceRules"][0] == {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    assert [each["metadata"]["name"] for each in (await admin.get("/api/v1/componentstatuses"))["items"]] == [
        "apiserver",
        "store",
    ]


async def test_ephemeral_containers_are_only_added(admin, pod):
    await admin.post(f"{CORE}/pods", pod("a"))
    path = f"{CORE}/pods/a/ephemeralcontainers"
    found = await admin.patch(
        path, {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}, "strategic-merge-patch"
    )
    assert found["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"
    for bad, why in (
        ({"name": "c2"}, r"ephemeralContainers\[0\].image: Required value"),
        ({"name": "c", "image": "i"}, r'ephemeralContainers\[0\].name: Duplicate value: "c"'),
        ({"name": "x", "image": "i", "targetContainerName": "no"}, r'targetContainerName: Not found: "no"'),
        (
            {"name": "x", "image": "i", "ports": [{"containerPort": 1}]},
            "ports: Forbidden: cannot be set for an Ephemeral",
        ),
    ):
        with pytest.raises(Invalid, match=why):
            await admin.patch(path, {"spec": {"ephemeralContainers": [bad]}}, "strategic-merge-patch")
    with pytest.raises(Invalid, match="may not be removed"):
        await admin.patch(path, {"spec": {"ephemeralContainers": []}})
    with pytest.raises(Invalid, match="may not be changed"):
        await admin.patch(path, {"spec": {"ephemeralContainers": [{"name": "debug", "image": "other"}]}})


async def test_others_verify_them_with_what_discovery_says(admin, caller, robot):
    """By a library that isn't ours, from the two documents alone."""
    import jwt

    account = caller(User("system:serviceaccount:default:robot", ("system:serviceaccounts", "system:authenticated")))
    found = await account.get("/.well-known/openid-configuration")
    issuer = "https://kubernetes.default.svc"
    assert found["issuer"] == issuer and found["jwks_uri"] == f"{issuer}/openid/v1/jwks"
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    keys = jwt.PyJWKSet.from_dict(await account.get("/openid/v1/jwks"))
    token = (await admin.post(TOKENS, {"spec": {"audiences": ["vault"]}}))["status"]["token"]
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key.key, algorithms=["ES256"], audience="vault", issuer=issuer)
    assert claims["sub"] == "system:serviceaccount:default:robot"
    for nobody in (User("ann", ("system:authenticated",)), User("system:anonymous", ("system:unauthenticated",))):
        with pytest.raises(Forbidden):
            await caller(nobody).get("/openid/v1/jwks")


async def test_clocks_that_differ():
    """A token of another server of the cluster, whose clock is ahead: a little is borne, more isn't."""
    store, key, now = MemoryStore(), new_key(), wall()
    try:
        await store.create("/serviceaccounts/default/robot", json.dumps({"metadata": {"uid": "u"}}).encode())
        here = ServiceAccountTokens(store, key, lambda: now)
        for ahead, good in ((0, True), (8, True), (60, False), (-700, False)):
            there = ServiceAccountTokens(store, key, lambda ahead=ahead: now + ahead)
            token, _ = there.issue("default", "robot", "u", 600, ["https://kubernetes.default.svc"])
            assert (await here.user(token) is not None) is good, ahead
    finally:
        await store.close()


def test_a_signing_key_that_is_none():
    for key in (b"nonsense", b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ValueError, match="the signing key of ServiceAccounts can't be read"):
            ServiceAccountTokens(MemoryStore(), key)
