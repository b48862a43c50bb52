"""What the audit log says of requests over TLS, line by line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from core.apiserver.audit import Audit
from core.apiserver.audit.log import AuditLog
from core.apiserver.audit.policy import DEFAULT, read_policy

EVERYTHING = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: RequestResponse}
"""
SECRETS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"


class Audited:
    def __init__(self, serving, session, path):
        self.serving, self.session, self.path = serving, session, path

    async def use(self, text):
        self.serving.api.audit = Audit(read_policy(text, "policy"), AuditLog(self.path))
        await self.serving.api.audit.start()

    async def ask(self, method, path, token="admin-token", body=None, **headers):
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "tester/1", **headers}
        async with self.session.request(method, path, headers=headers, json=body) as reply:
            await reply.read()
            return reply.status

    async def lines(self):
        """Everything that was written, and nothing more is."""
        await self.serving.api.audit.stop()
        self.serving.api.audit = Audit.off()
        return [json.loads(each) for each in self.path.read_text().splitlines()]


@pytest.fixture
async def audited(serving, tmp_path) -> AsyncIterator[Audited]:
    connector = aiohttp.TCPConnector(ssl=serving.client_ssl())
    async with aiohttp.ClientSession(serving.url, connector=connector) as session:
        made = Audited(serving, session, tmp_path / "audit.log")
        yield made
        await serving.api.audit.stop()


async def test_the_built_in_policy(audited):
    await audited.use(DEFAULT)
    secret = {"metadata": {"name": "db"}, "stringData": {"password": "hunter2"}}
    assert await audited.ask("POST", SECRETS, body=secret) == 201
    assert await audited.ask("GET", f"{SECRETS}/db") == 200
    assert await audited.ask("GET", MAPS) == 200  # a read: not written
    assert await audited.ask("GET", MAPS, token="nobody-token") == 403
    assert await audited.ask("GET", MAPS, token="wrong") == 401
    assert await audited.ask("GET", "/healthz") == 200
    assert await audited.ask("DELETE", f"{SECRETS}/gone", **{"Impersonate-User": "ann"}) == 403
    lease = {"metadata": {"name": "n1"}}
    assert await audited.ask("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", body=lease) == 201
    found = await audited.lines()
    assert "hunter2" not in audited.path.read_text() and "aHVudGVyMg" not in audited.path.read_text()
    assert [(each["verb"], each["responseStatus"]["code"], each["stage"]) for each in found] == [
        ("create", 201, "ResponseComplete"),
        ("get", 200, "ResponseComplete"),
        ("list", 403, "ResponseComplete"),
        ("list", 401, "ResponseComplete"),
        ("delete", 403, "ResponseComplete"),
    ]
    created, _, refused, unknown, acting = found
    assert created["user"]["username"] == "admin" and created["sourceIPs"] == ["127.0.0.1"]
    assert created["userAgent"] == "tester/1" and created["level"] == "Metadata" and created["requestURI"] == SECRETS
    assert created["objectRef"] == {"resource": "secrets", "namespace": "default", "apiVersion": "v1"}
    assert created["annotations"] == {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": 'allowed by the group "system:masters"',
    }
    assert created["requestReceivedTimestamp"] <= created["stageTimestamp"]
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert (
        refused["responseStatus"]["reason"] == "Forbidden"
        and 'User "nobody" cannot list' in refused["responseStatus"]["message"]
    )
    assert unknown["user"] == {} and "annotations" not in unknown
    assert (acting["user"]["username"], acting["impersonatedUser"]["username"]) == ("admin", "ann")


async def test_bodies_and_stages(audited):
    await audited.use(EVERYTHING)
    body = {"metadata": {"name": "m"}, "data": {"a": "b"}}
    assert await audited.ask("POST", MAPS, body=body) == 201
    assert (
        await audited.ask("POST", f"{SECRETS}", body={"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}) == 201
    )
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    await audited.ask("POST", "/api/v1/namespaces/default/serviceaccounts", body={"metadata": {"name": "default"}})
    assert await audited.ask("POST", path, body={"spec": {}}) == 201
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert await audited.ask("POST", reviews, body={"spec": {"token": "admin-token"}}) == 201
    found = await audited.lines()
    first = [each for each in found if each["auditID"] == found[0]["auditID"]]
    assert [each["stage"] for each in first] == ["RequestReceived", "ResponseComplete"]
    assert first[1]["requestObject"]["data"] == {"a": "b"} and first[1]["responseObject"]["metadata"]["name"] == "m"
    text = audited.path.read_text()
    assert "hunter2" not in text and "admin-token" not in text and "eyJ" not in text


async def test_a_watch_is_written_as_it_begins_and_as_it_ends(audited):
    await audited.use(EVERYTHING + "omitStages: [RequestReceived]\n")
    headers = {"Authorization": "Bearer admin-token"}
    async with audited.session.get(f"{MAPS}?watch=true&timeoutSeconds=1", headers=headers) as reply:
        await reply.read()
    async with asyncio.timeout(5):
        while audited.serving.api.resources.watching or audited.path.read_text().count("watch") < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the server learns of the end by a turn of its own, and writes a moment later
    found = await audited.lines()
    assert [(each["verb"], each["stage"]) for each in found] == [
        ("watch", "ResponseStarted"),
        ("watch", "ResponseComplete"),
    ]
    assert found[0]["requestURI"].endswith("?watch=true&timeoutSeconds=1")


async def test_administration_through_jobs_is_seen_by_its_reviews(audited):
    await audited.use(DEFAULT)
    spec = {"user": "ann", "resourceAttributes": {"verb": "update", "resource": "functions", "namespace": "team"}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert await audited.ask("POST", path, token="gateway-token", body={"spec": spec}) == 201
    found = await audited.lines()
    assert found[0]["requestObject"]["spec"] == spec
    assert found[0]["user"]["username"] == "system:serviceaccount:faaslite-system:gateway"
