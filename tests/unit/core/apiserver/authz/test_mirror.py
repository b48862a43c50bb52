"""An index over a prefix of the store: what was there, what comes and goes, at once when it is asked, and over a compaction."""

import asyncio

import pytest

from core.apiserver.authz.mirror import Mirror
from core.store.memory import MemoryStore


@pytest.fixture
async def store():
    made = MemoryStore(log_events=20)
    yield made
    await made.close()


@pytest.fixture
async def followed(store):
    found = {}
    mirror = Mirror(store, "/pods/", found.__setitem__, lambda key: found.pop(key))
    yield mirror, found
    await mirror.stop()


async def test_what_was_there_and_what_comes_without_a_turn_of_the_loop(store, followed):
    mirror, found = followed
    first = await store.create("/pods/a/1", b"1")
    await store.create("/secrets/a/1", b"x")
    await mirror.start()
    assert found == {"/pods/a/1": b"1"}
    await store.create("/pods/a/2", b"2", durable=False)
    mirror.catch_up()
    assert found == {"/pods/a/1": b"1", "/pods/a/2": b"2"}
    await store.delete(first.key, first.revision)
    mirror.catch_up()
    assert found == {"/pods/a/2": b"2"}


async def test_takes_events_in_by_itself(store, followed):
    mirror, found = followed
    await mirror.start()
    await store.create("/pods/a/1", b"1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found == {"/pods/a/1": b"1"}


async def test_reads_again_when_it_fell_behind(store, followed):
    mirror, found = followed
    gone = await store.create("/pods/a/gone", b"")
    await mirror.start()
    mirror._wake = lambda: None  # too busy to take anything in
    mirror._watch.notify(lambda: None)
    mirror._watch._bound = 5
    for number in range(10):
        await store.create(f"/pods/a/{number}", b"")
    await store.delete(gone.key, gone.revision)
    mirror.catch_up()
    await mirror._reading
    assert set(found) == {f"/pods/a/{number}" for number in range(10)}
