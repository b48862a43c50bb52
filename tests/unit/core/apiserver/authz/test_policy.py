"""The index follows the store: what was there, what comes, what goes, also over a compaction."""

import asyncio

import msgspec
import pytest

from core.apiserver.authn import User
from core.apiserver.authz.policy import Policy
from core.apiserver.dispatch import RequestInfo
from core.store.memory import MemoryStore

ALICE = User("alice")
GET_PODS = RequestInfo("get", "", "", "v1", "pods", "team", "x")
RBAC = "rbac.authorization.k8s.io"
ROLE = {
    "metadata": {"name": "r:1", "namespace": "team"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
}
BINDING = {
    "metadata": {"name": "b", "namespace": "team"},
    "roleRef": {"kind": "Role", "name": "r:1"},
    "subjects": [{"kind": "User", "name": "alice"}],
}


@pytest.fixture
async def store():
    made = MemoryStore(log_events=50)
    yield made
    await made.close()


@pytest.fixture
async def policy(store):
    made = Policy(store)
    yield made
    await made.stop()


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)  # a turn of the loop, no time


async def put(store, key, document):
    return await store.create(key, msgspec.json.encode(document))


async def test_knows_what_was_there_and_hears_of_what_comes_and_goes(store, policy):
    role = await put(store, f"/roles.{RBAC}/team/r:1", ROLE)
    await policy.start()
    assert not policy.index.allows(ALICE, GET_PODS)
    binding = await put(store, f"/rolebindings.{RBAC}/team/b", BINDING)
    await until(lambda: policy.index.allows(ALICE, GET_PODS))
    await store.update(role.key, msgspec.json.encode({**ROLE, "rules": []}), role.revision)
    await until(lambda: not policy.index.allows(ALICE, GET_PODS))
    await store.delete(binding.key, binding.revision)
    await until(lambda: not list(policy.index.grants(ALICE, "team")))


async def test_catches_up_after_a_compaction(store, policy):
    await put(store, f"/roles.{RBAC}/team/r:1", ROLE)
    binding = await put(store, f"/rolebindings.{RBAC}/team/b", BINDING)
    await policy.start()
    await policy.stop()
    await store.delete(binding.key, binding.revision)
    for number in range(60):
        await put(store, f"/configmaps/x/{number}", {"metadata": {"name": str(number)}})
    await store.compact(store.revision)
    known = {f"/rolebindings.{RBAC}/team/b"}
    from core.api.kinds import ROLE_BINDING

    follower = asyncio.create_task(policy._following._follow(ROLE_BINDING, binding.revision - 1, known))
    await until(lambda: not policy.index.allows(ALICE, GET_PODS))
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
