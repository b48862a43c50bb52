"""Secrets of ServiceAccounts' tokens: filled, good for the API, and gone with what they are of."""

from __future__ import annotations

import base64

import pytest

from core.api.kinds import SECRET, SERVICE_ACCOUNT, TOKEN_REVIEW
from core.api.views import Secret
from core.controllers.tokensecrets import ACCOUNT_NAME, ACCOUNT_UID, TokenSecrets
from core.errors import Invalid

TYPE = "kubernetes.io/service-account-token"


def secret(name="t", account="robot", **annotations):
    return {"metadata": {"name": name, "annotations": {ACCOUNT_NAME: account, **annotations}}, "type": TYPE}


async def asked(plane, token):
    review = await plane.client.create(TOKEN_REVIEW, {"spec": {"token": token}})
    return review["status"]


async def test_a_secret_gets_a_token_that_ends_with_it(plane):
    found = await plane.see(SECRET, Secret)
    await plane.run(TokenSecrets(plane.client, plane.informers, ca="PEM"))
    account = await plane.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    await plane.client.create(SECRET, secret(), "default")

    def filled():
        each = found.get("default/t")
        return each is not None and set(each.data) == {"token", "ca.crt", "namespace"}

    await plane.until(filled)
    stored = await plane.client.get(SECRET, "t", "default")
    assert stored["metadata"]["annotations"][ACCOUNT_UID] == account["metadata"]["uid"]
    assert base64.b64decode(stored["data"]["ca.crt"]) == b"PEM"
    assert base64.b64decode(stored["data"]["namespace"]) == b"default"
    token = base64.b64decode(stored["data"]["token"]).decode()
    status = await asked(plane, token)
    assert status["authenticated"] and status["user"]["username"] == "system:serviceaccount:default:robot"
    await plane.client.delete(SECRET, "t", "default")
    assert not (await asked(plane, token)).get("authenticated")


async def test_what_somebody_takes_out_comes_back(plane):
    found = await plane.see(SECRET, Secret)
    await plane.run(TokenSecrets(plane.client, plane.informers, ca="PEM"))
    await plane.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    await plane.client.create(SECRET, secret(), "default")
    await plane.until(lambda: "token" in getattr(found.get("default/t"), "data", {}))
    before = found.get("default/t").data["token"]
    await plane.client.patch(SECRET, "t", "default", {"data": {"ca.crt": "eA==", "namespace": None}})
    await plane.until(lambda: found.get("default/t").data.get("ca.crt") == base64.b64encode(b"PEM").decode())
    assert found.get("default/t").data["namespace"] and found.get("default/t").data["token"] == before


async def test_secrets_go_with_their_account(plane):
    found = await plane.see(SECRET, Secret)
    await plane.run(TokenSecrets(plane.client, plane.informers))
    await plane.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    await plane.client.create(SECRET, secret(), "default")
    await plane.until(lambda: "token" in getattr(found.get("default/t"), "data", {}))
    await plane.client.delete(SERVICE_ACCOUNT, "robot", "default")
    await plane.until(lambda: found.get("default/t") is None)
    await plane.client.create(SECRET, secret("u", account="nobody"), "default")
    await plane.client.create(SECRET, {"metadata": {"name": "v"}}, "default")
    await plane.until(lambda: found.get("default/u") is None and found.get("default/v") is not None)


async def test_a_secret_of_an_earlier_account_of_that_name_goes(plane):
    found = await plane.see(SECRET, Secret)
    await plane.run(TokenSecrets(plane.client, plane.informers))
    await plane.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    await plane.client.create(SECRET, secret(**{ACCOUNT_UID: "another"}), "default")
    await plane.client.create(SECRET, {"metadata": {"name": "v"}}, "default")
    await plane.until(lambda: found.get("default/v") is not None and found.get("default/t") is None)


async def test_such_a_secret_names_its_account(plane):
    with pytest.raises(Invalid, match=r"metadata.annotations\[kubernetes.io/service-account.name\]: Required value"):
        await plane.client.create(SECRET, {"metadata": {"name": "t"}, "type": TYPE}, "default")
