"""The tables of `calls.db`, and how a row becomes a record."""

from __future__ import annotations

import sqlite3

import msgspec

from gateway.jobs.calls.base import CallRecord, Claimed, Request

__all__ = ["CLAIM_COLUMNS", "RECORD_COLUMNS", "VERSION", "claimed", "create", "pack", "record"]

VERSION = 1

_TABLES = """
CREATE TABLE calls (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    namespace    TEXT NOT NULL,
    function     TEXT NOT NULL,
    trigger_     TEXT NOT NULL,
    cron         TEXT NOT NULL,
    overlap      TEXT NOT NULL,
    scheduled_at REAL NOT NULL,
    accepted_at  REAL NOT NULL,
    started_at   REAL,
    finished_at  REAL,
    status       TEXT NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    refusals     INTEGER NOT NULL DEFAULT 0,
    retries      INTEGER NOT NULL,
    max_age      REAL NOT NULL,
    http_status  INTEGER,
    result       BLOB,
    error        TEXT NOT NULL DEFAULT '',
    due          REAL NOT NULL,
    owner        TEXT NOT NULL DEFAULT '',
    lease_until  REAL NOT NULL DEFAULT 0,
    fence        INTEGER NOT NULL DEFAULT 0,
    request      BLOB NOT NULL
);
CREATE UNIQUE INDEX cron_instants ON calls (namespace, function, cron, scheduled_at) WHERE cron <> '';
CREATE INDEX waiting ON calls (namespace, function, due) WHERE status = 'Queued';
CREATE INDEX due ON calls (due) WHERE status = 'Queued';
CREATE INDEX leased ON calls (lease_until) WHERE status = 'Running';
CREATE INDEX unfinished_cron ON calls (namespace, function, cron, seq) WHERE cron <> '' AND finished_at IS NULL;
CREATE INDEX finished ON calls (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX history ON calls (namespace, function, seq);
CREATE TABLE cron_marks (
    namespace   TEXT NOT NULL,
    function    TEXT NOT NULL,
    cron        TEXT NOT NULL,
    uid         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    through     REAL NOT NULL,
    PRIMARY KEY (namespace, function, cron)
) WITHOUT ROWID;
"""

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode = msgspec.msgpack.Decoder().decode

RECORD_COLUMNS = (
    "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, started_at, finished_at, status, attempts, "
    "http_status, result, error"
)
CLAIM_COLUMNS = "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, attempts, refusals, retries, max_age, fence, request"


def create(connection: sqlite3.Connection) -> None:
    """Make the tables where the database is new; RuntimeError where a later release made them."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise RuntimeError(f"calls.db is of version {version}, this release reads version {VERSION}")


def pack(value: object) -> bytes | None:
    return None if value is None else _encode(value)


def record(row: tuple[object, ...]) -> CallRecord:
    """From a row of `RECORD_COLUMNS`."""
    values = dict(zip(CallRecord.__struct_fields__, row, strict=True))
    values["scheduled_at"] = values["scheduled_at"] or None
    result = values["result"]
    values["result"] = _decode(result) if isinstance(result, bytes) else None
    return CallRecord(**values)  # type: ignore[arg-type]


def claimed(row: tuple[object, ...]) -> Claimed:
    """From a row of `CLAIM_COLUMNS`."""
    values = dict(zip(Claimed.__struct_fields__, row, strict=True))
    packed = values["request"]
    assert isinstance(packed, bytes)
    values["request"] = _decode_request(packed)
    return Claimed(**values)  # type: ignore[arg-type]
