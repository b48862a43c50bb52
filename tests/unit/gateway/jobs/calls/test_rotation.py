"""A rotation of the keys of queued calls, beside a queue that is in use."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from core.keyring import KeyRing, KeyRingError
from gateway.jobs.calls.base import CallsUnavailable, KeysShared
from gateway.jobs.calls.rotation import Rotation


class Queue:
    """Writes nothing again, and says when it was asked to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[list[str]] = asyncio.Queue()
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def rekey(self, ring: KeyRing) -> int:
        self.asked.put_nowait(ring.ids)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return 7


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "calls.keys"
    KeyRing.load(path)
    return path


@pytest.fixture
async def rotation(keys):
    found = Rotation(Queue(), keys)
    yield found
    await found.stop()


def add(keys):
    KeyRing.load(keys).rotated().save(keys)


async def test_one_key_has_nothing_to_do(rotation, keys):
    await rotation.rotate()
    assert rotation._calls.asked.empty()
    assert KeyRing.load(keys).ids == ["1"]


async def test_a_start_goes_on_with_what_was_cut_short(rotation, keys):
    add(keys)
    await rotation.start()
    assert await rotation._calls.asked.get() == ["2", "1"]
    await rotation._task
    assert KeyRing.load(keys).ids == ["2"]


async def test_a_hangup_begins_one_and_another_meanwhile_follows(rotation, keys):
    queue = rotation._calls
    await rotation.start()
    await rotation._task
    queue.go.clear()
    add(keys)
    os.kill(os.getpid(), signal.SIGHUP)
    assert await queue.asked.get() == ["2", "1"]
    add(keys)
    os.kill(os.getpid(), signal.SIGHUP)
    queue.go.set()
    assert await queue.asked.get() == ["3", "2", "1"], "the third wasn't lost to the end of the first"
    await rotation._task
    assert KeyRing.load(keys).ids == ["3"]


async def test_shared_keys_stay_and_one_that_was_asked_for_goes(rotation, keys):
    rotation._calls.error = KeysShared("another one")
    add(keys)
    with pytest.raises(KeysShared):
        await rotation.rotate()
    assert KeyRing.load(keys).ids == ["2", "1"], "it is for the day on which this one is alone"
    with pytest.raises(KeysShared):
        await rotation.rotate(asked=True)
    assert KeyRing.load(keys).ids == ["1"]


async def test_a_failure_leaves_the_file_and_is_told(rotation, keys, caplog):
    rotation._calls.error = CallsUnavailable("the disk is full")
    add(keys)
    await rotation.start()
    await rotation._task
    assert KeyRing.load(keys).ids == ["2", "1"]
    assert "the disk is full" in caplog.text


def test_a_ring_is_led_by_one_of_its_keys(keys):
    ring = KeyRing.load(keys).rotated().rotated()
    assert ring.led_by("2").ids == ["2", "3", "1"]
    assert ring.without_new().ids == ["2", "1"]
    with pytest.raises(KeyRingError, match="'9'"):
        ring.led_by("9")
