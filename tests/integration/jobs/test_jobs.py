"""Jobs as users and nodes meet it: over its socket, with rights asked of the real API server."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import stat
import tarfile

import aiohttp
import pytest
from aiohttp import web

from core.api.kinds import CLUSTER_ROLE, LEASE, REPLICA_SET, ROLE_BINDING
from core.client.leader import LeaderElector
from core.clock import parse_time, timestamp, wall
from faaslite.api.names import FUNCTION, SYSTEM_NAMESPACE
from faaslite.api.tenancy import role_binding, roles
from gateway.jobs import app as module
from gateway.jobs import async_calls
from gateway.jobs.calls.base import CallsUnavailable
from gateway.jobs.packages import KEPT

TIMEOUT = 10.0
ADMIN, NODE, NOBODY, BUILDER = "admin-token", "node-token", "nobody-token", "builder-token"


def archive(name: str = "app.py", data: bytes = b"def main(): ...") -> tuple[str, bytes]:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    found = gzip.compress(plain.getvalue(), mtime=0)
    return f"sha256:{hashlib.sha256(found).hexdigest()}", found


async def known(process, name: str, namespace: str = "default") -> None:
    """Jobs has heard of the Function."""
    heard = asyncio.Event()
    informer = process.jobs._functions
    informer.add_handler(lambda old, new: heard.set())
    async with asyncio.timeout(TIMEOUT):
        while informer.get(f"{namespace}/{name}") is None:
            heard.clear()
            await heard.wait()


# Packages


async def test_packages_go_in_and_out(process):
    digest, data = archive()
    path = f"/system/packages/{digest}"
    assert (await process.request("HEAD", path))[0] == 404
    status, body, _ = await process.request("PUT", f"{path}?namespace=team", data=data)
    assert (status, body) == (201, {"digest": digest, "size": len(data)})
    assert (await process.request("PUT", f"{path}?namespace=team", data=data))[0] == 200
    for token, where in ((ADMIN, path), (ADMIN, f"{path}?namespace=team"), (NODE, f"{path}?namespace=team")):
        status, body, headers = await process.request("GET", where, token)
        assert (status, body, headers["Content-Type"]) == (200, data, "application/x-tar+gzip")
        assert headers["Content-Length"] == str(len(data))
        status, body, headers = await process.request("HEAD", where, token)
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(data)))


async def test_a_package_is_that_of_the_namespaces_that_uploaded_it(process):
    digest, data = archive()
    path = f"/system/packages/{digest}"
    assert (await process.request("PUT", f"{path}?namespace=team", data=data))[0] == 201
    for token in (ADMIN, NODE):
        assert (await process.request("GET", f"{path}?namespace=other", token))[0] == 404
        assert (await process.request("HEAD", f"{path}?namespace=other", token))[0] == 404
    status, body, _ = await process.request("PUT", f"{path}?namespace=other", data=b"only the digest is known")
    assert (status, body["error"]) == (400, "DigestMismatch")
    assert (await process.request("GET", f"{path}?namespace=other", NODE))[0] == 404
    assert (await process.request("GET", f"{path}?namespace=../team"))[0] == 400
    assert (await process.request("PUT", f"{path}?namespace=other", data=data))[0] == 201
    assert (await process.request("GET", f"{path}?namespace=other", NODE))[0] == 200


async def test_a_build_brings_layers_to_its_namespace_and_does_nothing_else(process, cluster):
    digest, data = archive()
    path = f"/system/packages/{digest}"
    assert (await process.request("PUT", f"{path}?namespace=team", BUILDER, data=data))[0] == 403
    process.jobs._access.forget()
    (role,) = (each for each in roles() if each["metadata"]["name"] == "faaslite-builder")
    await cluster.admin.create(CLUSTER_ROLE, role)
    await cluster.admin.create(ROLE_BINDING, role_binding("team", "builder", "layer-builder"), "team")
    assert (await process.request("PUT", f"{path}?namespace=team", BUILDER, data=data))[0] == 201
    for method, where in (("PUT", "other"), ("PUT", ""), ("GET", "team"), ("HEAD", "team")):
        assert (await process.request(method, f"{path}?namespace={where}", BUILDER, data=data))[0] == 403
    assert (await process.request("GET", "/system/calls?namespace=team", BUILDER))[0] == 403


async def test_bad_packages_are_refused_with_the_reason(process):
    digest, data = archive("/etc/passwd")
    status, body, _ = await process.request("PUT", f"/system/packages/{digest}", data=data)
    assert (status, body) == (400, {"error": "PackageInvalid", "message": '"/etc/passwd" is an absolute path'})
    wrong = "sha256:" + "0" * 64
    status, body, _ = await process.request("PUT", f"/system/packages/{wrong}", data=archive()[1])
    assert (status, body["error"]) == (400, "DigestMismatch")
    status, body, _ = await process.request("PUT", "/system/packages/latest", data=b"x")
    assert (status, body["error"]) == (400, "BadRequest")
    process.jobs._packages.largest = 10
    status, body, _ = await process.request("PUT", f"/system/packages/{archive()[0]}", data=archive()[1])
    assert (status, body["error"]) == (413, "PayloadTooLarge")
    assert list(process.jobs._packages.folder.iterdir()) == []


async def test_old_packages_go_unless_a_function_or_a_revision_refers_to_them(process, cluster):
    digests = []
    for name in ("unused", "function", "layer", "revision"):
        digest, data = archive(name)
        assert (await process.request("PUT", f"/system/packages/{digest}", data=data))[0] == 201
        digests.append(digest)
    unused, function, layer, revision = digests
    await cluster.function("f", package={"digest": function, "layer": layer})
    volume = {"name": "package", "csi": {"driver": "packages.faaslite.dev", "volumeAttributes": {"digest": revision}}}
    labels = {"faaslite.dev/function": "f"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    await cluster.admin.create(
        REPLICA_SET, {"metadata": {"name": "f-00001", "labels": labels}, "spec": spec}, "default"
    )
    await known(process, "f")
    replica_sets = process.jobs._replica_sets
    async with asyncio.timeout(TIMEOUT):
        while replica_sets.get("default/f-00001") is None:
            heard = asyncio.Event()
            replica_sets.add_handler(lambda old, new: heard.set())
            await heard.wait()
    assert await process.jobs.keep_house(wall() + KEPT - 60) == []
    assert await process.jobs.keep_house(wall() + KEPT + 60) == [unused]


# Usage


async def test_usage_is_told_by_day_and_function_and_outlives_jobs(cluster, another, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.jobs.usage.collector.SETTLED", 0.0)
    first = another(tmp_path)
    await first.start()
    await cluster.function("f")
    await cluster.function("f", "team")
    await known(first, "f")
    await known(first, "f", "team")
    for target in ("f", "f", "f.team"):
        _, body, _ = await first.request("POST", f"/async-function/{target}", None)
        await first.call(body["callId"], "Succeeded")
    await first.stop()
    second = another(tmp_path)
    await second.start()
    try:
        status, body, _ = await second.request("GET", "/system/usage?namespace=default&since=1d")
        assert (status, body["since"]) == (200, timestamp(wall() - 86400)[:10])
        (item,) = body["items"]
        assert (item["namespace"], item["function"], item["calls"]["async"]) == ("default", "f", {"Succeeded": 2})
        assert item["day"] in (timestamp(wall())[:10], body["since"])
        _, body, _ = await second.request("GET", "/system/usage")
        assert [(each["namespace"], each["calls"]["async"]["Succeeded"]) for each in body["items"]] == [
            ("default", 2),
            ("team", 1),
        ]
        status, body, _ = await second.request("GET", "/system/usage?since=soon")
        assert (status, body["error"]) == (400, "BadRequest")
    finally:
        await second.stop()


# Rights


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/system/packages/sha256:" + "0" * 64), ("GET", "/system/packages/sha256:" + "0" * 64),
        ("GET", "/system/cron"), ("GET", "/system/calls"), ("GET", "/system/calls/c1"), ("GET", "/system/calls/c1/wait"),
        ("POST", "/system/calls/c1/cancel"), ("POST", "/system/calls/c1/replay"), ("POST", "/system/calls/redrive"),
        ("GET", "/system/cron/team/f/n/next"), ("POST", "/system/cron/team/f/n/run"), ("POST", "/system/cron/team/f/n/backfill"),
        ("GET", "/system/usage"), ("GET", "/system/metrics/jobs"), ("GET", "/system/metrics/autoscaler"),
    ],
)  # fmt: skip
async def test_everything_under_system_asks_who_it_is_and_whether_they_may(process, method, path):
    status, body, headers = await process.request(method, path, None)
    assert (status, body["error"], headers["WWW-Authenticate"]) == (401, "Unauthorized", "Bearer")
    status, body, _ = await process.request(method, path, "wrong")
    assert (status, body["error"]) == (401, "Unauthorized")
    status, body, _ = await process.request(method, f"{path}?namespace=team", NOBODY)
    assert (status, body["error"]) == (403, "Forbidden")
    assert '"nobody" may not' in body["message"]


async def test_a_node_may_fetch_and_nothing_else(process):
    digest, data = archive()
    assert (await process.request("PUT", f"/system/packages/{digest}", NODE, data=data))[0] == 403
    assert (await process.request("GET", "/system/calls", NODE))[0] == 403
    assert (await process.request("GET", f"/system/packages/{digest}", NODE))[0] == 404


async def test_unknown_paths_and_methods_are_json_too(process):
    status, body, _ = await process.request("GET", "/system/nothing")
    assert (status, body["error"]) == (404, "NotFound")
    status, body, _ = await process.request("DELETE", "/system/cron")
    assert (status, body["error"]) == (405, "MethodNotAllowed")
    assert (await process.request("GET", "/async-function/f"))[0] == 405


async def test_the_socket_is_the_owners_alone(process):
    assert stat.S_IMODE(os.stat(process.path).st_mode) == 0o600
    assert (await process.request("GET", "/healthz", None))[:2] == (200, b"ok")


# Calls


async def test_an_async_call_from_acceptance_to_its_record(process, cluster, gateway):
    await cluster.function("f", "team")
    await known(process, "f", "team")
    status, body, headers = await process.request(
        "POST", "/async-function/f.team/a%2Fb?x=1", None, data=b"payload",
        headers={"X-Own": "yes", "Connection": "keep-alive", "X-Faaslite-Cron": "forged"},
    )  # fmt: skip
    assert status == 202
    assert headers["X-Call-Id"] == body["callId"]
    record = await process.call(body["callId"], "Succeeded")
    ((method, path, sent, payload),) = gateway.seen
    assert (method, path, payload) == ("POST", "/function/f.team/a%2Fb?x=1", b"payload")
    assert (sent["X-Own"], sent["X-Call-Id"], "X-Faaslite-Cron" in sent) == ("yes", body["callId"], False)
    phases, tries = record["phases"], record["tries"]
    assert record == {
        "id": body["callId"], "namespace": "team", "function": "f", "trigger": "async", "cron": "", "scheduledAt": None,
        "acceptedAt": record["acceptedAt"], "startedAt": record["startedAt"], "finishedAt": record["finishedAt"], "status": "Succeeded",
        "attempts": 1, "httpStatus": 200, "error": "",
        "result": {"contentType": "application/json; charset=utf-8", "encoding": "utf-8", "body": '{"hello": "world"}', "truncated": False},
        "nextAttemptAt": None, "phases": phases, "tries": tries, "revision": "", "replayOf": "", "idempotencyKey": "", "callback": None,
        "traceId": body["callId"],
    }  # fmt: skip
    assert phases["queued"] >= 0 and phases["coldStart"] is None and phases["run"] > 0
    ((status, error, executed),) = [(each["httpStatus"], each["error"], each["executed"]) for each in tries]
    assert (status, error, executed) == (200, "", True)
    assert sent["traceparent"].startswith(f"00-{body['callId']}-")
    assert parse_time(record["acceptedAt"]) <= parse_time(record["startedAt"]) <= parse_time(record["finishedAt"])
    _, listed, _ = await process.request("GET", "/system/calls?namespace=team&function=f")
    assert listed == {"items": [record]}
    assert (await process.request("GET", "/system/calls?namespace=default"))[1] == {"items": []}
    assert (await process.request("GET", "/system/calls?limit=0"))[0] == 400


async def test_what_can_not_be_accepted(process, cluster):
    status, body, _ = await process.request("POST", "/async-function/f", None)
    assert (status, body["error"]) == (404, "FunctionNotFound")
    await cluster.function("f")
    await known(process, "f")
    assert (await process.request("POST", "/async-function/f.team", None))[0] == 404
    status, body, _ = await process.request(
        "POST", "/async-function/f", None, data=io.BytesIO(b"x" * (async_calls.LARGEST_BODY + 1))
    )
    assert (status, body["error"]) == (413, "PayloadTooLarge")

    async def endless():
        for _ in range(40):
            yield b"x" * (1 << 16)

    status, body, _ = await process.request("POST", "/async-function/f", None, data=endless())
    assert (status, body["error"]) == (413, "PayloadTooLarge")
    assert (await process.request("GET", "/system/calls"))[1] == {"items": []}


async def test_a_callers_id_makes_a_call_repeatable(process, cluster, gateway):
    for name in ("f", "g"):
        await cluster.function(name)
        await known(process, name)
    for _ in range(2):
        status, body, _ = await process.request("POST", "/async-function/f", None, headers={"X-Call-Id": "mine-1"})
        assert (status, body) == (202, {"callId": "mine-1"})
    await process.call("mine-1", "Succeeded")
    status, body, _ = await process.request("POST", "/async-function/g", None, headers={"X-Call-Id": "mine-1"})
    assert (status, body["error"]) == (400, "BadRequest")
    assert len(gateway.seen) == 1


async def test_the_functions_own_rules_for_retries_hold(process, cluster, gateway):
    async def fails(request):
        return web.json_response({"error": "HandlerError", "message": "no"}, status=500)

    gateway.answer = fails
    await cluster.function("f", **{"async": {"retries": 0}})
    await known(process, "f")
    _, body, _ = await process.request("POST", "/async-function/f", None)
    record = await process.call(body["callId"], "DeadLetter")
    assert (record["attempts"], record["httpStatus"], record["error"]) == (1, 500, "HandlerError: no")
    await cluster.function("g", **{"async": {"retries": 0, "deadLetter": False}})
    await known(process, "g")
    _, body, _ = await process.request("POST", "/async-function/g", None)
    assert (await process.call(body["callId"], "Failed"))["attempts"] == 1


# Cron


async def test_cron_from_the_function_to_the_gateway(process, cluster, gateway):
    cron = [
        {"name": "often", "schedule": "@every 1s", "payload": {"full": True}, "path": "/run"},
        {"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Oslo"},
        {"name": "resting", "schedule": "@hourly", "paused": True},
    ]
    await cluster.function("f", "team", cron=cron)
    await gateway.until(2)
    method, path, headers, payload = gateway.seen[0]
    assert (method, path, payload) == ("POST", "/function/f.team/run", b'{"full":true}')
    assert (headers["X-Faaslite-Cron"], headers["Content-Type"]) == ("often", "application/json")
    record = await process.call(headers["X-Call-Id"], "Succeeded")
    assert (record["trigger"], record["cron"]) == ("cron", "often")
    assert parse_time(record["scheduledAt"]) % 1 == 0
    assert parse_time(record["startedAt"]) - parse_time(record["scheduledAt"]) < 1.0

    _, body, _ = await process.request("GET", "/system/cron?namespace=team")
    items = {each["name"]: each for each in body["items"]}
    assert set(items) == {"often", "nightly", "resting"}
    assert items["often"]["last"]["callId"] == gateway.seen[-1][2]["X-Call-Id"]
    assert items["nightly"] == {
        "namespace": "team", "function": "f", "name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Oslo",
        "next": items["nightly"]["next"], "last": None, "paused": False, "overlap": "Skip", "missed": "last", "jitter": 0.0, "retries": 3,
    }  # fmt: skip
    assert 0 < parse_time(items["nightly"]["next"]) - wall() <= 25 * 3600
    assert (items["resting"]["next"], items["resting"]["paused"]) == (None, True)
    assert (await process.request("GET", "/system/cron?namespace=default"))[1] == {"items": []}


async def test_a_deleted_function_fires_no_more(process, cluster, gateway):
    await cluster.function("f", cron=[{"schedule": "@every 1s"}])
    await gateway.until(1)
    gone = asyncio.Event()
    process.jobs._functions.add_handler(lambda old, new: gone.set() if new is None else None)
    await cluster.admin.delete(FUNCTION, "f", "default")
    async with asyncio.timeout(TIMEOUT):
        await gone.wait()
    assert (await process.request("GET", "/system/cron"))[1] == {"items": []}


# Lives of the process


async def test_calls_wait_for_the_next_life_and_no_instant_is_lost_or_doubled(cluster, gateway, another, tmp_path):
    first = another(tmp_path)
    await first.start()
    release = asyncio.Event()

    async def slow(request):
        await release.wait()
        return web.Response(text="done")

    gateway.answer = slow
    await cluster.function("f", cron=[{"schedule": "@every 1s", "overlap": "Allow", "missed": "all"}])
    await known(first, "f")
    _, body, _ = await first.request("POST", "/async-function/f", None)
    await gateway.until(2)
    await first.stop()
    assert not first.path.exists()

    release.set()
    second = another(tmp_path)
    await second.start()
    record = await second.call(body["callId"], "Succeeded")
    assert record["attempts"] == 2
    seen = len(gateway.seen)
    await gateway.until(seen + 1)
    _, listed, _ = await second.request("GET", "/system/calls?limit=500")
    instants = sorted(parse_time(each["scheduledAt"]) for each in listed["items"] if each["trigger"] == "cron")
    assert instants == [instants[0] + n for n in range(len(instants))]
    await second.stop()


async def test_only_one_process_has_a_data_folder_and_only_the_leader_executes(
    process, cluster, gateway, another, tmp_path
):
    with pytest.raises(CallsUnavailable):
        await another(tmp_path).jobs.start()
    await cluster.function("f")
    await known(process, "f")
    _, body, _ = await process.request("POST", "/async-function/f", None)
    await process.call(body["callId"], "Succeeded")
    lease = await cluster.admin.get(LEASE, module.LEASE_NAME, SYSTEM_NAMESPACE)
    assert lease["spec"]["holderIdentity"].endswith(str(tmp_path))

    folder = tmp_path / "other"
    folder.mkdir()
    other = another(folder)
    await other.start()
    _, body, _ = await other.request("POST", "/async-function/f", None)
    _, text, _ = await other.request("GET", "/metrics", None)
    assert b"faaslite_jobs_leading 0.0" in text and b'faaslite_calls{status="Queued"} 1.0' in text
    assert len(gateway.seen) == 1
    await process.stop()
    await other.call(body["callId"], "Succeeded")
    assert other.jobs.leading
    await other.stop()


async def test_a_restart_leads_at_once_without_waiting_for_its_own_lease(
    process, cluster, another, tmp_path, monkeypatch
):
    """As after kill -9: the Lease still names this data folder's process."""
    await cluster.function("f")
    await known(process, "f")
    _, body, _ = await process.request("POST", "/async-function/f", None)
    await process.call(body["callId"], "Succeeded")

    async def killed(self) -> None:
        """Who is killed releases nothing."""

    monkeypatch.setattr(LeaderElector, "_release", killed)
    await process.stop()
    lease = await cluster.admin.get(LEASE, module.LEASE_NAME, SYSTEM_NAMESPACE)
    assert lease["spec"]["holderIdentity"]
    again = another(tmp_path)
    began = wall()
    await again.start()
    _, body, _ = await again.request("POST", "/async-function/f", None)
    await again.call(body["callId"], "Succeeded")
    assert wall() - began < 10, "the Lease runs for 15 s"
    await again.stop()


async def test_metrics(process, cluster, gateway):
    await cluster.function("f", cron=[{"schedule": "@yearly"}])
    await known(process, "f")
    _, body, _ = await process.request("POST", "/async-function/f", None)
    await process.call(body["callId"], "Succeeded")
    status, text, headers = await process.request("GET", "/metrics", None)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    for line in (
        b'faaslite_calls{status="Succeeded"} 1.0', b'faaslite_jobs_executions_total{result="Succeeded"} 1.0',
        b"faaslite_jobs_cron_triggers 1.0", b"faaslite_jobs_leading 1.0", b"faaslite_jobs_running 0.0",
    ):  # fmt: skip
        assert line in text


async def test_a_client_that_leaves_in_the_middle_of_an_upload(process):
    digest, _ = archive()

    async def breaks():
        yield b"x" * 1000
        raise ConnectionResetError("the client is gone")

    with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
        await process.request("PUT", f"/system/packages/{digest}", data=breaks())
    assert (await process.request("HEAD", f"/system/packages/{digest}"))[0] == 404
    assert (await process.request("PUT", f"/system/packages/{digest}", data=archive()[1]))[0] == 201
