"""Tokens and rights: asked once, remembered for seconds, never without bound."""

from __future__ import annotations

import base64

import msgspec
import pytest

from core.client.rest import Client
from core.client.transport import JSON
from core.errors import Forbidden, ServiceUnavailable, Unauthorized
from gateway.jobs import auth
from gateway.jobs.auth import REMEMBERED, Access, Caller


class ReviewApi:
    """A Transport that knows the two reviews, and counts."""

    def __init__(self) -> None:
        self.users = {"good": {"username": "ann", "groups": ["dev"], "uid": "1"}}
        self.allowed = {("ann", "get", "team")}
        self.asked: list[str] = []
        self.down = False

    async def request(self, method, path, query=None, body=b"", content_type=JSON) -> bytes:
        self.asked.append(path.rpartition("/")[2])
        if self.down:
            raise ServiceUnavailable("no answer")
        spec = msgspec.json.decode(body)["spec"]
        if "token" in spec:
            user = self.users.get(spec["token"])
            return msgspec.json.encode({"status": {"authenticated": user is not None, "user": user or {}}})
        found = spec["resourceAttributes"]
        assert (found["group"], found["resource"]) == ("faaslite.dev", "functions")
        return msgspec.json.encode(
            {"status": {"allowed": (spec["user"], found["verb"], found["namespace"]) in self.allowed}}
        )

    async def close(self) -> None: ...


@pytest.fixture
def api() -> ReviewApi:
    return ReviewApi()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(api, clock) -> Access:
    return Access(Client(api), clock=clock)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic good", "good"])
async def test_without_a_bearer_token_nobody_is_asked(access, api, header):
    with pytest.raises(Unauthorized, match="a bearer token is needed"):
        await access.caller(header)
    assert api.asked == []


async def test_a_token_is_asked_for_once_in_ten_seconds(access, api, clock):
    for _ in range(3):
        assert await access.caller("bearer good") == Caller("ann", ("dev",), "1")
    assert api.asked == ["tokenreviews"]
    clock.now += REMEMBERED + 1
    api.users.clear()
    with pytest.raises(Unauthorized, match="not valid"):
        await access.caller("Bearer good")
    with pytest.raises(Unauthorized, match="not valid"):
        await access.caller("Bearer good")
    assert len(api.asked) == 2, "a wrong token is remembered too"


async def test_rights_are_by_user_verb_and_namespace(access, api, clock):
    ann = Caller("ann", ("dev",), "1")
    await access.may(ann, "get", "team")
    await access.may(ann, "get", "team")
    assert api.asked == ["subjectaccessreviews"]
    for verb, namespace, text in (("create", "team", 'in the namespace "team"'), ("get", "", "in all namespaces")):
        with pytest.raises(Forbidden, match=f'"ann" may not {verb} functions {text}'):
            await access.may(ann, verb, namespace)
    with pytest.raises(Forbidden):
        await access.may(Caller("bob", ("dev",)), "get", "team")
    clock.now += REMEMBERED + 1
    api.allowed.clear()
    with pytest.raises(Forbidden):
        await access.may(ann, "get", "team")


async def test_an_api_that_is_down_is_no_answer_and_not_remembered(access, api):
    api.down = True
    with pytest.raises(ServiceUnavailable):
        await access.caller("Bearer good")
    api.down = False
    assert (await access.caller("Bearer good")).name == "ann"


async def test_memory_is_bounded(access, api, monkeypatch):
    monkeypatch.setattr(auth, "MOST_REMEMBERED", 3)
    await access.caller("Bearer good")
    for number in range(5):
        with pytest.raises(Unauthorized):
            await access.caller(f"Bearer wrong-{number}")
    assert len(access._tokens._answers) == 3
    await access.caller("Bearer good")
    assert len(api.asked) == 7


def test_nodes_are_known_by_their_group():
    assert Access.is_node(Caller("system:node:a", ("system:nodes",)))
    assert not Access.is_node(Caller("system:node:a", ()))


async def test_a_withdrawn_token_is_asked_for_at_once(access, api):
    caller = await access.caller("Bearer good")
    await access.may(caller, "get", "team")
    api.users.clear()
    api.allowed.clear()
    assert await access.caller("Bearer good") == caller
    access.forget()
    with pytest.raises(Unauthorized):
        await access.caller("Bearer good")
    with pytest.raises(Forbidden):
        await access.may(caller, "get", "team")


async def test_an_answer_from_before_the_withdrawal_is_not_remembered(access, api):
    asked = api.request

    async def withdrawn_meanwhile(*arguments, **more):
        answer = await asked(*arguments, **more)
        access.forget()
        return answer

    api.request = withdrawn_meanwhile
    await access.caller("Bearer good")
    api.request, count = asked, len(api.asked)
    await access.caller("Bearer good")
    assert len(api.asked) == count + 1


async def test_a_token_is_not_remembered_beyond_its_end(access, api, monkeypatch, clock):
    claims = base64.urlsafe_b64encode(msgspec.json.encode({"exp": 1003.0})).decode().rstrip("=")
    token = f"e30.{claims}.x"
    api.users[token] = api.users["good"]
    monkeypatch.setattr(auth.clocks, "wall", lambda: 1000.0)
    await access.caller(f"Bearer {token}")
    del api.users[token]
    clock.now += 2
    await access.caller(f"Bearer {token}")
    clock.now += 2
    with pytest.raises(Unauthorized):
        await access.caller(f"Bearer {token}")
