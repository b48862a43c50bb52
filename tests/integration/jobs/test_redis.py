"""Jobs processes that share a Redis: each accepts, one of them executes, and nothing is run twice."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from core.client.informer import Informers
from core.clock import parse_time
from gateway.jobs.app import Jobs
from gateway.jobs.calls.base import KEYS

TIMEOUT = 15.0
REDIS = shutil.which("redis-server")
pytestmark = pytest.mark.redis


@pytest.fixture
def redis(needs):
    needs(REDIS, "redis-server", "apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = Path(folder, "redis.sock")
        process = subprocess.Popen(
            [REDIS, "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", "", "--appendonly", "yes"],
            stdout=subprocess.PIPE,
        )
        for line in process.stdout:
            if b"ready to accept connections" in line.lower():
                break
        yield f"unix://{path}"
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
async def pair(another, cluster, gateway, redis, tmp_path):
    """Two processes with data folders of their own but the same keys, and one queue."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        if made:
            shutil.copy(made[0].path.with_name(KEYS), folder)
        found = another(folder)
        found.client = cluster.jobs_client()
        found.informers = Informers(found.client)
        found.jobs = Jobs(
            found.client, found.informers, socket_path=found.path, data_dir=folder, gateway_url=gateway.url, redis=redis
        )
        await found.start()
        made.append(found)
    yield made
    for each in made:
        await each.stop()


async def accept(process) -> str:
    async with asyncio.timeout(TIMEOUT):
        while True:
            status, body, _ = await process.request("POST", "/async-function/f", None)
            if status == 202:  # until then it hasn't heard of the function
                return body["callId"]


async def test_calls_and_instants_run_once_whoever_accepted_them(pair, cluster, gateway):
    one, two = pair
    await cluster.function("f", cron=[{"name": "n", "schedule": "@every 1s", "overlap": "Allow"}])
    calls = [await accept(each) for _ in range(10) for each in pair]
    for call in calls:
        assert (await two.call(call, "Succeeded"))["attempts"] == 1
    await gateway.until(len(calls) + 3)
    _, listed, _ = await one.request("GET", "/system/calls?trigger=cron&limit=100")
    instants = sorted(parse_time(each["scheduledAt"]) for each in listed["items"])
    assert instants == [instants[0] + n for n in range(len(instants))]
    sent = [each[2]["X-Call-Id"] for each in gateway.seen]
    assert len(sent) == len(set(sent))


async def test_a_wait_at_one_process_hears_of_what_another_did(pair, cluster, gateway):
    one, two = pair
    await cluster.function("f")
    call = await accept(one)
    for each in (one, two):
        status, record, _ = await each.request("GET", f"/system/calls/{call}/wait?timeout=10")
        assert (status, record["status"]) == (200, "Succeeded")
    await one.stop()
    assert (await two.call(await accept(two), "Succeeded"))["attempts"] == 1
