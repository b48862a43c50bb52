from __future__ import annotations

from pathlib import Path

import pytest

from core.store.factory import open_store
from core.store.memory import MemoryStore
from core.store.sqlite import SqliteStore


async def test_a_url_names_a_store(tmp_path: Path) -> None:
    memory = open_store("memory://")
    assert isinstance(memory, MemoryStore)
    await memory.close()
    folder = tmp_path / "with space"
    folder.mkdir()
    sqlite = open_store(f"sqlite://{tmp_path}/with%20space/state.db")
    assert isinstance(sqlite, SqliteStore)
    await sqlite.close()
    assert (folder / "state.db").exists()


@pytest.mark.parametrize("url", ["", "state.db", "mysql://host/db", "/var/lib/state.db"])
def test_an_unknown_scheme_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(ValueError, match="known are memory://, sqlite://"):
        open_store(url)


@pytest.mark.parametrize("url", ["sqlite://state.db", "sqlite://", "sqlite:///", "sqlite:state.db"])
def test_sqlite_needs_an_absolute_path(url: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        open_store(url)
