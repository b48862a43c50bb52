"""The embedded queue of calls: one SQLite database (WAL, fully synchronised), one writer, exactly one process.

A lock on `calls.db.lock` keeps a second process out, whatever the cluster's Lease says. It is a file of its own because SQLite
holds POSIX locks on the database, which closing any other descriptor of it would drop. As the lock proves that no
other owner lives, `open` takes the leases of a process that died and doesn't wait for them to lapse.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import math
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.keyring import KeyRing, KeyRingError, Sealer
from gateway.jobs.calls import claims, schema
from gateway.jobs.calls.base import (
    CANCELED,
    KEY_KEPT,
    KEYS,
    QUEUED,
    RUNNING,
    SEALED,
    SKIPPED,
    Callback,
    CallRecord,
    CallsClosed,
    CallsUnavailable,
    Claimed,
    ClaimNow,
    CronKey,
    End,
    Inserted,
    KeyReused,
    LeaseLost,
    Listener,
    Mark,
    NewCall,
    Outcome,
    Redrive,
    Request,
    Try,
)
from gateway.jobs.calls.fair import EQUAL, Weights
from gateway.jobs.calls.writer import Writer

__all__ = ["SqliteCalls"]

T = TypeVar("T")

# One seek per trigger that has a mark, whatever the length of its history.
_LATEST_CRON = f"""
SELECT {schema.RECORD_COLUMNS.replace("result", "NULL")} FROM calls WHERE seq IN (
    SELECT (SELECT seq FROM calls AS c WHERE c.namespace = m.namespace AND c.function = m.function AND c.cron = m.cron
            AND c.cron <> '' AND c.scheduled_at <= ? ORDER BY scheduled_at DESC LIMIT 1) FROM cron_marks AS m)
"""  # noqa: S608 - constants

_INSERT = (
    "INSERT INTO calls (id, namespace, function, trigger_, cron, overlap, scheduled_at, accepted_at, finished_at, status, retries, max_age, "
    "error, due, request, dead_letter, options, callback_due, owner, lease_until, fence, attempts, started_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_CALLBACKS = f"""
UPDATE calls SET callback_due = ?, callback_tries = callback_tries + 1 WHERE seq IN (
    SELECT seq FROM calls WHERE callback_due IS NOT NULL AND finished_at IS NOT NULL AND callback_due <= ? ORDER BY callback_due LIMIT ?)
RETURNING {schema.RECORD_COLUMNS}, callback_tries
"""  # noqa: S608 - constants
_EARLIER = "SELECT id, status FROM calls WHERE namespace = ? AND function = ? AND cron = ? AND cron <> '' AND finished_at IS NULL ORDER BY seq"
# A mark of the same trigger moves forward only.
_MARK = (
    "INSERT INTO cron_marks VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET uid = excluded.uid, fingerprint = excluded.fingerprint, "
    "through = excluded.through WHERE uid <> excluded.uid OR fingerprint <> excluded.fingerprint OR through < excluded.through"
)


_FINISH = (
    "UPDATE calls SET status = ?, http_status = ?, result = ?, error = ?, finished_at = ?, owner = '', tries = coalesce(?, tries), "
    "started_at = coalesce(?, started_at) WHERE id = ? AND fence = ? AND status = 'Running'"
)


class SqliteCalls:
    """`Calls` over a file. Made by `open`."""

    def __init__(self, writer: Writer, reader: sqlite3.Connection, lock: int, sealer: Sealer) -> None:
        self._writer = writer
        self._sealer = sealer
        self._reader = reader
        self._lock = lock
        self._threads = ThreadPoolExecutor(1, "calls-reader")
        self._listeners: list[Listener] = []
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> SqliteCalls:
        """Raises `CallsUnavailable` where another process has it open, `KeyRingError` where the keys beside it (`calls.keys`) can't be used."""
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise CallsUnavailable(f"another jobs process has {path} open") from error
        try:
            sealer = Sealer(KeyRing.load(path.with_name(KEYS)), SEALED)
            connection = await asyncio.to_thread(_connect, path, sealer)
            reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            reader.execute("PRAGMA query_only = ON")
        except BaseException:
            os.close(lock)
            raise
        calls = cls(Writer(connection), reader, lock, sealer)
        await calls._writer.run(claims.abandon, slow=True)
        return calls

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._threads.shutdown)
        self._reader.close()
        os.close(self._lock)

    # Writing

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _tell(self, kind: str, *calls: str) -> None:
        for listener in self._listeners:
            for each in calls:
                listener(kind, each)

    async def insert(
        self, calls: Sequence[NewCall], marks: Mapping[CronKey, Mark] | None = None, claim: ClaimNow | None = None
    ) -> list[Inserted]:
        packed = [(each, schema.pack_request(each.request, each.id, self._sealer)) for each in calls]
        moved = [(*key, *mark) for key, mark in (marks or {}).items()]

        def operation(connection: sqlite3.Connection) -> list[Inserted]:
            found = [_insert(connection, call, request, claim) for call, request in packed]
            if moved:
                connection.executemany(_MARK, moved)
            return found

        found = await self._writer.run(operation)
        self._tell("ended", *(each for answer in found for each in answer.canceled))
        self._tell("ended", *(each.id for each in found if each.status == SKIPPED))
        if any(each.status == QUEUED and not each.fence for each in found):
            self._tell("queued", "")
        return found

    async def arm(self, calls: Sequence[tuple[NewCall, CronKey, Mark]], owner: str, lease: float) -> set[str]:
        """Record cron calls before their instants, leased to `owner` until `lease` seconds after `accepted_at`, which lies ahead.

        A call that another of its trigger stands in the way of is left out, and its mark stays: it is decided on at its instant.
        Answers the ids of those that were recorded. Should their owner die, they are claimed as any others once they are due.
        """
        packed = [
            (call, schema.pack_request(call.request, call.id, self._sealer), (*key, *mark)) for call, key, mark in calls
        ]

        def operation(connection: sqlite3.Connection) -> set[str]:
            armed: set[str] = set()
            for call, request, mark in packed:
                claim = ClaimNow(owner, lease, frozenset([call.id]))
                where = (call.namespace, call.function, call.cron)
                if call.overlap != "Allow" and connection.execute(_EARLIER, where).fetchone():
                    continue
                if _write(connection, call, request, QUEUED, "", claim).fence:
                    connection.execute(_MARK, mark)
                    armed.add(call.id)
            return armed

        return await self._writer.run(operation)

    async def forget(self, keys: Sequence[CronKey]) -> None:
        sql = "DELETE FROM cron_marks WHERE namespace = ? AND function = ? AND cron = ?"
        await self._writer.run(lambda connection: connection.executemany(sql, keys) and None)

    async def claim(
        self,
        owner: str,
        now: float,
        lease: float,
        limit: int,
        busy: Mapping[tuple[str, str], int] | None = None,
        per_function: int = 0,
        weights: Weights = EQUAL,
    ) -> list[Claimed]:
        held = dict(busy or {})
        taken, ended = await self._writer.run(
            lambda connection: claims.claim(connection, owner, now, lease, limit, held, per_function, weights)
        )
        self._tell("ended", *ended)
        claimed, lost = schema.with_requests(taken, self._sealer, now)
        if lost:
            await self.finish_all(lost)
        return claimed

    async def renew(self, held: Mapping[str, int], now: float, lease: float) -> set[str]:
        leases = dict(held)
        sql = "UPDATE calls SET lease_until = ? WHERE id = ? AND fence = ? AND status = 'Running'"

        def operation(connection: sqlite3.Connection) -> set[str]:
            return {
                each
                for each, fence in leases.items()
                if not connection.execute(sql, (now + lease, each, fence)).rowcount
            }

        return await self._writer.run(operation)

    async def finish(self, call: str, fence: int, outcome: Outcome, now: float, tries: Sequence[Try] = ()) -> None:
        if not (await self.finish_all([End(call, fence, outcome, now, tries)]))[0]:
            raise _lost(call)

    async def finish_all(self, ends: Sequence[End]) -> list[bool]:
        values = [
            (each.outcome.status, each.outcome.http_status or None, schema.pack(each.outcome.result), each.outcome.error, each.at,
             schema.pack_tries(each.tries), (each.tries[0].began or None) if each.tries else None, each.call, each.fence)
            for each in ends
        ]  # fmt: skip
        held = await self._writer.run(
            lambda connection: [connection.execute(_FINISH, row).rowcount > 0 for row in values]
        )
        self._tell("ended", *(each.call for each, was in zip(ends, held, strict=True) if was))
        return held

    async def again(
        self,
        call: str,
        fence: int,
        due: float,
        error: str,
        *,
        http_status: int = 0,
        executed: bool = True,
        tries: Sequence[Try] = (),
    ) -> None:
        sql = (
            "UPDATE calls SET status = 'Queued', due = ?, error = ?, http_status = ?, owner = '', tries = coalesce(?, tries), "
            "attempts = attempts - ?, refusals = refusals + ? WHERE id = ? AND fence = ? AND status = 'Running'"
        )
        refused = 0 if executed else 1
        values = (due, error, http_status or None, schema.pack_tries(tries), refused, refused, call, fence)
        await self._writer.run(lambda connection: _held(connection.execute(sql, values), call), single=True)

    async def cancel(self, call: str, reason: str, now: float) -> bool:
        sql = "UPDATE calls SET status = ?, error = ?, finished_at = ? WHERE id = ? AND finished_at IS NULL"
        values = (CANCELED, reason, now, call)
        canceled = await self._writer.run(lambda connection: connection.execute(sql, values).rowcount > 0)
        if canceled:
            self._tell("ended", call)
        return canceled

    async def redrive(self, which: Redrive, now: float, limit: int = 1000) -> list[str]:
        change = (
            "UPDATE calls SET status = 'Queued', finished_at = NULL, due = ?, since = ?, spent = attempts, result = NULL, callback_tries = 0, "
            "callback = '', callback_due = iif(callback = '', NULL, -1), refusals = 0 WHERE status = 'DeadLetter' AND "
        )
        if which.calls:
            filters: list[tuple[str, tuple[str, ...]]] = [("id = ?", (each,)) for each in which.calls[:limit]]
        else:
            chosen = [
                (f"{name} = ?", value)
                for name, value in (("namespace", which.namespace), ("function", which.function))
                if value
            ]
            where = " AND ".join(["status = 'DeadLetter'", *(term for term, _ in chosen)])
            rows = f"seq IN (SELECT seq FROM calls WHERE {where} ORDER BY seq LIMIT ?)"  # noqa: S608 - constants
            filters = [(rows, (*(value for _, value in chosen), str(limit)))]

        def operation(connection: sqlite3.Connection) -> list[str]:
            found: list[str] = []
            for where, values in filters:
                rows = connection.execute(f"{change}{where} RETURNING id", (now, now, *values))
                found += [each for (each,) in rows.fetchall()]
            return found

        found = await self._writer.run(operation, slow=True)
        if found:
            self._tell("queued", "")
        return found

    async def take_callbacks(self, now: float, lease: float, limit: int) -> list[Callback]:
        values = (now + lease, now, limit)
        rows = await self._writer.run(lambda connection: connection.execute(_CALLBACKS, values).fetchall())
        return [Callback(schema.record(row[:-1]), row[-1]) for row in rows]

    async def called_back(self, call: str, again: float | None, error: str = "") -> None:
        sql = "UPDATE calls SET callback_due = ?, callback = ? WHERE id = ? AND callback_due IS NOT NULL"
        text = ("Pending" if again is not None else "Failed") + f": {error}" if error else "Delivered"
        await self._writer.run(lambda connection: connection.execute(sql, (again, text, call)) and None)

    async def next_callback(self) -> float | None:
        sql = "SELECT min(callback_due) FROM calls WHERE callback_due IS NOT NULL AND finished_at IS NOT NULL"
        (found,) = await self._read(lambda connection: connection.execute(sql).fetchone())
        return found  # type: ignore[no-any-return]

    async def prune(self, before: float, limit: int = 1000) -> int:
        sql = "DELETE FROM calls WHERE seq IN (SELECT seq FROM calls WHERE finished_at IS NOT NULL AND finished_at < ? LIMIT ?)"

        def operation(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM keys WHERE until < ?", (before,))
            return connection.execute(sql, (before, limit)).rowcount

        return await self._writer.run(operation, slow=True)

    async def rekey(self, ring: KeyRing) -> int:
        self._sealer.use(ring)  # what was encrypted before is submitted before
        sealer = Sealer(ring, SEALED)  # the thread's own
        last: int | None = 0
        count = 0
        while last is not None:
            step = functools.partial(schema.reseal, sealer=sealer, after=last)
            last, more = await self._writer.run(step, slow=True)
            count += more
        return count

    # Reading

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise CallsClosed("the queue of calls was closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, operation, self._reader)
        except sqlite3.Error as error:
            raise CallsUnavailable(f"the calls database can't be read: {error}") from error

    async def marks(self) -> dict[CronKey, Mark]:
        rows = await self._read(lambda connection: connection.execute("SELECT * FROM cron_marks").fetchall())
        return {(namespace, function, cron): Mark(*rest) for namespace, function, cron, *rest in rows}

    async def next_due(self, now: float) -> float | None:
        sql = (
            "SELECT min(at) FROM (SELECT min(due) AS at FROM calls WHERE status = 'Queued' AND due > ? "
            "UNION ALL SELECT min(lease_until) FROM calls WHERE status = 'Running')"
        )
        (found,) = await self._read(lambda connection: connection.execute(sql, (now,)).fetchone())
        return None if found is None else float(found)

    async def get(self, call: str) -> CallRecord | None:
        sql = f"SELECT {schema.RECORD_COLUMNS} FROM calls WHERE id = ?"  # noqa: S608 - constants
        row = await self._read(lambda connection: connection.execute(sql, (call,)).fetchone())
        return None if row is None else schema.record(row)

    async def request(self, call: str) -> Request | None:
        sql = "SELECT request FROM calls WHERE id = ?"
        row = await self._read(lambda connection: connection.execute(sql, (call,)).fetchone())
        if row is None:
            return None
        try:
            return schema.unpack_request(row[0], call, self._sealer)
        except KeyRingError as error:
            raise CallsUnavailable(f"the request of call {call} can't be read: {error}") from error

    async def list(
        self,
        namespace: str,
        function: str = "",
        limit: int = 50,
        *,
        status: str = "",
        cron: str = "",
        trigger: str = "",
    ) -> list[CallRecord]:
        filters = (
            ("namespace", namespace), ("function", function), ("status", status), ("cron", cron), ("trigger_", trigger),
        )  # fmt: skip
        terms = [(column, value) for column, value in filters if value]
        where = " AND ".join(f"{column} = ?" for column, _ in terms) or "1"
        sql = f"SELECT {schema.RECORD_COLUMNS} FROM calls WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - constants
        values = (*(value for _, value in terms), limit)
        rows = await self._read(lambda connection: connection.execute(sql, values).fetchall())
        return [schema.record(row) for row in rows]

    async def latest_cron(self, now: float = math.inf) -> dict[CronKey, CallRecord]:
        rows = await self._read(lambda connection: connection.execute(_LATEST_CRON, (now,)).fetchall())
        return {(found.namespace, found.function, found.cron): found for found in map(schema.record, rows)}

    async def ended(self, after: float, until: float) -> dict[tuple[str, str, str, str], int]:
        sql = (
            "SELECT namespace, function, trigger_, status, count(*) FROM calls WHERE finished_at IS NOT NULL AND finished_at > ? AND finished_at <= ? "
            "GROUP BY namespace, function, trigger_, status"
        )
        rows = await self._read(lambda connection: connection.execute(sql, (after, until)).fetchall())
        return {(namespace, function, trigger, status): count for namespace, function, trigger, status, count in rows}

    async def counts(self) -> dict[str, int]:
        sql = "SELECT status, count(*) FROM calls GROUP BY status"
        return dict(await self._read(lambda connection: connection.execute(sql).fetchall()))


def _connect(path: Path, sealer: Sealer) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        schema.create(connection, sealer)
    except BaseException:
        connection.close()
        raise
    os.chmod(path, 0o600)
    return connection


def _standing(connection: sqlite3.Connection, call: NewCall) -> str | None:
    """The call that this one's idempotency key stands for; None where it is new and stands for this one now."""
    where = (call.namespace, call.function, call.options.key)
    sql = "SELECT call, fingerprint FROM keys WHERE namespace = ? AND function = ? AND key = ? AND until > ?"
    row = connection.execute(sql, (*where, call.accepted_at)).fetchone()
    if row is None:
        values = (*where, call.id, call.fingerprint, call.accepted_at + KEY_KEPT)
        connection.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)", values)
        return None
    standing, fingerprint = row
    if fingerprint != call.fingerprint:
        raise KeyReused(f'the idempotency key "{call.options.key}" was given with another request before')
    return str(standing)


def _held(cursor: sqlite3.Cursor, call: str) -> None:
    if not cursor.rowcount:
        raise _lost(call)


def _lost(call: str) -> LeaseLost:
    return LeaseLost(f"call {call} is no longer held")


def _insert(connection: sqlite3.Connection, call: NewCall, request: bytes | None, claim: ClaimNow | None) -> Inserted:
    if call.options.key and (standing := _standing(connection, call)) is not None:
        return Inserted(standing, "")
    if call.skip:
        return _write(connection, call, request, SKIPPED, call.skip)
    if not call.cron or call.overlap not in ("Skip", "Replace", "Queue"):
        return _write(connection, call, request, QUEUED, "", claim)
    earlier = connection.execute(_EARLIER, (call.namespace, call.function, call.cron)).fetchall()
    if call.overlap == "Queue":
        return _write(connection, call, request, QUEUED, "", None if earlier else claim)
    if earlier and call.overlap == "Skip":
        state = "still runs" if any(each == RUNNING for _, each in earlier) else "still waits"
        return _write(connection, call, request, SKIPPED, f"the earlier call {earlier[0][0]} {state}")
    written = _write(connection, call, request, QUEUED, "", claim)
    if not earlier or not written.status:
        return written
    connection.executemany(
        "UPDATE calls SET status = ?, error = ?, finished_at = ? WHERE id = ?",
        [(CANCELED, f"replaced by call {call.id}", call.accepted_at, each) for each, _ in earlier],
    )
    return written._replace(canceled=tuple(each for each, _ in earlier))


def _write(
    connection: sqlite3.Connection,
    call: NewCall,
    request: bytes | None,
    status: str,
    error: str,
    claim: ClaimNow | None = None,
) -> Inserted:
    """The row; an answer without a status where it is there already."""
    finished = call.accepted_at if status == SKIPPED else None
    taken = claim is not None and call.id in claim.calls
    lease = (
        (claim.owner, call.accepted_at + claim.lease, 1, 1, call.accepted_at)
        if taken and claim
        else ("", 0.0, 0, 0, None)
    )
    cursor = connection.execute(
        _INSERT,
        (call.id, call.namespace, call.function, call.trigger, call.cron, call.overlap, call.scheduled_at, call.accepted_at,
         finished, RUNNING if taken else status, call.retries, call.max_age, error, call.accepted_at, request,
         call.options.dead_letter, schema.pack_options(call.options), -1.0 if call.options.callback else None, *lease),
    )  # fmt: skip
    if not cursor.rowcount:
        return Inserted(call.id, "")
    return Inserted(call.id, status, (), int(taken))
