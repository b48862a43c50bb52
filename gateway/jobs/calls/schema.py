"""The tables of `calls.db`, and how a row becomes a record."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from gateway.jobs.calls.base import CallRecord, Claimed, Options, Request, Try

__all__ = [
    "CLAIM_COLUMNS", "RECORD_COLUMNS", "VERSION", "claimed", "create", "options_of", "pack", "pack_options", "pack_tries", "record", "tries_of", "unpack", "unpack_request",
]  # fmt: skip

VERSION = 2

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

# The second version. `spent` and `since` are those of `Claimed` (`since` 0: `accepted_at`). `callback_due` is null where no callback is
# (any longer) to be made, and looked at once the call has ended.
_SECOND = """
ALTER TABLE calls ADD COLUMN dead_letter INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN options BLOB;
ALTER TABLE calls ADD COLUMN tries BLOB;
ALTER TABLE calls ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN since REAL NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN callback_due REAL;
ALTER TABLE calls ADD COLUMN callback_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN callback TEXT NOT NULL DEFAULT '';
CREATE INDEX dead ON calls (namespace, function, seq) WHERE status = 'DeadLetter';
CREATE INDEX callbacks ON calls (callback_due) WHERE callback_due IS NOT NULL AND finished_at IS NOT NULL;
CREATE TABLE keys (
    namespace   TEXT NOT NULL,
    function    TEXT NOT NULL,
    key         TEXT NOT NULL,
    call        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    until       REAL NOT NULL,
    PRIMARY KEY (namespace, function, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_end ON keys (until);
"""

_encode = msgspec.msgpack.Encoder().encode
unpack_request = msgspec.msgpack.Decoder(Request).decode
unpack = msgspec.msgpack.Decoder().decode
_decode_options = msgspec.msgpack.Decoder(Options).decode
_decode_tries = msgspec.msgpack.Decoder(tuple[Try, ...]).decode
_NO_OPTIONS = Options()

RECORD_COLUMNS = (
    "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, started_at, finished_at, status, attempts, "
    "http_status, result, error, iif(status = 'Queued', due, NULL), options, tries, callback"
)
CLAIM_COLUMNS = "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, attempts, refusals, retries, max_age, fence, request, spent, since, options, tries"


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an earlier release up to date; RuntimeError where a later release made them."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise RuntimeError(f"calls.db is of version {version}, this release reads versions up to {VERSION}")
    for step in (_TABLES, _SECOND)[version:]:
        version += 1
        connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {version}; COMMIT;")


def pack(value: object) -> bytes | None:
    return None if value is None else _encode(value)


def pack_options(options: Options) -> bytes | None:
    return None if options == _NO_OPTIONS else _encode(options)


def pack_tries(tries: Sequence[Try]) -> bytes | None:
    return _encode(tries) if tries else None


def options_of(packed: object) -> Options:
    return _decode_options(packed) if isinstance(packed, bytes) else _NO_OPTIONS


def tries_of(packed: object) -> tuple[Try, ...]:
    return _decode_tries(packed) if isinstance(packed, bytes) else ()


def record(row: tuple[object, ...]) -> CallRecord:
    """From a row of `RECORD_COLUMNS`."""
    values = dict(zip(CallRecord.__struct_fields__, row, strict=True))
    values["scheduled_at"] = values["scheduled_at"] or None
    result = values["result"]
    values["result"] = unpack(result) if isinstance(result, bytes) else None
    options = values["options"] = options_of(values["options"])
    values["tries"] = tries_of(values["tries"])
    if not values["callback"] and options.callback:
        values["callback"] = "Pending"
    return CallRecord(**values)  # type: ignore[arg-type]


def claimed(row: tuple[object, ...]) -> Claimed:
    """From a row of `CLAIM_COLUMNS`."""
    values = dict(zip(Claimed.__struct_fields__, row, strict=True))
    packed = values["request"]
    assert isinstance(packed, bytes)
    values["request"] = unpack_request(packed)
    values["since"] = values["since"] or values["accepted_at"]
    values["options"] = options_of(values["options"])
    values["tries"] = tries_of(values["tries"])
    return Claimed(**values)  # type: ignore[arg-type]
