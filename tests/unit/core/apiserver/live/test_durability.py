"""Over a store with a disk: what is durable and what is applied, and a restart."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.watch import Watcher, WatchOptions
from core.store.factory import open_store

ADMIN = User("admin", ("system:masters",))
CM = "/api/v1/namespaces/default/configmaps"


async def test_durable_watches_see_every_write_and_bookmarks_claim_no_more(tmp_path):
    store = open_store(f"sqlite://{tmp_path}/state.db")
    api = ApiServer(store, tokens={})
    await api.start()
    transport = api.local(ADMIN)
    try:
        registry = api.resources._served.find("", "v1", "configmaps")
        options = WatchOptions(since=store.revision, bookmarks=True, period=0.002)
        watcher = Watcher(store, registry.prefix(), registry.selection(), options)

        async def write():
            for number in range(150):
                await transport.request("POST", CM, None, b'{"metadata": {"name": "w%d"}}' % number)
                if number % 10 == 0:
                    await store.durable(store.revision)
                    await asyncio.sleep(0.003)
            await store.durable(store.revision)

        writing, seen, names, marks = asyncio.create_task(write()), 0, [], 0
        async with asyncio.timeout(20):
            async with aclosing(watcher.changes()) as changes:
                async for batch in changes:
                    for each in batch:
                        if each.type == "BOOKMARK":
                            marks += 1
                            assert each.entry.revision >= seen
                        else:
                            assert each.entry.revision > seen, "an event came after a bookmark that claimed it"
                            names.append(each.entry.key)
                        seen = each.entry.revision
                    if len(names) == 150:
                        break
        await writing
        assert marks and len(set(names)) == 150
    finally:
        await api.stop()
        await store.close()


async def test_a_restart_finds_everything_again(tmp_path):
    uids = []
    for _ in range(2):
        store = open_store(f"sqlite://{tmp_path}/state.db")
        api = ApiServer(store, tokens={})
        await api.start()
        try:
            transport = api.local(ADMIN)
            if not uids:
                await transport.request("POST", CM, None, b'{"metadata": {"name": "a"}}')
            uids.append(await transport.request("GET", f"{CM}/a"))
            uids.append(await transport.request("GET", "/api/v1/namespaces/default"))
        finally:
            await api.stop()
            await store.close()
    assert uids[:2] == uids[2:], "the same objects, at the same versions"


async def test_what_is_told_before_it_is_durable(tmp_path):
    """A Pod's status, an Event, a slice, and what is made of a ReplicaSet's count; not its spec, not a Lease."""
    store = open_store(f"sqlite://{tmp_path}/state.db")
    api = ApiServer(store, tokens={})
    await api.start()
    transport = api.local(ADMIN)
    pods, base = "/api/v1/namespaces/default/pods", "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    try:

        async def told(method, path, body, content_type="application/json"):
            await store.durable(store.revision)
            watch = store.watch("/", store.revision)
            await transport.request(method, path, None, body, content_type)
            at_once, written = [each.revision for each in watch.take()], store.revision
            await store.durable(written)
            at_last = [*at_once, *(each.revision for each in watch.take())]
            await watch.aclose()
            assert at_last == [written]
            return bool(at_once)

        pod = b'{"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}'
        assert not await told("POST", pods, pod)
        patch = "application/merge-patch+json"
        assert await told("PATCH", f"{pods}/a/status", b'{"status": {"phase": "Running"}}', patch)
        assert not await told("PATCH", f"{pods}/a", b'{"metadata": {"labels": {"a": "b"}}}', patch)
        about = b'{"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}}'
        assert await told("POST", "/api/v1/namespaces/default/events", about)
        assert not await told("POST", base, b'{"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}}')
        assert not await told("PATCH", f"{base}/l", b'{"spec": {"holderIdentity": "y"}}', patch)
        assert not await told("DELETE", f"{pods}/a", b'{"gracePeriodSeconds": 0}')

        sets = "/apis/apps/v1/namespaces/default/replicasets"
        template = b'{"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}'
        made = b'{"metadata": {"name": "r"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": %s}}'
        assert not await told("POST", sets, made % template)
        assert await told("PATCH", f"{sets}/r/scale", b'{"spec": {"replicas": 1}}', patch)
        assert not await told("PATCH", f"{sets}/r", b'{"spec": {"replicas": 2}}', patch)
        bind = b'{"metadata": {"name": "%s"}, "target": {"kind": "Node", "name": "n1"}}'
        for owner in (b"ReplicaSet", b"StatefulSet"):
            name = owner.lower()
            reference = b'{"apiVersion": "apps/v1", "kind": "%s", "name": "r", "uid": "1", "controller": true}' % owner
            owned = b'{"metadata": {"name": "%s", "ownerReferences": [%s]}, "spec": {"containers": [{"name": "c", "image": "i"}]}}'
            early = owner == b"ReplicaSet"
            assert await told("POST", pods, owned % (name, reference)) is early
            assert await told("POST", f"{pods}/{name.decode()}/binding", bind % name) is early
    finally:
        await api.stop()
        await store.close()
