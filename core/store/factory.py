"""From a URL to a store: the one table of what can be plugged in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from core.store.base import Store
from core.store.memory import MemoryStore
from core.store.sqlite import SqliteStore

__all__ = ["SCHEMES", "open_store"]


def _memory(url: SplitResult) -> Store:
    return MemoryStore()


def _sqlite(url: SplitResult) -> Store:
    if url.netloc or not url.path.startswith("/") or url.path == "/":
        raise ValueError(f"the sqlite store needs an absolute path, sqlite:///var/lib/state.db, got {url.geturl()!r}")
    return SqliteStore(Path(unquote(url.path)))


SCHEMES: dict[str, Callable[[SplitResult], Store]] = {
    "memory": _memory,
    "sqlite": _sqlite,
}


def open_store(url: str) -> Store:
    """Open `memory://` or `sqlite:///absolute/path`.

    Reads the whole state before it returns. Raises ValueError for a URL that names no store, `StoreUnavailable` where
    another process has it open, `StoreError` where it can't be read.
    """
    parts = urlsplit(url)
    make = SCHEMES.get(parts.scheme)
    if make is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"no store for {url!r}; known are {known}")
    return make(parts)
