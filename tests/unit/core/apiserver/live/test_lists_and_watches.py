"""Lists and watches: pages of one revision, selectors, versions, bookmarks."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import aclosing

import pytest

from core.apiserver.watch import Watcher, WatchOptions
from core.errors import BadRequest, Expired, Invalid, Timeout

CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


async def _fill(admin, count=5):
    return [
        await admin.post(CM, {"metadata": {"name": f"c{number}", "labels": {"n": str(number % 2)}}})
        for number in range(count)
    ]


def _names(found):
    return [each["metadata"]["name"] for each in found["items"]]


async def test_pages_show_one_revision(admin):
    await _fill(admin)
    first = await admin.get(CM, limit="2")
    meta = first["metadata"]
    assert _names(first) == ["c0", "c1"] and meta["remainingItemCount"] == 3
    await admin.delete(f"{CM}/c2")
    await admin.post(CM, {"metadata": {"name": "c9"}})
    second = await admin.get(CM, limit="2", **{"continue": meta["continue"]})
    third = await admin.get(CM, limit="2", **{"continue": second["metadata"]["continue"]})
    assert _names(second) + _names(third) == ["c2", "c3", "c4"]
    assert {each["metadata"]["resourceVersion"] for each in (first, second, third)} == {meta["resourceVersion"]}
    assert "continue" not in third["metadata"]


async def test_bad_and_old_continue_tokens(admin, store):
    await _fill(admin)
    token = (await admin.get(CM, limit="2"))["metadata"]["continue"]
    other = base64.urlsafe_b64encode(json.dumps({"v": 1, "rv": 3, "after": "/pods/default/a"}).encode()).decode()
    for bad in ("garbage", "e30", other):
        with pytest.raises(BadRequest, match="continue key is not valid"):
            await admin.get(CM, limit="2", **{"continue": bad})
    await admin.post(CM, {"metadata": {"name": "later"}})
    await store.compact(store.revision)
    with pytest.raises(Expired, match="The provided continue parameter is too old") as refused:
        await admin.get(CM, limit="2", **{"continue": token})
    # Whoever can do with less goes on from the same name, with what is there by now.
    inconsistent = refused.value.status()["metadata"]["continue"]
    page = await admin.get(CM, limit="10", **{"continue": inconsistent})
    assert _names(page) == ["c2", "c3", "c4", "later"]
    assert page["metadata"]["resourceVersion"] == str(store.revision)


async def test_selectors(admin, pod):
    await _fill(admin)
    assert _names(await admin.get(CM, labelSelector="n=1")) == ["c1", "c3"]
    assert _names(await admin.get(CM, labelSelector="n notin (1),!x")) == ["c0", "c2", "c4"]
    assert _names(
        await admin.get(CM, fieldSelector="metadata.name=c3,metadata.name=c3,metadata.namespace=default")
    ) == ["c3"]
    first = await admin.get(CM, labelSelector="n=0", limit="2")
    rest = await admin.get(CM, labelSelector="n=0", limit="2", **{"continue": first["metadata"]["continue"]})
    assert (_names(first), _names(rest)) == (["c0", "c2"], ["c4"])
    assert "remainingItemCount" not in first["metadata"]
    await admin.post(PODS, pod("p", nodeName="n1"))
    assert _names(await admin.get("/api/v1/pods", fieldSelector="spec.nodeName=n1,status.phase!=Failed")) == ["p"]
    assert _names(await admin.get("/api/v1/pods", fieldSelector="spec.nodeName=n2")) == []
    with pytest.raises(BadRequest, match="field label not supported: spec.foo"):
        await admin.get(PODS, fieldSelector="spec.foo=x")
    with pytest.raises(BadRequest, match="unable to parse"):
        await admin.get(PODS, labelSelector="a in b")


async def test_versions_of_lists(admin, store):
    await _fill(admin, 2)
    past = store.revision
    await admin.post(CM, {"metadata": {"name": "new"}})
    assert _names(await admin.get(CM, resourceVersion=str(past), resourceVersionMatch="Exact")) == ["c0", "c1"]
    assert len(_names(await admin.get(CM, resourceVersion=str(past), resourceVersionMatch="NotOlderThan"))) == 3
    assert len(_names(await admin.get(CM, resourceVersion="0", limit="500"))) == 3
    with pytest.raises(Timeout) as early:
        await admin.get(CM, resourceVersion="1000000")
    assert early.value.causes[0]["reason"] == "ResourceVersionTooLarge"
    assert early.value.message == f"Too large resource version: 1000000, current: {store.revision}"
    with pytest.raises(Invalid, match="resourceVersionMatch is forbidden unless resourceVersion is provided"):
        await admin.get(CM, resourceVersionMatch="Exact")
    with pytest.raises(Invalid, match="resourceVersion: Invalid value"):
        await admin.get(CM, resourceVersion="abc")


async def test_a_watch_without_a_version_begins_with_what_exists(admin):
    await _fill(admin, 2)
    found = await admin.events(CM, 2)
    assert [(type_, document["metadata"]["name"]) for type_, document in found] == [("ADDED", "c0"), ("ADDED", "c1")]


async def test_a_watch_follows_strictly_after_its_version(admin):
    made = await _fill(admin, 2)
    await admin.patch(f"{CM}/c1", {"data": {"k": "v"}})
    gone = await admin.get(f"{CM}/c1")
    await admin.delete(f"{CM}/c1")
    await admin.post(CM, {"metadata": {"name": "c2"}})
    found = await admin.events(CM, 3, resourceVersion=made[1]["metadata"]["resourceVersion"])
    assert [(type_, document["metadata"]["name"]) for type_, document in found] == [
        ("MODIFIED", "c1"), ("DELETED", "c1"), ("ADDED", "c2"),
    ]  # fmt: skip
    deleted = found[1][1]
    assert deleted["data"] == {"k": "v"}
    assert int(deleted["metadata"]["resourceVersion"]) > int(gone["metadata"]["resourceVersion"])


async def test_objects_enter_and_leave_a_selection(admin, store):
    since = str(store.revision)
    await admin.post(CM, {"metadata": {"name": "a", "labels": {"x": "no"}}})
    await admin.patch(f"{CM}/a", {"metadata": {"labels": {"x": "yes"}}})
    await admin.patch(f"{CM}/a", {"data": {"k": "v"}})
    await admin.patch(f"{CM}/a", {"metadata": {"labels": {"x": "no"}}})
    found = await admin.events(CM, 3, resourceVersion=since, labelSelector="x=yes")
    assert [type_ for type_, _ in found] == ["ADDED", "MODIFIED", "DELETED"]
    assert found[2][1]["metadata"]["labels"] == {"x": "yes"}, "the last state that was in"
    assert found[2][1]["metadata"]["resourceVersion"] == (await admin.get(f"{CM}/a"))["metadata"]["resourceVersion"]


async def test_initial_events_end_with_an_annotated_bookmark(admin):
    await _fill(admin, 1)
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    found = await admin.events(CM, 2, **query)
    assert [type_ for type_, _ in found] == ["ADDED", "BOOKMARK"]
    assert found[1][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with pytest.raises(Invalid, match="sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"):
        await admin.events(CM, 1, sendInitialEvents="true")


async def test_stale_and_future_versions_of_watches(admin, store):
    made = await _fill(admin, 3)
    await store.compact(store.revision)
    with pytest.raises(Expired, match="too old resource version"):
        await admin.events(CM, 1, resourceVersion=made[0]["metadata"]["resourceVersion"])
    with pytest.raises(Timeout, match="Too large resource version"):
        await admin.events(CM, 1, resourceVersion="1000000")


async def test_a_watch_ends_at_its_timeout_with_a_bookmark_of_the_newest_revision(admin, store):
    since = str(store.revision)
    await admin.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "elsewhere"}})
    found = []
    async with asyncio.timeout(10):
        query = {"resourceVersion": since, "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        async with aclosing(admin.transport.watch(CM, query)) as watch:
            async for batch in watch:
                found += batch
    assert [each.type for each in found] == ["BOOKMARK"]
    assert json.loads(found[0].object)["metadata"]["resourceVersion"] == str(store.revision)


async def test_bookmarks_come_after_every_event_that_they_cover(admin, store, api):
    registry = api.resources._served.find("", "v1", "configmaps")
    options = WatchOptions(since=store.revision, bookmarks=True, applied=True, period=0.001)
    watcher = Watcher(store, registry.prefix(), registry.selection(), options)

    async def write():
        for number in range(200):
            await admin.post(CM, {"metadata": {"name": f"w{number}"}})
            await asyncio.sleep(0)
        watcher.stop()

    writing, seen, marks = asyncio.create_task(write()), 0, 0
    async with asyncio.timeout(20):
        async with aclosing(watcher.changes()) as changes:
            async for batch in changes:
                for each in batch:
                    if each.type == "BOOKMARK":
                        marks += 1
                        assert each.entry.revision >= seen
                        seen = each.entry.revision
                    else:
                        assert each.entry.revision > seen, "an event came after a bookmark that claimed it"
                        seen = each.entry.revision
    await writing
    assert marks


async def test_stopping_the_server_ends_its_watches(admin, api):
    await _fill(admin, 1)
    began = asyncio.Event()

    async def read():
        found = []
        async with aclosing(admin.transport.watch(CM, {})) as watch:
            async for batch in watch:
                found += batch
                began.set()
        return found

    task = asyncio.create_task(read())
    async with asyncio.timeout(5):
        await began.wait()
        assert api.resources.watching == 1
        await api.stop()
        assert [each.type for each in await task] == ["ADDED"]
    assert api.resources.watching == 0


async def test_the_oldest_way_to_watch(admin):
    await _fill(admin, 3)
    old = CM.replace("/api/v1/", "/api/v1/watch/")
    assert [each["metadata"]["name"] for _, each in await admin.events(old, 3)] == ["c0", "c1", "c2"]
    ((_, found),) = await admin.events(f"{old}/c1", 1)
    assert found["metadata"]["name"] == "c1"
    with pytest.raises(Invalid, match="sendInitialEvents is forbidden for list"):
        await admin.get(CM, sendInitialEvents="true")


async def test_the_list_of_one_object_looks_at_no_other(admin, store, monkeypatch):
    """As nodes ask for each Secret: by its name, whatever lies beside it. What is watched from there misses nothing."""
    await _fill(admin)

    async def listed(prefix, **more):
        raise AssertionError(f"{prefix} was read whole")

    with monkeypatch.context() as only:
        only.setattr(store, "list", listed)
        found = await admin.get(CM, fieldSelector="metadata.name=c3")
        assert _names(found) == ["c3"] and int(found["metadata"]["resourceVersion"]) >= int(
            found["items"][0]["metadata"]["resourceVersion"]
        )
        assert _names(await admin.get(CM, fieldSelector="metadata.name=c3", labelSelector="n=0")) == []
        assert _names(await admin.get(CM, fieldSelector="metadata.name=c3,metadata.name!=c3")) == []
        assert _names(await admin.get(CM, fieldSelector="metadata.name=gone")) == []
        assert _names(await admin.get("/api/v1/namespaces", fieldSelector="metadata.name=default")) == ["default"]
    assert _names(await admin.get("/api/v1/configmaps", fieldSelector="metadata.name=c3")) == ["c3"], "in any namespace"
    assert _names(await admin.get(CM, fieldSelector="metadata.name=c3", limit="1")) == ["c3"]
    version = found["metadata"]["resourceVersion"]
    await admin.patch(f"{CM}/c3", {"data": {"a": "b"}})
    await admin.delete(f"{CM}/c3")
    events = await admin.events(CM, 2, fieldSelector="metadata.name=c3", resourceVersion=version)
    assert [kind for kind, _ in events] == ["MODIFIED", "DELETED"]
