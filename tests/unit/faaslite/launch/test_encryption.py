"""A rotation of keys while the store is in use: everything is written again, then the old key goes."""

import asyncio
import os
import signal

import pytest

from core.keyring import KeyRing, KeyRingError, read_head
from core.store.memory import MemoryStore
from faaslite.launch.encryption import Encryption


@pytest.fixture
async def inner():
    made = MemoryStore()
    yield made
    await made.close()


async def key_of(inner, name):
    return read_head((await inner.get(name)).value).key_id


async def test_a_start_encrypts_what_is_in_clear(inner, tmp_path):
    await inner.create("/secrets/default/a", b"clear")
    encryption = Encryption(inner, tmp_path / "keys")
    await encryption.start()
    assert await key_of(inner, "/secrets/default/a") == "1"
    await encryption.stop()


async def test_a_hangup_rotates(inner, tmp_path):
    path = tmp_path / "keys"
    encryption = Encryption(inner, path)
    await encryption.start()
    for number in range(20):
        await encryption.store.create(f"/secrets/default/{number}", b"value")
    KeyRing.load(path).rotated().save(path)
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(10):
        while KeyRing.load(path).ids != ["2"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # another task works; there is nothing to wait on from outside
    assert {await key_of(inner, f"/secrets/default/{number}") for number in range(20)} == {"2"}
    assert (await encryption.store.get("/secrets/default/7")).value == b"value"
    await encryption.stop()


async def test_a_lost_key_is_said_at_the_start_and_nothing_is_changed(inner, tmp_path):
    first = Encryption(inner, tmp_path / "keys")
    await first.start()
    await first.store.create("/secrets/default/a", b"value")
    KeyRing.load(tmp_path / "keys").rotated().without_old().save(tmp_path / "keys")
    before = await inner.get("/secrets/default/a")
    with pytest.raises(KeyRingError, match="doesn't have"):
        await Encryption(inner, tmp_path / "keys").start()
    assert await inner.get("/secrets/default/a") == before
    await first.stop()
