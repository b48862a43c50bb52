"""A Pod runs as an account that exists."""

from __future__ import annotations

import pytest

from core.errors import Forbidden

CORE = "/api/v1/namespaces/default"
PODS = f"{CORE}/pods"


def pod(**metadata):
    return {"metadata": metadata, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}}


async def test_an_account_must_be_there(admin):
    for metadata, name in (({"name": "p"}, "p"), ({"generateName": "p-"}, "p-")):
        with pytest.raises(Forbidden) as refused:
            await admin.post(PODS, pod(**metadata))
        assert refused.value.message == (
            f'pods "{name}" is forbidden: error looking up service account default/robot: serviceaccount "robot" not found'
        )
    await admin.post("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": "robot"}})
    with pytest.raises(Forbidden):
        await admin.post(PODS, pod(name="p"))
    await admin.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "robot"}})
    assert (await admin.post(PODS, pod(name="p")))["spec"]["serviceAccountName"] == "robot"


async def test_the_account_of_a_namespace_may_be_on_its_way(admin):
    made = await admin.post(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    assert made["spec"]["serviceAccountName"] == "default"


async def test_secrets_for_images_come_with_the_account(admin):
    account = {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "registry"}]}
    await admin.post(f"{CORE}/serviceaccounts", account)
    assert (await admin.post(PODS, pod(name="p")))["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    own = pod(name="q")
    own["spec"]["imagePullSecrets"] = [{"name": "mine"}]
    assert (await admin.post(PODS, own))["spec"]["imagePullSecrets"] == [{"name": "mine"}]
