"""Functions without a cluster: the pytest fixture, and `faas dev` as a command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from faaslite.build.errors import BuildError
from faaslite.build.plan import Asked
from faaslite.dev.platform import LocalPlatform
from faaslite.testing import Platform

EXAMPLES = Path(__file__).parents[3] / "examples"
FAAS = Path(sys.executable).with_name("faas")
APP = """
import core, os, sys, time
from faaslite import Cron, Secret, function

TRIES = []

@function(cron=[Cron("0 3 * * *", tz="Europe/Oslo", payload={"full": True}), Cron("@every 10m", name="often")], secrets=["db"])
def nightly(event, context):
    print("running", event.headers.get("x-faaslite-cron"))
    return {"password": Secret("db")["password"], "core": core.VALUE, "got": event.json(), "path": event.path, "query": event.query}

@function(route="/orders", methods=["POST"], concurrency=1, timeout=2)
def order(sku: str, count: int = 1):
    return [sku, count, nightly.call({"x": 1})["got"]]

@function(retries=2)
def flaky(event, context):
    TRIES.append(1)
    if len(TRIES) < 3:
        raise ValueError("not yet")
    return {"tries": len(TRIES)}

@function(timeout=0.3)
def slow(event, context):
    time.sleep(0.6)

@function
def die(event, context):
    os._exit(4)

@function
def sees(event, context):
    return sorted(each for each in ("aiohttp", "pydantic", "typer", "httptools") if any(os.path.exists(f"{p}/{each}") for p in sys.path))
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "core.py").write_text("VALUE = 5\n")
    return tmp_path


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("FAASLITE_HOME", str(tmp_path / "home"))
    found = Platform()
    yield found
    found.close()


def test_the_fixture_runs_what_a_cluster_would(app, local):
    names = local.deploy(app / "app.py", secrets={"db": {"password": "hunter2"}})
    assert names == ["nightly", "order", "flaky", "slow", "die", "sees"]
    found = local.call("nightly", path="/a%20b?x=1").json
    assert found == {"password": "hunter2", "core": 5, "got": None, "path": "/a b", "query": {"x": "1"}}
    assert local.http("/orders", json={"sku": "tea"}).json == ["tea", 1, {"x": 1}]
    assert local.http("/orders").status == 404
    assert local.call("order", json={"count": "x"}).status == 422
    assert local.call("sees").json == []
    late = local.call("slow", headers={"X-Call-Id": "c-1"})
    assert (late.status, late.json["error"], late.json["callId"]) == (504, "DeadlineExceeded", "c-1")
    assert local.call("nobody").json["error"] == "FunctionNotFound"
    assert local.call("die").json["error"] == "InstanceDied"
    assert local.call("die").json["error"] == "InstanceDied"  # another one, started for the call
    assert any("running None" in line for line in local.logs("nightly"))


def test_calls_in_the_background_are_tried_again(app, local):
    local.deploy(app / "app.py", secrets={"db": {"password": "x"}})
    record = local.wait(local.spawn("flaky"))
    assert (record["status"], record["attempts"], json.loads(record["result"]["body"])) == (
        "Succeeded",
        3,
        {"tries": 3},
    )
    wrong = local.wait(local.spawn("order", json={}))
    assert (wrong["status"], wrong["attempts"], wrong["httpStatus"]) == ("Failed", 1, 422)


def test_the_clock_is_stepped_and_cron_follows(app, local):
    local.deploy(app / "app.py", name="nightly", secrets={"db": {"password": "x"}})
    began = local.now
    records = local.step(minutes=25)
    assert [each["cron"] for each in records if each["cron"] == "often"] == ["often", "often"]
    records = local.at((began + timedelta(days=1, minutes=30)).astimezone(UTC))
    daily = [each for each in records if each["cron"] == "cron-1"]
    assert len(daily) == 1 and daily[0]["status"] == "Succeeded"
    assert json.loads(daily[0]["result"]["body"])["got"] == {"full": True}
    due = datetime.fromisoformat(daily[0]["scheduledAt"])
    assert (due.minute, due.second) == (0, 0) and due.hour in (1, 2)  # 3 o'clock in Oslo
    with pytest.raises(ValueError, match="can't be stepped back"):
        local.step(hours=-1)


def test_what_does_not_start_is_said_and_the_last_good_one_serves(app, local):
    local.deploy(app / "app.py", name="sees")
    file = app / "app.py"
    file.write_text(APP.replace("TRIES = []", "TRIES = 1 / 0"))
    with pytest.raises(
        BuildError, match=r"ZeroDivisionError: division by zero \(app.py:5\) \(sees-00001 keeps serving\)"
    ):
        local.deploy(file, name="sees")
    assert local.call("sees").json == []
    with pytest.raises(BuildError, match="there is no secret db; put its keys as files into .secrets/db/"):
        file.write_text(APP)
        local.deploy(file, name="nightly")


def test_examples_of_other_kinds(local, tmp_path, needs):
    needs(shutil.which("node") and shutil.which("npm"), "node with npm", "apt-get install nodejs npm")
    folder = tmp_path / "slugs"
    shutil.copytree(EXAMPLES / "slugs", folder)
    local.deploy(folder)
    assert local.call("slugs", "Hello, World!").json == {"slug": "hello-world"}
    local.deploy(EXAMPLES / "shop" / "app.py")
    order = {"customer": "Ada", "lines": [{"sku": "cake", "count": 2}]}
    receipt = local.call("create-order", json=order).json
    assert receipt["total"] == 10 and local.wait(receipt["packing"])["status"] == "Succeeded"


SOCKETS = """
async def app(scope, receive, send):
    await receive()
    if scope["path"] == "/no":
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "leave":
            return await send({"type": "websocket.close", "code": 4002, "reason": "left"})
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    print("closed with", message["code"], message["reason"], flush=True)
"""


async def test_websockets_as_in_a_cluster(tmp_path):
    (tmp_path / "app.py").write_text(SOCKETS)
    lines = asyncio.Queue()
    platform = LocalPlatform(tmp_path / "cache", say=lambda name, line: lines.put_nowait(line))
    await platform.start()
    try:
        await platform.load(tmp_path / "app.py", Asked(name="echo", cache=tmp_path / "cache"))
        async with aiohttp.ClientSession() as session:
            url = f"{platform.url}/function/echo"
            async with session.ws_connect(url, protocols=("b", "a")) as client:
                await client.send_str("hello")
                assert (client.protocol, await client.receive_str()) == ("b", "hello")
                await client.send_bytes(b"\0" * 100_000)
                assert len(await client.receive_bytes()) == 100_000
                await client.send_str("leave")
                closed = await client.receive()
                assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 4002, "left")
            async with session.ws_connect(url, protocols=("a",)) as client:
                await client.close(code=4009, message=b"mine")
            async with asyncio.timeout(10):
                while "closed with" not in (line := await lines.get()):
                    continue
            assert line.endswith("closed with 4009 mine")
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(f"{url}/no", protocols=("a",))
    finally:
        await platform.stop()


def test_the_command_reloads_on_save_and_starts_at_a_given_time(app):
    (app / ".secrets" / "db").mkdir(parents=True)
    (app / ".secrets" / "db" / "password").write_text("kept")
    environment = {**os.environ, "FAASLITE_HOME": str(app / "home")}
    command = [str(FAAS), "dev", str(app), "--port", "0", "--name", "nightly", "--at", "2026-01-31T02:59:59+01:00"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            url = re.fullmatch(r"nightly: (http://127.0.0.1:\d+)/function/nightly\n", line)[1]
            with urllib.request.urlopen(f"{url}/function/nightly", timeout=10) as reply:
                assert json.load(reply)["password"] == "kept"
            said = next(each for each in process.stderr if each.startswith("cron cron-1"))
            assert "due 2026-01-31T02:00:00" in said
            (app / "core.py").write_text("VALUE = 6\n")
            next(each for each in process.stderr if each == "loaded again: nightly\n")
            with urllib.request.urlopen(f"{url}/function/nightly", timeout=10) as reply:
                assert json.load(reply)["core"] == 6
            (app / "core.py").write_text("VALUE = ")
            failed = next(each for each in process.stderr if each.startswith("error: "))
            assert "SyntaxError" in failed and "nightly-00002 keeps serving" in failed
            request = urllib.request.Request(f"{url}/system/clock?advance=24h", method="POST")
            with urllib.request.urlopen(request, timeout=30) as reply:
                calls = json.load(reply)["calls"]
            assert [each["cron"] for each in calls].count("cron-1") == 1
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert process.returncode == 0
