"""Usage by the day, in a database of its own (`usage.db`): sums that only grow, and how far their sources have been read.

What a source has counted and how far that is are written in one transaction, so nothing is added twice and nothing that was read is
lost, whoever restarts. Days are UTC. It blocks: call it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from core.clock import timestamp
from core.errors import FaasliteError

__all__ = ["Amounts", "Ledger", "LedgerTaken", "Row", "day_of"]

KEPT = 400
"""Days that usage is kept for."""
VERSION = 1

_TABLES = """
CREATE TABLE usage (
    day       TEXT NOT NULL,
    namespace TEXT NOT NULL,
    function  TEXT NOT NULL,
    what      TEXT NOT NULL,
    amount    REAL NOT NULL,
    PRIMARY KEY (day, namespace, function, what)
) WITHOUT ROWID;
CREATE TABLE sources (
    source TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  REAL NOT NULL,
    PRIMARY KEY (source, key)
) WITHOUT ROWID;
"""
_ADD = "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"

Amounts = Mapping[tuple[str, str, str], float]
"""By (namespace, function, what)."""


class LedgerTaken(FaasliteError):
    """Another process keeps it."""


class Row(NamedTuple):
    day: str
    namespace: str
    function: str
    what: str
    amount: float


def day_of(now: float) -> str:
    return timestamp(now)[:10]


class Ledger:
    """Opened for one process, by a lock beside the file. Raises `LedgerTaken`, OSError, sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise LedgerTaken(f"another process keeps {path}") from error
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            os.chmod(path, 0o600)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise RuntimeError(f"usage.db is of version {version}, this release reads versions up to {VERSION}")
            if not version:
                self._connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            os.close(self._lock)
            raise
        self._turn = threading.Lock()

    def close(self) -> None:
        with self._turn:
            self._connection.close()
            os.close(self._lock)

    def read(self, source: str) -> dict[str, float]:
        """How far a source was read."""
        with self._turn:
            return dict(
                self._connection.execute("SELECT key, value FROM sources WHERE source = ?", (source,)).fetchall()
            )

    def sources(self) -> list[str]:
        with self._turn:
            return [each for (each,) in self._connection.execute("SELECT DISTINCT source FROM sources").fetchall()]

    def add(self, day: str, amounts: Amounts, sources: Mapping[str, Mapping[str, float]]) -> None:
        """Add these, and note how far these sources were read: in place of what was noted of them. All or nothing."""
        rows = [(day, *key, amount) for key, amount in amounts.items() if amount]
        marks = [(source, key, value) for source, values in sources.items() for key, value in values.items()]
        with self._turn, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_ADD, rows)
            self._connection.executemany("DELETE FROM sources WHERE source = ?", [(each,) for each in sources])
            self._connection.executemany("INSERT INTO sources VALUES (?, ?, ?)", marks)

    def rows(self, since: str, namespace: str = "") -> list[Row]:
        """From the day `since` on; "" is every namespace."""
        sql = "SELECT * FROM usage WHERE day >= ? AND (? = '' OR namespace = ?) ORDER BY day, namespace, function, what"
        with self._turn:
            return [Row(*each) for each in self._connection.execute(sql, (since, namespace, namespace)).fetchall()]

    def forget(self, before: str, sources: Iterable[str] = ()) -> None:
        """What was before that day, and sources that are gone."""
        with self._turn, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM usage WHERE day < ?", (before,))
            self._connection.executemany("DELETE FROM sources WHERE source = ?", [(each,) for each in sources])
