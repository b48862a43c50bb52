"""Nothing of a secret is in clear in the store's files; keys rotate, and a damaged key or value says so."""

import json

import pytest

from core.keyring import MAGIC, KeyRing, KeyRingError
from core.store.encrypted import EncryptedStore
from core.store.memory import MemoryStore
from core.store.sqlite import SqliteStore

CLEAR = b"correct horse battery staple"


@pytest.fixture
def ring(tmp_path):
    return KeyRing.load(tmp_path / "keys.json")


async def test_nothing_is_in_clear_in_the_database_or_its_log(tmp_path, ring):
    folder = tmp_path / "db"
    folder.mkdir()
    inner = SqliteStore(folder / "state.db")
    store = EncryptedStore(inner, ring, ["/secrets/"])
    made = await store.create("/secrets/a", CLEAR)
    changed = await store.update("/secrets/a", CLEAR + b"!", made.revision)
    await store.create("/configmaps/a", b"public words")
    on_disk = b"".join(each.read_bytes() for each in folder.iterdir())
    await store.delete("/secrets/a", changed.revision)
    on_disk += b"".join(each.read_bytes() for each in folder.iterdir())
    await store.close()
    on_disk += b"".join(each.read_bytes() for each in folder.iterdir())
    assert b"public words" in on_disk
    assert MAGIC in on_disk
    assert CLEAR not in on_disk


async def test_reads_what_was_there_before_and_encrypts_it_on_demand(ring):
    inner = MemoryStore()
    await inner.create("/secrets/old", CLEAR)
    store = EncryptedStore(inner, ring, ["/secrets/"])
    assert (await store.get("/secrets/old")).value == CLEAR
    assert await store.encrypt_all() == 1
    assert await store.encrypt_all() == 0
    assert CLEAR not in (await inner.get("/secrets/old")).value
    assert (await store.get("/secrets/old")).value == CLEAR
    await store.close()


async def test_rotation_needs_the_old_key_until_all_is_written_again(tmp_path, ring):
    inner = MemoryStore()
    store = EncryptedStore(inner, ring, ["/secrets/"])
    await store.create("/secrets/a", CLEAR)
    new = ring.rotated()
    new.save(tmp_path / "keys.json")
    assert KeyRing.load(tmp_path / "keys.json").ids == ["2", "1"]
    store.use(new)
    assert (await store.get("/secrets/a")).value == CLEAR
    with pytest.raises(KeyRingError, match="key '1'"):
        new.without_old().open((await inner.get("/secrets/a")).value, "/secrets/a")
    assert await store.encrypt_all() == 1
    store.use(new.without_old())
    assert (await store.get("/secrets/a")).value == CLEAR
    await store.close()


async def test_equal_values_look_different_and_do_not_open_elsewhere(ring):
    assert ring.seal(CLEAR, "/secrets/a") != ring.seal(CLEAR, "/secrets/a")
    with pytest.raises(KeyRingError, match="damaged"):
        ring.open(ring.seal(CLEAR, "/secrets/a"), "/secrets/b")


def test_a_flipped_bit_is_noticed_wherever_it_is(ring):
    sealed = ring.seal(CLEAR, "/secrets/a")
    start = len(MAGIC) + 2
    for position in range(start, len(sealed)):
        spoiled = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        with pytest.raises(KeyRingError):
            ring.open(spoiled, "/secrets/a")
    for length in range(start, len(sealed)):
        with pytest.raises(KeyRingError):
            ring.open(sealed[:length], "/secrets/a")


def test_the_key_file_is_private_and_says_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "keys.json"
    KeyRing.load(path)
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(KeyRingError, match="chmod 600"):
        KeyRing.load(path)
    path.chmod(0o600)
    for text in ("", "{}", '{"keys": [{"id": "1", "key": "!"}]}', json.dumps({"keys": [{"id": "1", "key": "AAAA"}]})):
        path.write_text(text)
        with pytest.raises(KeyRingError, match="backup"):
            KeyRing.load(path)
    path.write_text('{"keys": []}')
    with pytest.raises(KeyRingError, match="holds no key"):
        KeyRing.load(path)
