"""A node's Secrets and ConfigMaps: each read by its name, once for all Pods that take it, and let go of with the last of them."""

from __future__ import annotations

import asyncio

import pytest

from core.client.informer import Informers
from core.client.rest import Client
from core.node.objects import ObjectCache

NAMESPACE = "/api/v1/namespaces/team"
SOURCES = {("secret", "db"), ("configMap", "conf")}


@pytest.fixture
def api(cluster):
    return cluster.api


@pytest.fixture
async def cache(api):
    informers, tasks, heard = Informers(Client(api)), set(), []

    def spawn(work, name):
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)

    made = ObjectCache(informers, lambda *what: heard.append(what), spawn)
    made.tasks, made.heard = tasks, heard
    await informers.start()
    yield made
    await asyncio.gather(*tasks)
    await informers.stop()


def put(api, plural, name, **data):
    return api.put(
        f"{NAMESPACE}/{plural}/{name}", {"metadata": {"name": name, "namespace": "team", "uid": name}, **data}
    )


async def test_reads_by_name_and_nothing_else(api, cache):
    for name in ("db", "other"):
        put(api, "secrets", name, data={"k": "dg=="})
    put(api, "configmaps", "conf", data={"k": "v"})
    await cache.ready("u1", "team", SOURCES)
    assert cache.secret("team", "db").data == {"k": "dg=="}
    assert cache.config_map("team", "conf").data == {"k": "v"}
    assert cache.secret("team", "other") is None and cache.secret("else", "db") is None
    assert sorted(api.requests) == [("GET", f"{NAMESPACE}/configmaps"), ("GET", f"{NAMESPACE}/secrets")]
    assert {fields for _, fields, _ in api._watchers} <= {"metadata.name=db", "metadata.name=conf"}


async def test_one_list_for_all_pods_and_an_end_with_the_last(api, cache):
    put(api, "secrets", "db", data={})
    await asyncio.gather(*(cache.ready(f"u{number}", "team", {("secret", "db")}) for number in range(5)))
    assert api.requests == [("GET", f"{NAMESPACE}/secrets")]
    for number in range(4):
        cache.release(f"u{number}", "team", {("secret", "db")})
    await asyncio.sleep(0)
    assert cache.secret("team", "db") is not None
    cache.release("u4", "team", {("secret", "db")})
    cache.release("u4", "team", {("secret", "db")})
    await asyncio.gather(*cache.tasks)
    assert cache.secret("team", "db") is None and not api._watchers and not cache._informers._informers


async def test_a_pod_that_comes_as_the_last_one_goes(api, cache):
    put(api, "secrets", "db", data={})
    await cache.ready("u1", "team", {("secret", "db")})
    cache.release("u1", "team", {("secret", "db")})
    cache.hold("u2", "team", {("secret", "db")})
    await asyncio.gather(*cache.tasks)
    assert cache.secret("team", "db") is not None
    assert len(api.requests) == 1


async def test_hears_of_one_that_comes_later(api, cache):
    await cache.ready("u1", "team", {("secret", "late")})
    assert cache.secret("team", "late") is None and cache.heard == []
    async with asyncio.timeout(5):
        while not api._watchers:  # noqa: ASYNC110
            await asyncio.sleep(0)
    put(api, "secrets", "late", data={})
    async with asyncio.timeout(5):
        while not cache.heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert cache.heard == [("secret", "team", "late")]
    assert cache.secret("team", "late") is not None
