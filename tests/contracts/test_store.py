"""What every store does. A new store is one more row of `STORES`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.keyring import KeyRing
from core.store.base import (
    Compacted,
    Entry,
    Event,
    FutureRevision,
    KeyExists,
    RevisionMismatch,
    Store,
    StoreClosed,
    Watch,
)
from core.store.encrypted import EncryptedStore
from core.store.memory import MemoryStore
from core.store.sqlite import SqliteStore

BOUND = 50
STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(watch_bound=BOUND),
    "sqlite": lambda folder: SqliteStore(folder / "state.db", watch_bound=BOUND),
    "encrypted": lambda folder: EncryptedStore(MemoryStore(watch_bound=BOUND), KeyRing.load(folder / "keys"), ["/"]),
}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    found = STORES[request.param](tmp_path)
    yield found
    await found.close()


async def take(watch: Watch, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events += await watch.__anext__()
    assert len(events) == count
    return events


async def fill(store: Store, prefix: str, count: int) -> list[Entry]:
    return [await store.create(f"{prefix}{n:04}", b"%d" % n) for n in range(count)]


async def test_an_entry_is_created_read_updated_and_deleted(store: Store) -> None:
    assert await store.get("/a/x") is None
    made = await store.create("/a/x", b"1")
    assert made == Entry("/a/x", b"1", made.revision, made.revision)
    assert await store.get("/a/x") == made
    changed = await store.update("/a/x", b"2", made.revision)
    assert changed == Entry("/a/x", b"2", made.revision + 1, made.revision)
    assert await store.get("/a/x") == changed
    gone = await store.delete("/a/x", changed.revision)
    assert gone == Entry("/a/x", b"2", made.revision + 2, made.revision)
    assert await store.get("/a/x") is None
    assert store.revision == gone.revision
    again = await store.create("/a/x", b"3")
    assert again.created == again.revision == gone.revision + 1


async def test_an_empty_store_is_at_a_revision_that_can_be_watched(store: Store) -> None:
    page = await store.list("/a/")
    assert (page.entries, page.more, page.revision) == ([], False, store.revision)
    assert page.revision > 0, "0 means any revision to Kubernetes clients"
    watch = store.watch("/a/", page.revision)
    made = await store.create("/a/x", b"1")
    assert await take(watch, 1) == [Event("/a/x", b"1", made.revision, None)]
    await watch.aclose()


async def test_writes_that_expect_another_state_change_nothing(store: Store) -> None:
    made = await store.create("/a/x", b"1")
    with pytest.raises(KeyExists):
        await store.create("/a/x", b"2")
    for call in (store.update("/a/x", b"2", made.revision + 1), store.delete("/a/x", made.revision - 1)):
        with pytest.raises(RevisionMismatch) as caught:
            await call
        assert caught.value.current == made
    for call in (store.update("/a/none", b"2", 1), store.delete("/a/none", 1)):
        with pytest.raises(RevisionMismatch) as caught:
            await call
        assert caught.value.current is None
    assert await store.get("/a/x") == made
    assert store.revision == made.revision


async def test_of_concurrent_updates_one_wins(store: Store) -> None:
    made = await store.create("/a/x", b"0")
    calls = [store.update("/a/x", b"%d" % n, made.revision) for n in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, Entry) for each in outcomes) == 1
    assert sum(isinstance(each, RevisionMismatch) for each in outcomes) == 19


async def test_a_listing_is_in_the_order_of_keys_and_of_its_prefix_alone(store: Store) -> None:
    for key in ("/a/c", "/a/a/z", "/ab/x", "/a/b", "/a0", "/b/x"):
        await store.create(key, b"")
    page = await store.list("/a/")
    assert [entry.key for entry in page.entries] == ["/a/a/z", "/a/b", "/a/c"]
    assert (page.revision, page.more, page.remaining) == (store.revision, False, 0)
    assert len((await store.list("/")).entries) == 6


async def test_pages_follow_each_other_and_say_what_remains(store: Store) -> None:
    made = await fill(store, "/a/", 25)
    await store.create("/b/x", b"")
    seen: list[Entry] = []
    left = []
    after = ""
    while True:
        page = await store.list("/a/", limit=10, after=after)
        seen += page.entries
        left.append((page.more, page.remaining))
        if not page.more:
            break
        after = page.entries[-1].key
    assert seen == made
    assert left == [(True, 15), (True, 5), (False, 0)]
    assert (await store.list("/a/", limit=25)).more is False


async def test_pages_pinned_to_a_revision_show_that_state(store: Store) -> None:
    made = await fill(store, "/a/", 30)
    first = await store.list("/a/", limit=7)
    await store.delete("/a/0003", made[3].revision)
    await store.delete("/a/0012", made[12].revision)
    await store.create("/a/0012", b"anew")
    await store.update("/a/0020", b"changed", made[20].revision)
    await store.create("/a/0015x", b"later")
    await store.delete("/a/0029", made[29].revision)
    seen = list(first.entries)
    while True:
        page = await store.list("/a/", limit=7, after=seen[-1].key, revision=first.revision)
        assert page.revision == first.revision
        seen += page.entries
        assert page.remaining == 30 - len(seen)
        if not page.more:
            break
    assert seen == made
    assert (await store.list("/a/", revision=first.revision)).entries == made


async def test_a_listing_in_the_future_is_refused(store: Store) -> None:
    with pytest.raises(FutureRevision) as caught:
        await store.list("/a/", revision=store.revision + 1)
    assert caught.value.current == store.revision
    with pytest.raises(FutureRevision):
        await store.watch("/a/", store.revision + 1).__anext__()
    with pytest.raises(FutureRevision):
        await store.durable(store.revision + 1)


@pytest.mark.parametrize("applied", [False, True])
async def test_a_watch_tells_every_write_of_its_prefix_in_order(store: Store, applied: bool) -> None:
    watch = store.watch("/a/", store.revision, applied=applied)
    made = await store.create("/a/x", b"1")
    await store.create("/b/x", b"other")
    changed = await store.update("/a/x", b"2", made.revision)
    gone = await store.delete("/a/x", changed.revision)
    assert await take(watch, 3) == [
        Event("/a/x", b"1", made.revision, None),
        Event("/a/x", b"2", changed.revision, made),
        Event("/a/x", None, gone.revision, changed),
    ]
    await watch.aclose()
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await watch.__anext__()


async def test_closing_a_watch_ends_the_iteration_that_waits(store: Store) -> None:
    watch = store.watch("/a/", store.revision)

    async def iterate() -> list[list[Event]]:
        return [batch async for batch in watch]

    waiting = asyncio.create_task(iterate())
    await asyncio.sleep(0)
    await watch.aclose()
    async with asyncio.timeout(10):
        assert await waiting == []


async def test_a_watch_can_be_read_without_waiting(store: Store) -> None:
    made = await fill(store, "/a/", 2)
    watch, woken = store.watch("/a/", made[0].revision), asyncio.Event()
    watch.notify(woken.set)
    async with asyncio.timeout(10):
        await woken.wait()  # for what it began with
        assert [event.key for event in watch.take()] == [made[1].key]
        assert watch.take() == []
        woken.clear()
        await store.create("/a/new", b"")
        await woken.wait()
        assert [event.key for event in watch.take()] == ["/a/new"]
        woken.clear()
        await store.create("/a/last", b"")
        await woken.wait()
        woken.clear()
        await store.close()
        await woken.wait()
    assert [event.key for event in watch.take()] == ["/a/last"]
    with pytest.raises(StoreClosed):
        watch.take()


async def test_a_watch_from_a_past_revision_replays_what_came_after(store: Store) -> None:
    made = await fill(store, "/a/", 10)
    watch = store.watch("/a/", made[5].revision)
    assert [event.key for event in await take(watch, 4)] == [entry.key for entry in made[6:]]
    await store.create("/a/new", b"")
    assert [event.key for event in await take(watch, 1)] == ["/a/new"]
    await watch.aclose()


async def test_resubscribing_under_writes_gives_no_gap_and_no_double(store: Store) -> None:
    """Readers that list, watch, drop the watch at random and take it up again see every event once."""
    rng = random.Random(7)
    begin = store.revision
    total = 300

    async def write(writer: int) -> None:
        for n in range(total // 3):
            key = f"/{'ab'[n % 2]}/{writer}-{n % 7}"
            entry = await store.get(key)
            if entry is None:
                await store.create(key, b"%d" % n, durable=rng.random() < 0.5)
            elif rng.random() < 0.4:
                await store.delete(key, entry.revision, durable=rng.random() < 0.5)
            else:
                await store.update(key, b"%d" % n, entry.revision, durable=rng.random() < 0.5)
            if rng.random() < 0.3:
                await asyncio.sleep(0)

    async def following(watch: Watch, prefix: str) -> list[Event]:
        """What comes next; nothing where no more of this prefix can, the last writes having been elsewhere."""
        coming = asyncio.ensure_future(watch.__anext__())
        done, _ = await asyncio.wait([coming, writers], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if coming not in done and writers.done():
            await store.durable(begin + total)
            await asyncio.wait([coming], timeout=60 if prefix == "/" else 0.5)
        if coming.done():
            return coming.result()
        assert prefix != "/", "nothing comes"
        coming.cancel()
        await asyncio.wait([coming])
        return []

    async def read(prefix: str, applied: bool) -> list[Event]:
        seen: list[Event] = []
        since = begin
        while since < begin + total:
            watch = store.watch(prefix, since, applied=applied)
            for _ in range(rng.randint(1, 3)):
                batch = await following(watch, prefix)
                if not batch:
                    await watch.aclose()
                    return seen
                assert batch
                seen += batch
                since = batch[-1].revision
                if since == begin + total:
                    break
            await watch.aclose()
        return seen

    writers = asyncio.gather(*(write(n) for n in range(3)))
    readers = [read("/", False), read("/", True), read("/a/", False), read("/", False)]
    everything, applied, some, third = await asyncio.gather(*readers)
    await writers
    assert [event.revision for event in everything] == list(range(begin + 1, begin + total + 1))
    assert applied == third == everything
    assert some == [event for event in everything if event.key.startswith("/a/")]
    state: dict[str, Entry] = {}
    for event in everything:
        assert event.previous == state.pop(event.key, None)
        if event.value is not None:
            created = event.previous.created if event.previous else event.revision
            state[event.key] = Entry(event.key, event.value, event.revision, created)
    assert (await store.list("/")).entries == sorted(state.values())


async def test_a_slow_watcher_is_dropped_and_the_others_are_not(store: Store) -> None:
    slow = store.watch("/a/", store.revision)
    quick = store.watch("/a/", store.revision)
    for n in range(BOUND + 1):
        await store.create(f"/a/{n}", b"")
        assert len(await take(quick, 1)) == 1
    with pytest.raises(Compacted):
        await slow.__anext__()
    await store.create("/a/more", b"")
    assert [event.key for event in await take(quick, 1)] == ["/a/more"]
    await quick.aclose()
    await slow.aclose()


async def test_a_long_replay_is_no_slowness(store: Store) -> None:
    made = await fill(store, "/a/", 2 * BOUND)
    watch = store.watch("/a/", made[0].revision)
    assert len(await take(watch, 2 * BOUND - 1)) == 2 * BOUND - 1
    await watch.aclose()


async def test_compaction_forgets_the_past_and_keeps_the_living(store: Store) -> None:
    made = await fill(store, "/a/", 6)
    changed = await store.update("/a/0001", b"x", made[1].revision)
    await store.delete("/a/0002", made[2].revision)
    await store.compact(changed.revision)
    with pytest.raises(Compacted):
        await store.list("/a/", revision=changed.revision - 1)
    with pytest.raises(Compacted):
        await store.watch("/a/", changed.revision - 2).__anext__()
    assert len((await store.list("/a/", revision=changed.revision)).entries) == 6
    watch = store.watch("/a/", changed.revision)
    assert [(event.key, event.value) for event in await take(watch, 1)] == [("/a/0002", None)]
    await watch.aclose()
    assert len((await store.list("/a/")).entries) == 5
    async with asyncio.timeout(10):
        await store.compact(changed.revision)  # Again is fine.
        await store.compact(made[0].revision)
    with pytest.raises(FutureRevision):
        await store.compact(store.revision + 1)


async def test_soft_writes_are_visible_at_once_and_durable_when_asked(store: Store) -> None:
    soft = await store.create("/a/x", b"1", durable=False)
    assert await store.get("/a/x") == soft
    watch = store.watch("/a/", soft.revision - 1, applied=True)
    assert [event.revision for event in await take(watch, 1)] == [soft.revision]
    await watch.aclose()
    async with asyncio.timeout(10):
        await store.durable(soft.revision)
    told = store.watch("/a/", soft.revision - 1)
    assert [event.revision for event in await take(told, 1)] == [soft.revision]
    await told.aclose()


async def test_soft_events_come_in_the_order_of_the_log(store: Store) -> None:
    since = store.revision
    watch = store.watch("/a/", since)
    entry = await store.create("/a/soft", b"0", durable=False, soft=True)
    for number in range(1, 6):
        await store.create(f"/a/hard-{number}", b"", durable=number % 2 == 0)
        entry = await store.update("/a/soft", b"%d" % number, entry.revision, durable=False, soft=True)
    assert [event.revision for event in await take(watch, 11)] == list(range(since + 1, since + 12))
    again = store.watch("/a/", since)
    assert [event.revision for event in await take(again, 11)] == list(range(since + 1, since + 12))
    await watch.aclose()
    await again.aclose()


async def test_a_watch_of_durable_events_may_begin_at_an_applied_revision(store: Store) -> None:
    soft = await store.create("/a/x", b"1", durable=False)
    watch = store.watch("/a/", soft.revision)
    later = await store.create("/a/y", b"2")
    assert [event.revision for event in await take(watch, 1)] == [later.revision]
    await watch.aclose()


async def test_a_closed_store_refuses_and_ends_its_watches(store: Store) -> None:
    watch = store.watch("/a/", store.revision)
    entry = await store.create("/a/x", b"1", durable=False)
    await store.close()
    assert [event.revision for event in await take(watch, 1)] == [entry.revision], "close makes it durable first"
    with pytest.raises(StoreClosed):
        await watch.__anext__()
    for call in (store.get("/a/x"), store.list("/a/"), store.create("/a/y", b""), store.durable(1), store.compact(1)):
        with pytest.raises(StoreClosed):
            await call
    with pytest.raises(StoreClosed):
        await store.watch("/a/", 1).__anext__()
    await store.close()
