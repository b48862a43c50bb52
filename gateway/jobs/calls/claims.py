"""Claiming from the embedded queue: which calls are next, so that no function's backlog stands before another's calls."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Mapping

from gateway.jobs.calls import schema
from gateway.jobs.calls.base import Claimed

__all__ = ["abandon", "claim"]

# The distinct functions of the index `waiting`, by one seek each (SQLite has no skip scan for DISTINCT).
_FUNCTIONS = """
WITH RECURSIVE found (namespace, function) AS (
    SELECT * FROM (SELECT namespace, function FROM calls WHERE status = 'Queued' ORDER BY namespace, function LIMIT 1)
    UNION ALL
    SELECT next.namespace, next.function FROM found, calls AS next WHERE next.seq = (
        SELECT seq FROM calls INDEXED BY waiting WHERE status = 'Queued'
        AND (namespace, function) > (found.namespace, found.function) ORDER BY namespace, function LIMIT 1)
)
SELECT namespace, function FROM found
"""

# Of a trigger with overlap Queue only the earliest unfinished call may run.
_DUE = """
SELECT seq FROM calls AS c WHERE status = 'Queued' AND namespace = ? AND function = ? AND due <= ?
AND (overlap <> 'Queue' OR cron = '' OR NOT EXISTS (
    SELECT 1 FROM calls AS e WHERE e.namespace = c.namespace AND e.function = c.function AND e.cron = c.cron AND e.cron <> ''
    AND e.finished_at IS NULL AND e.seq < c.seq))
ORDER BY due LIMIT ?
"""

_TAKE = f"""
UPDATE calls SET status = 'Running', owner = ?, lease_until = ?, fence = fence + 1, attempts = attempts + 1,
started_at = coalesce(started_at, ?) WHERE seq = ? RETURNING {schema.CLAIM_COLUMNS}
"""  # noqa: S608 - constants


def abandon(connection: sqlite3.Connection) -> None:
    """Every running call may be claimed again: its owner is known to be dead."""
    connection.execute("UPDATE calls SET status = 'Queued', due = accepted_at WHERE status = 'Running'")


def claim(
    connection: sqlite3.Connection,
    owner: str,
    now: float,
    lease: float,
    limit: int,
    busy: Mapping[tuple[str, str], int],
    per_function: int,
) -> list[Claimed]:
    """See `Calls.claim`."""
    connection.execute(
        "UPDATE calls SET status = 'Queued', due = ? WHERE status = 'Running' AND lease_until <= ?", (now, now)
    )
    waiting: list[list[int]] = []
    for namespace, function in connection.execute(_FUNCTIONS).fetchall():
        room = min(limit, per_function - busy.get((namespace, function), 0)) if per_function else limit
        if room > 0:
            rows = connection.execute(_DUE, (namespace, function, now, room)).fetchall()
            if rows:
                waiting.append([seq for (seq,) in rows])
    # Whoever has been waiting longest goes first within a turn.
    waiting.sort(key=lambda found: found[0])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*waiting))
    chosen = itertools.islice((seq for seq in turns if seq is not None), limit)
    taken = [_take(connection, seq, owner, now, lease) for seq in chosen]
    return [each for each in taken if each is not None]


def _take(connection: sqlite3.Connection, seq: int, owner: str, now: float, lease: float) -> Claimed | None:
    expired = connection.execute(
        "UPDATE calls SET status = 'Expired', finished_at = ?1, error = 'could not be run within its maxAge' "
        "WHERE seq = ?2 AND max_age > 0 AND accepted_at + max_age < ?1",
        (now, seq),
    )
    if expired.rowcount:
        return None
    row = connection.execute(_TAKE, (owner, now + lease, now, seq)).fetchone()
    return schema.claimed(row)
