"""The tables of `calls.db`, and how a row becomes a record."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

import msgspec

from core.keyring import KeyRingError, Sealer
from gateway.jobs.calls.base import (
    DEAD_LETTER,
    FAILED,
    CallRecord,
    Claimed,
    End,
    Options,
    Outcome,
    Request,
    Try,
)

__all__ = [
    "CLAIM_COLUMNS", "RECORD_COLUMNS", "VERSION", "claimed", "create", "options_of", "pack", "pack_options", "pack_request", "pack_tries", "record", "reseal", "seal_all", "tries_of", "unpack", "unpack_request", "unreadable", "with_requests",
]  # fmt: skip

log = logging.getLogger(__name__)

VERSION = 3
"""The third version has requests encrypted, see `seal_all`."""

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

_RESEALED = 500
"""Calls that are looked at in one transaction."""

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
unpack = msgspec.msgpack.Decoder().decode
_decode_options = msgspec.msgpack.Decoder(Options).decode
_decode_tries = msgspec.msgpack.Decoder(tuple[Try, ...]).decode
_NO_OPTIONS = Options()
_NO_REQUEST = Request()

RECORD_COLUMNS = (
    "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, started_at, finished_at, status, attempts, "
    "http_status, result, error, iif(status = 'Queued', due, NULL), options, tries, callback"
)
CLAIM_COLUMNS = "id, namespace, function, trigger_, cron, scheduled_at, accepted_at, attempts, refusals, retries, max_age, fence, request, spent, since, options, tries"


def create(connection: sqlite3.Connection, sealer: Sealer) -> None:
    """Make the tables, or bring those of an earlier release up to date; RuntimeError where a later release made them."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    empty = not version
    if version > VERSION:
        raise RuntimeError(f"calls.db is of version {version}, this release reads versions up to {VERSION}")
    for step in (_TABLES, _SECOND)[version:]:
        version += 1
        connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {version}; COMMIT;")
    if version < 3 and not empty:
        seal_all(connection, sealer)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def seal_all(connection: sqlite3.Connection, sealer: Sealer) -> None:
    """Encrypt the requests that an earlier release wrote in clear, and leave no page that still has them."""
    last: int | None = 0
    while last is not None:
        connection.execute("BEGIN IMMEDIATE")
        last, _ = reseal(connection, sealer, last)
        connection.execute("COMMIT")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def reseal(connection: sqlite3.Connection, sealer: Sealer, after: int) -> tuple[int | None, int]:
    """Encrypt some requests again that the primary key hasn't encrypted, of the calls that follow number `after`: the number of the last one that
    was looked at (None: there are no more), and how many were written. One that can't be read stays as it is."""
    rows = connection.execute(
        "SELECT seq, id, request FROM calls WHERE seq > ? ORDER BY seq LIMIT ?", (after, _RESEALED)
    ).fetchall()
    changed = []
    for seq, call, request in rows:
        if not sealer.current(request):
            try:
                changed.append((sealer.seal(sealer.open(request, call), call), seq))
            except KeyRingError as error:
                log.warning("%s", error)
    connection.executemany("UPDATE calls SET request = ? WHERE seq = ?", changed)
    return rows[-1][0] if rows else None, len(changed)


def pack(value: object) -> bytes | None:
    return None if value is None else _encode(value)


def pack_request(request: Request, call: str, sealer: Sealer) -> bytes:
    """Headers and body may hold what nobody else is to read."""
    return sealer.seal(_encode(request), call)


def unpack_request(packed: bytes, call: str, sealer: Sealer) -> Request:
    """Raises `KeyRingError`."""
    return _decode_request(sealer.open(packed, call))


def unreadable(call: Claimed, error: KeyRingError, now: float) -> End:
    """The end of a call whose request can't be decrypted: nobody can make it."""
    status = DEAD_LETTER if call.options.dead_letter else FAILED
    return End(call.id, call.fence, Outcome(status, 0, None, f"its request can't be read: {error}"), now, call.tries)


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


def claimed(row: tuple[object, ...]) -> tuple[Claimed, bytes]:
    """From a row of `CLAIM_COLUMNS`: the call without its request, and that as it is kept."""
    values = dict(zip(Claimed.__struct_fields__, row, strict=True))
    packed = values["request"]
    assert isinstance(packed, bytes)
    values["request"] = _NO_REQUEST
    values["since"] = values["since"] or values["accepted_at"]
    values["options"] = options_of(values["options"])
    values["tries"] = tries_of(values["tries"])
    return Claimed(**values), packed  # type: ignore[arg-type]


def with_requests(
    found: Sequence[tuple[Claimed, bytes]], sealer: Sealer, now: float
) -> tuple[list[Claimed], list[End]]:
    """The calls with their requests, and the ends of those whose request can't be read."""
    taken: list[Claimed] = []
    lost: list[End] = []
    for call, packed in found:
        try:
            taken.append(msgspec.structs.replace(call, request=unpack_request(packed, call.id, sealer)))
        except KeyRingError as error:
            lost.append(unreadable(call, error, now))
    return taken, lost
