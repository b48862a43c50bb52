"""The revision log in a SQLite file: one row per write, appended; superseded rows go when the log is compacted.

Blocking calls, made by one thread at a time (the opener's, then the writer's). A row says which revision it superseded,
so that neither loading nor compacting needs an index over keys: the live rows are the values that no row superseded.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from core.store.base import Entry, Event, StoreError, StoreUnavailable
from core.store.state import FIRST_REVISION

__all__ = ["Loaded", "SqliteLog"]

_APPLICATION_ID = 0x66616173
_VERSION = 1
_SCHEMA = """
CREATE TABLE log (revision INTEGER PRIMARY KEY, previous INTEGER NOT NULL, created INTEGER NOT NULL,
                  key TEXT NOT NULL, value BLOB);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_ROWS = 64
_WINDOW = 2000
_REPLAY = 10_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a log held when it was opened. `events` are those above `floor`, `floor` the oldest revision to tell from."""

    revision: int
    floor: int
    entries: list[Entry]
    events: list[Event]


class SqliteLog:
    """Opens `path`, or makes it. `reserve` is how many revisions are set aside at a time.

    Raises `StoreUnavailable` where another process has it open, `StoreError` where the file can't be used.

    No revision is handed out above `reserved`, which is durable. After a crash the store goes on above it, so that a
    revision which was handed out and lost is never another write's.
    """

    def __init__(self, path: Path, *, reserve: int = 100_000) -> None:
        self.path = path
        self._reserve = reserve
        self._lock = _lock(path)
        try:
            self._db = _connect(path)
            try:
                self.floor = self._meta("floor", 0)
                self.reserved = 0
            except BaseException:
                self._db.close()
                raise
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, (sqlite3.Error, OSError)):
                raise StoreError(f"{path} can't be used as a store: {error}") from error
            raise

    def load(self) -> Loaded:
        """Read what is live and the end of the log, and set revisions aside."""
        try:
            return self._load()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} can't be read: {error}") from error

    def commit(self, events: Sequence[Event]) -> None:
        """Append the events and return when they are on the disk. Raises sqlite3.Error: none of them may be there then."""
        last = events[-1].revision
        reserved = last + self._reserve if last > self.reserved - self._reserve // 2 else self.reserved
        # Each call into SQLite costs the interpreter's lock twice, for which a busy event loop lets us wait: so rows go in by
        # the dozen, and where one statement does for all of them it is a transaction by itself.
        if len(events) <= _ROWS and reserved == self.reserved:
            self._db.execute(_INSERT[len(events)], tuple(chain.from_iterable(_row(event) for event in events)))
            return
        with _transaction(self._db):
            for at in range(0, len(events), _ROWS):
                rows = [_row(event) for event in events[at : at + _ROWS]]
                self._db.execute(_INSERT[len(rows)], tuple(chain.from_iterable(rows)))
            if reserved != self.reserved:
                self._set_meta("reserved", reserved)
        self.reserved = reserved

    def forget(self, upto: int) -> bool:
        """Delete rows superseded up to that revision, a bounded number of them; whether some are left to delete."""
        if upto <= self.floor:
            return False
        found = self._db.execute(
            "SELECT revision FROM log WHERE revision > ? ORDER BY revision LIMIT 1 OFFSET ?", (self.floor, _WINDOW)
        ).fetchone()
        stop = min(found[0], upto) if found is not None else upto
        with _transaction(self._db):
            window = (self.floor, stop)
            self._db.execute(
                "DELETE FROM log WHERE revision IN"
                " (SELECT previous FROM log WHERE revision > ? AND revision <= ? AND previous > 0)",
                window,
            )
            self._db.execute("DELETE FROM log WHERE revision > ? AND revision <= ? AND value IS NULL", window)
            self._set_meta("floor", stop)
        self.floor = stop
        return stop < upto

    def close(self, revision: int | None) -> None:
        """Release the file. `revision` is the last one handed out where all are durable, None after a failure."""
        try:
            if revision is not None:
                with _transaction(self._db):
                    self._set_meta("reserved", revision)
                    self._set_meta("clean", 1)
        finally:
            self._db.close()
            os.close(self._lock)

    def _load(self) -> Loaded:
        reserved = self._meta("reserved", FIRST_REVISION)
        revision = reserved if self._meta("clean", 1) else reserved + 1
        oldest = self._db.execute(
            "SELECT revision FROM log WHERE revision > ? ORDER BY revision DESC LIMIT 1 OFFSET ?", (self.floor, _REPLAY)
        ).fetchone()
        floor = oldest[0] if oldest is not None else self.floor
        entries = [
            Entry(key, value, at, created)
            for key, value, at, created in self._db.execute(
                "SELECT key, value, revision, created FROM log"
                " WHERE value IS NOT NULL AND revision NOT IN (SELECT previous FROM log)"
            )
        ]
        # A value is in an event, in the event after it as what was before, and perhaps live: it is kept once.
        values: dict[int, bytes | None] = {entry.revision: entry.value for entry in entries}
        events = []
        for key, value, at, created, previous, was in self._db.execute(
            "SELECT new.key, new.value, new.revision, new.created, new.previous, old.value"
            " FROM log AS new LEFT JOIN log AS old ON old.revision = new.previous"
            " WHERE new.revision > ? ORDER BY new.revision",
            (floor,),
        ):
            before = Entry(key, values.setdefault(previous, was) or b"", previous, created) if previous else None
            events.append(Event(key, values.setdefault(at, value), at, before))
        with _transaction(self._db):
            self._set_meta("reserved", revision + self._reserve)
            self._set_meta("clean", 0)
        self.reserved = revision + self._reserve
        return Loaded(revision, floor, entries, events)

    def _meta(self, name: str, default: int) -> int:
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found is not None else default

    def _set_meta(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


_INSERT = ["INSERT INTO log VALUES " + ",".join(["(?,?,?,?,?)"] * rows) for rows in range(_ROWS + 1)]  # noqa: S608 - no input


def _row(event: Event) -> tuple[int, int, int, str, bytes | None]:
    previous = event.previous
    if previous is None:
        return event.revision, 0, event.revision, event.key, event.value
    return event.revision, previous.revision, previous.created, event.key, event.value


class _transaction:
    """BEGIN ... COMMIT, and ROLLBACK where that fails. (A context manager of sqlite3's own would begin lazily.)"""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors; the error that led here is the one to tell.
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")


def _lock(path: Path) -> int:
    """Hold `path.lock` for as long as this process has the store open: the system drops the lock of a process that dies."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} can't be used as a store: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StoreUnavailable(f"{path} is open already, in process {holder}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=_ROWS + 64)
    try:
        # Nobody else may open the file (see `_lock`), so that SQLite needs no shared memory for its index of the WAL.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check_identity(db, path)
        with closing(db.execute("PRAGMA journal_mode = WAL")) as answer:
            if answer.fetchone()[0] != "wal":
                raise StoreError(f"{path} can't be used as a store: its file system has no write-ahead logging")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            with _transaction(db):
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _check_identity(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    application = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        raise StoreError(f"{path} is a database of something else")
    if version > _VERSION:
        raise StoreError(f"{path} was written by a newer version (format {version}, this one knows {_VERSION})")
