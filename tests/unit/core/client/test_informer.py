"""Informers against an API in memory with real revisions, replay and expiry; and once over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import pytest

from core.api.kinds import NODE, POD
from core.api.views import ObjectView, Pod
from core.client.http import HttpTransport
from core.client.informer import Informer, Informers
from core.client.rest import Client
from core.errors import Expired, Forbidden, ServiceUnavailable


class Heard:
    """A handler that keeps what it heard, and can be waited on."""

    def __init__(self) -> None:
        self.changes: list[tuple[str | None, str | None]] = []
        self._more = asyncio.Event()

    def __call__(self, old: Pod | None, new: Pod | None) -> None:
        self.changes.append((described(old), described(new)))
        self._more.set()

    async def wait(self, count: int) -> list[tuple[str | None, str | None]]:
        async with asyncio.timeout(10):
            while len(self.changes) < count:
                self._more.clear()
                await self._more.wait()
        return self.changes


def described(pod: Pod | None) -> str | None:
    return f"{pod.name}@{pod.spec.node_name}" if pod is not None else None


def pod(name: str, node: str = "n1", **labels: str):
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node}}


@pytest.fixture
async def informers(api) -> AsyncIterator[Informers]:
    found = Informers(Client(api))
    yield found
    await found.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs of a millisecond, so that tests of failures are quick."""
    monkeypatch.setattr("core.client.backoff.Backoff.next", lambda self: 0.001)


async def watching(api) -> None:
    async with asyncio.timeout(10):
        await api.watch_began.wait()


async def synced(informers: Informers) -> None:
    await informers.start()
    async with asyncio.timeout(10):
        await informers.wait_synced()


async def test_it_lists_and_then_hears_of_every_change(api, informers: Informers) -> None:
    api.put(POD, pod("a"))
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    assert not pods.synced
    await synced(informers)
    assert pods.synced
    assert heard.changes == [(None, "a@n1")]
    api.put(POD, pod("b", "n2"))
    api.put(POD, pod("a", "n3"))
    api.remove(POD, "b")
    assert await heard.wait(4) == [(None, "a@n1"), (None, "b@n2"), ("a@n1", "a@n3"), ("b@n2", None)]
    assert [described(each) for each in pods.values()] == ["a@n3"]
    assert described(pods.get("default/a")) == "a@n3"
    assert pods.get("default/b") is None
    assert len(pods) == 1
    assert [call[0] for call in api.calls] == ["GET", "WATCH"]


async def test_the_cache_and_indexes_hold_the_new_object_when_handlers_run(api, informers: Informers) -> None:
    pods, heard, seen = informers.watch(POD, Pod), Heard(), []
    pods.add_index("node", lambda each: [each.spec.node_name])

    def look(old: Pod | None, new: Pod | None) -> None:
        key = (new or old).key
        seen.append((pods.get(key) is new, new in pods.by_index("node", "n1"), old in pods.by_index("node", "n1")))

    pods.add_handler(look)
    pods.add_handler(heard)
    api.put(POD, pod("a"))
    await synced(informers)
    api.put(POD, pod("b"))
    api.put(POD, pod("b", "n2"))
    api.remove(POD, "a")
    await heard.wait(4)
    assert seen == [(True, True, False), (True, True, False), (True, False, False), (True, False, False)]


async def test_events_reach_handlers_without_a_task_or_a_queue_in_between(api, informers: Informers) -> None:
    """From the transport's step to the handler's call no turn of the event loop passes."""
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    await watching(api)
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks()
    api.put(POD, pod("a"))
    await asyncio.sleep(0)  # The transport's queue wakes its reader in this turn.
    await asyncio.sleep(0)
    assert heard.changes == [(None, "a@n1")]
    assert asyncio.all_tasks() == tasks


async def test_what_a_handler_raises_is_logged_and_harms_nobody(api, informers: Informers, caplog) -> None:
    pods, heard = informers.watch(POD, Pod), Heard()

    def broken(old: Pod | None, new: Pod | None) -> None:
        raise RuntimeError("handler's own fault")

    pods.add_handler(broken)
    pods.add_handler(heard)
    await synced(informers)
    api.put(POD, pod("a"))
    api.put(POD, pod("b"))
    await heard.wait(2)
    records = [record for record in caplog.records if "a handler failed on default/" in record.getMessage()]
    assert len(records) == 2
    assert [call[0] for call in api.calls] == ["GET", "WATCH"]


async def test_a_late_handler_hears_of_what_is_there(api, informers: Informers) -> None:
    api.put(POD, pod("a"))
    pods = informers.watch(POD, Pod)
    await synced(informers)
    heard = Heard()
    pods.add_handler(heard)
    assert heard.changes == [(None, "a@n1")]
    pods.add_index("node", lambda each: [each.spec.node_name])
    assert [each.name for each in pods.by_index("node", "n1")] == ["a"]


async def test_a_watch_that_the_server_ends_is_taken_up_where_it_was(api, informers: Informers) -> None:
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    api.put(POD, pod("a"))
    await heard.wait(1)
    api.end_watches()
    api.put(POD, pod("b"))
    await heard.wait(2)
    assert [call[0] for call in api.calls] == ["GET", "WATCH", "WATCH"]
    assert api.calls[-1][2]["resourceVersion"] == "11"


async def test_bookmarks_move_the_version(api, informers: Informers) -> None:
    pods = informers.watch(POD, Pod)
    await synced(informers)
    await watching(api)
    api.bookmark()
    api.watch_began.clear()
    api.end_watches()
    await watching(api)
    assert pods.version == api.calls[-1][2]["resourceVersion"] == str(api.revision)
    assert api.calls[-1][2]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("how", ["expired", "broken"])
async def test_a_relist_turns_differences_into_changes(api, informers: Informers, how: str) -> None:
    for name in ("same", "changed", "gone"):
        api.put(POD, pod(name))
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    await watching(api)
    heard.changes.clear()
    if how == "expired":
        api.end_watches()
    else:
        api.break_watches()
    # Before the informer's next step, what the watch had queued is behind the end of it.
    api.put(POD, pod("changed", "n2"))
    api.remove(POD, "gone")
    api.put(POD, pod("new"))
    if how == "expired":
        api.compact()
    assert sorted(await heard.wait(3), key=str) == sorted(
        [("gone@n1", None), ("changed@n1", "changed@n2"), (None, "new@n1")], key=str
    )
    assert [call[0] for call in api.calls].count("GET") == 2
    assert {each.name for each in pods.values()} == {"same", "changed", "new"}


async def test_who_asked_is_told_of_every_listing_but_the_first(api, informers: Informers) -> None:
    api.put(POD, pod("a"))
    pods, told = informers.watch(POD, Pod), asyncio.Event()
    pods.on_relist(told.set)
    await synced(informers)
    await watching(api)
    assert not told.is_set()
    api.break_watches()
    async with asyncio.timeout(10):
        await told.wait()
    assert [each.name for each in pods.values()] == ["a"]


async def test_a_deletion_that_a_relist_hides_behind_a_new_object_is_a_change(api, informers: Informers) -> None:
    first = api.put(POD, pod("a"))
    pods, uids = informers.watch(POD, Pod), []
    heard = Heard()
    pods.add_handler(lambda old, new: uids.append((old and old.metadata.uid, new and new.metadata.uid)))
    pods.add_handler(heard)
    await synced(informers)
    await watching(api)
    api.break_watches()
    api.remove(POD, "a")
    second = api.put(POD, pod("a", "n2"))
    await heard.wait(2)
    assert uids[-1] == (first["metadata"]["uid"], second["metadata"]["uid"])


async def test_it_goes_on_trying_until_the_server_answers(api, informers: Informers, caplog) -> None:
    caplog.set_level(logging.INFO)
    api.failures += [ServiceUnavailable("not up yet"), Forbidden("not allowed yet"), RuntimeError("a bug")]
    api.put(POD, pod("a"))
    pods = informers.watch(POD, Pod)
    await synced(informers)
    assert len(pods) == 1
    said = [
        (record.levelname, record.getMessage()) for record in caplog.records if record.name == "core.client.informer"
    ]
    assert [level for level, _ in said] == ["INFO", "WARNING", "ERROR"]
    assert "not allowed yet" in said[1][1]


async def test_an_expired_list_is_tried_again(api, informers: Informers) -> None:
    api.failures += [Expired("compacted"), Expired("compacted")]
    informers.watch(POD, Pod)
    await synced(informers)


async def test_an_object_that_the_view_can_t_read_is_skipped(api, informers: Informers, caplog) -> None:
    api.put(POD, {"metadata": {"name": "bad"}, "spec": {"nodeName": 7}})
    api.put(POD, pod("a"))
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    api.put(POD, {"metadata": {"name": "worse"}, "spec": {"nodeName": 7}})
    api.put(POD, pod("b"))
    assert await heard.wait(2) == [(None, "a@n1"), (None, "b@n1")]
    assert len([record for record in caplog.records if "can't be read" in record.getMessage()]) == 2


async def test_labels_select_and_an_object_that_leaves_is_deleted(api, informers: Informers) -> None:
    api.put(POD, pod("a", app="x"))
    api.put(POD, pod("b", app="y"))
    pods, heard = informers.watch(POD, Pod, labels="app=x", namespace="default"), Heard()
    pods.add_handler(heard)
    await synced(informers)
    await watching(api)
    api.put(POD, pod("b", app="x"))
    api.put(POD, pod("a", app="y"))
    api.remove(POD, "a")
    api.put(POD, pod("c", app="x"))
    assert await heard.wait(4) == [(None, "a@n1"), (None, "b@n1"), ("a@n1", None), (None, "c@n1")]
    assert api.calls[0][1:] == ("/api/v1/namespaces/default/pods", {"labelSelector": "app=x", "limit": "500"})


async def test_informers_are_shared_by_their_arguments(api, informers: Informers) -> None:
    pods = informers.watch(POD, Pod)
    assert informers.watch(POD, Pod) is pods
    others = [
        informers.watch(POD, ObjectView), informers.watch(POD, Pod, namespace="x"), informers.watch(NODE, ObjectView),
        informers.watch(POD, Pod, labels="a=b"), informers.watch(POD, Pod, fields="spec.nodeName=n"),
    ]  # fmt: skip
    assert len({id(each) for each in [pods, *others]}) == 6
    await informers.start()
    await informers.start()
    await synced(informers)
    assert len([call for call in api.calls if call[0] == "GET"]) == 6


async def test_an_informer_asked_for_after_the_start_runs_and_can_be_forgotten(api, informers: Informers) -> None:
    await informers.start()
    api.put(POD, pod("a"))
    pods = informers.watch(POD, Pod)
    async with asyncio.timeout(10):
        await pods.wait_synced()
    await watching(api)
    await informers.forget(pods)
    assert not api.watching
    assert informers.watch(POD, Pod) is not pods


async def test_stopping_hangs_up_and_starting_again_goes_on(api, informers: Informers) -> None:
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    await watching(api)
    await informers.stop()
    assert not api.watching
    api.put(POD, pod("a"))
    await informers.start()
    assert await heard.wait(1) == [(None, "a@n1")]


async def test_one_round_can_be_driven_by_hand(api) -> None:
    informer = Informer(Client(api), POD, Pod, "", "", "")
    api.put(POD, pod("a"))
    await informer.list_once()
    assert informer.version == str(api.revision)
    api.put(POD, pod("b"))
    watch = asyncio.create_task(informer.watch_once())
    await watching(api)
    api.end_watches()
    async with asyncio.timeout(10):
        await watch
    assert [each.name for each in informer.values()] == ["a", "b"]


async def test_after_any_mishap_the_cache_is_what_the_server_has(api, informers: Informers) -> None:
    rng = random.Random(3)
    pods = informers.watch(POD, Pod)
    pods.add_index("node", lambda each: [each.spec.node_name])
    told: dict[str, str] = {}
    reached = asyncio.Event()

    def follow(old: Pod | None, new: Pod | None) -> None:
        key = (new or old).key
        assert told.get(key) == described(old), "a change was told whose old state nobody was told"
        if new is None:
            del told[key]
        else:
            told[key] = described(new)
            if new.name == "last":
                reached.set()

    pods.add_handler(follow)
    await synced(informers)
    names: set[str] = set()
    for n in range(400):
        name = f"p{rng.randrange(20)}"
        if name in names and rng.random() < 0.4:
            api.remove(POD, name)
            names.discard(name)
        else:
            api.put(POD, pod(name, f"n{n}"))
            names.add(name)
        if rng.random() < 0.1:
            rng.choice([api.end_watches, api.break_watches, api.compact])()
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice([0, 0, 0.001]))
    api.put(POD, pod("last"))
    async with asyncio.timeout(10):
        await reached.wait()
    wanted = {f"default/{key[2]}": f"{key[2]}@{each['spec']['nodeName']}" for key, each in api.objects.items()}
    assert {each.key: described(each) for each in pods.values()} == wanted == told
    for each in pods.values():
        assert pods.by_index("node", each.spec.node_name) == [each]


async def test_it_works_over_http(api, app, serve) -> None:
    transport = HttpTransport(await serve(app))
    informers = Informers(Client(transport))
    api.put(POD, pod("a"))
    pods, heard = informers.watch(POD, Pod), Heard()
    pods.add_handler(heard)
    await synced(informers)
    api.put(POD, pod("b"))
    await heard.wait(2)
    api.break_watches()
    api.remove(POD, "a")
    assert await heard.wait(3) == [(None, "a@n1"), (None, "b@n1"), ("a@n1", None)]
    await informers.stop()
    with contextlib.suppress(ServiceUnavailable):
        await transport.close()
