"""Claiming from the embedded queue: which calls are next, so that no function's backlog stands before another's calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from gateway.jobs.calls import schema
from gateway.jobs.calls.base import Claimed
from gateway.jobs.calls.fair import FunctionKey, Weights, divide, interleave

__all__ = ["LOST", "abandon", "claim"]

LOST = "the process that ran it was lost"

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
SELECT seq, max_age > 0 AND max(accepted_at, since) + max_age < ? FROM calls AS c WHERE status = 'Queued' AND namespace = ? AND function = ? AND due <= ?
AND (overlap <> 'Queue' OR cron = '' OR NOT EXISTS (
    SELECT 1 FROM calls AS e WHERE e.namespace = c.namespace AND e.function = c.function AND e.cron = c.cron AND e.cron <> ''
    AND e.finished_at IS NULL AND e.seq < c.seq))
ORDER BY due LIMIT ?
"""

_EXPIRE = """
UPDATE calls SET status = iif(dead_letter, 'DeadLetter', 'Expired'), finished_at = ?1,
error = 'could not be run within its maxAge' || iif(error = '', '', ', last: ' || error)
WHERE status = 'Queued' AND namespace = ?2 AND function = ?3 AND due <= ?1 AND max_age > 0 AND max(accepted_at, since) + max_age < ?1
RETURNING id
"""

_TAKE = f"""
UPDATE calls SET status = 'Running', owner = ?, lease_until = ?, fence = fence + 1, attempts = attempts + 1,
started_at = coalesce(started_at, ?) WHERE seq = ? RETURNING {schema.CLAIM_COLUMNS}
"""  # noqa: S608 - constants


def abandon(connection: sqlite3.Connection) -> None:
    """Every running call may be claimed again: its owner is known to be dead."""
    connection.execute("UPDATE calls SET status = 'Queued', error = ? WHERE status = 'Running'", (LOST,))


def claim(
    connection: sqlite3.Connection,
    owner: str,
    now: float,
    lease: float,
    limit: int,
    busy: Mapping[FunctionKey, int],
    per_function: int,
    weights: Weights,
) -> tuple[list[tuple[Claimed, bytes]], list[str]]:
    """See `Calls.claim`: calls and their requests as they are kept; and the calls that ended by it, being too old."""
    connection.execute(
        "UPDATE calls SET status = 'Queued', due = ?, error = ? WHERE status = 'Running' AND lease_until <= ?",
        (now, LOST, now),
    )
    found: dict[FunctionKey, list[int]] = {}
    ended: list[str] = []
    for namespace, function in connection.execute(_FUNCTIONS).fetchall():
        room = min(limit, per_function - busy.get((namespace, function), 0)) if per_function else limit
        if room <= 0:
            continue
        rows = connection.execute(_DUE, (now, namespace, function, now, room)).fetchall()
        if any(old for _, old in rows):
            ended += _expire(connection, namespace, function, now)
            rows = connection.execute(_DUE, (now, namespace, function, now, room)).fetchall()
        if rows:
            found[namespace, function] = [seq for seq, _ in rows]
    shares = divide({key: len(rows) for key, rows in found.items()}, busy, limit, per_function, weights)
    values = (owner, now + lease, now)
    taken = [
        schema.claimed(connection.execute(_TAKE, (*values, seq)).fetchone())
        for seq in interleave(found[key][:count] for key, count in shares.items())
    ]
    return taken, ended


def _expire(connection: sqlite3.Connection, namespace: str, function: str, now: float) -> list[str]:
    """The calls of a function that are due and older than they may be."""
    return [each for (each,) in connection.execute(_EXPIRE, (now, namespace, function)).fetchall()]
