"""Credentials that were good once, or never: each is a 401 in one line, and nothing opens."""

from __future__ import annotations

import json
import logging
from typing import Any

import aiohttp
import pytest

from core.api.kinds import POD, SERVICE_ACCOUNT
from core.clock import wall
from core.errors import Unauthorized

AUTH = "/apis/authentication.k8s.io/v1"


async def account(plane: Any, name: str = "robot", **spec: Any) -> tuple[Any, str]:
    admin = plane.client("admin-token")
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": name}}, "default")
    made = await admin.create(SERVICE_ACCOUNT, {"spec": spec}, "default", name=name, subresource="token")
    return admin, made["status"]["token"]


async def who(plane: Any, token: str) -> str:
    answer = await plane.client(token).request("POST", f"{AUTH}/selfsubjectreviews", None, b"{}")
    return str(json.loads(answer)["status"]["userInfo"]["username"])


async def test_a_token_in_use_ends_with_its_account(plane: Any) -> None:
    admin, token = await account(plane)
    assert await who(plane, token) == "system:serviceaccount:default:robot"
    await admin.delete(SERVICE_ACCOUNT, "robot", "default")
    with pytest.raises(Unauthorized) as refused:
        await who(plane, token)
    assert refused.value.message == "Unauthorized"
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
    with pytest.raises(Unauthorized):
        await who(plane, token)


async def test_a_token_in_use_ends_with_the_pod_that_it_is_bound_to(plane: Any) -> None:
    admin = plane.client("admin-token")
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await admin.create(POD, pod, "default")
    _, token = await account(plane, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "a"})
    assert await who(plane, token)
    await admin.delete(POD, "a", "default", grace=0)
    with pytest.raises(Unauthorized):
        await who(plane, token)
    await admin.create(POD, pod, "default")
    with pytest.raises(Unauthorized):  # another Pod of that name
        await who(plane, token)


async def test_a_token_in_use_expires(plane: Any, monkeypatch: Any) -> None:
    _, token = await account(plane, expirationSeconds=600)
    accounts = plane.api._authenticator._accounts
    assert await who(plane, token)
    monkeypatch.setattr(accounts, "_clock", lambda: wall() + 601)
    with pytest.raises(Unauthorized):
        await who(plane, token)


async def test_a_token_for_somebody_else_is_no_token_here(plane: Any) -> None:
    """What was given out for a vault can't be replayed at the API by the vault."""
    admin, token = await account(plane, audiences=["vault"])
    with pytest.raises(Unauthorized):
        await who(plane, token)

    async def review(*audiences: str) -> Any:
        body = json.dumps({"spec": {"token": token, "audiences": list(audiences)}}).encode()
        return json.loads(await admin.request("POST", f"{AUTH}/tokenreviews", None, body))["status"]

    assert (await review("vault", "other"))["audiences"] == ["vault"]
    for refused in (await review(), await review("other")):
        assert refused["authenticated"] is False and refused["user"] == {}


GARBAGE = [
    "Bearer", "Bearer ", "Bearer x", "Bearer " + "a" * 5000, "Bearer a.b.c", "Bearer .."," Basic YWRtaW46YWRtaW4=", "Basic admin-token",
    "Negotiate x", "bearer\tadmin-token", "Bearer admin-token admin-token", "Bearer \xff\xfe", "admin-token",
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", "Bearer abcdef.0123456789abcdef",
]  # fmt: skip


@pytest.mark.parametrize("header", GARBAGE)
async def test_headers_that_are_nobodys(plane: Any, header: str, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        aiohttp.ClientSession(plane.url, connector=aiohttp.TCPConnector(ssl=plane.context())) as session,
        session.get("/api/v1/secrets", headers={"Authorization": header}) as reply,
    ):
        found = await reply.json()
        assert reply.status == 401 and found["message"] == "Unauthorized" and found["reason"] == "Unauthorized"
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert "Traceback" not in caplog.text
