"""The protocol of call records and their queue.

**Records are exactly once**: a call is inserted under its id, a cron call also under (namespace, function, cron, instant);
inserting what is there changes nothing and says so. An answer to `insert` means that the record is durable.

**Executions are at least once**: `claim` hands a call to one owner under a lease and a *fence*, a number that grows with every claim of
that call. An owner that doesn't renew loses the call to the next claim, and from then on everything it says
about it (`renew`, `finish`, `again`) is refused, because its fence is old.

**Nobody waits behind a crowd**: what is claimed is divided among namespaces, and within each among its functions (`fair.divide`).

Times are seconds since the epoch, and `now` is always the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from core.errors import FaasliteError
from core.keyring import KeyRing
from gateway.jobs.calls.fair import EQUAL, Weights

__all__ = [
    "ASYNC",
    "CANCELED",
    "CRON",
    "DEAD_LETTER",
    "EXPIRED",
    "FAILED",
    "KEYS",
    "KEY_KEPT",
    "QUEUED",
    "RUNNING",
    "SEALED",
    "SKIPPED",
    "SUCCEEDED",
    "CallRecord",
    "Callback",
    "Calls",
    "CallsClosed",
    "CallsError",
    "CallsUnavailable",
    "ClaimNow",
    "Claimed",
    "CronKey",
    "End",
    "Inserted",
    "KeyReused",
    "KeysShared",
    "LeaseLost",
    "Listener",
    "Mark",
    "NewCall",
    "Options",
    "Outcome",
    "Redrive",
    "Request",
    "Try",
]  # fmt: skip

QUEUED = "Queued"
RUNNING = "Running"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
SKIPPED = "Skipped"
"""A cron instant that was decided on and not run; `error` says why."""
CANCELED = "Canceled"
EXPIRED = "Expired"
"""Its `max_age` passed before it could be run."""
DEAD_LETTER = "DeadLetter"
"""What would be Failed or Expired, kept for people to look at and to redrive."""

ASYNC = "async"
CRON = "cron"

CronKey = tuple[str, str, str]
"""(namespace, function, name of the cron trigger)"""

KEY_KEPT = 86400.0
"""Seconds for which an idempotency key stands for the call that it was first given with."""

KEYS = "calls.keys"
"""The file of the keys that requests are encrypted with, in the data dir."""
SEALED = "calls"
"""What they are encrypted as."""

Listener = Callable[[str, str], None]
"""Hears (`queued`, "") after an insert, (`ended`, id) after a call's end, and (`changed`, "") where it may have missed some of these."""


class CallsError(FaasliteError):
    """The root of what a queue raises."""


class CallsUnavailable(CallsError):
    """The queue can't take the call now (disk full, connection lost); it may be tried again."""


class CallsClosed(CallsError):
    """The queue was closed."""


class KeyReused(CallsError):
    """The idempotency key was given with another request before."""


class KeysShared(CallsError):
    """Other processes are at the queue, who may not have the new key."""


class LeaseLost(CallsError):
    """The call is no longer this owner's: its lease lapsed and it was claimed anew, or it was canceled."""


class Request(msgspec.Struct, frozen=True):
    """The HTTP request that a call is. `path` is below the function's name and begins with `/`; `query` has no `?`."""

    method: str = "POST"
    path: str = "/"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call has that the queue itself doesn't look at, but for `callback`.

    `callback` is the URL that gets the record after the call's end. `dead_letter` makes a call that fails or expires a DeadLetter. `revision`
    is the one to call ("" is what the traffic says), `replay_of` the call that this one repeats, `traceparent` W3C's.
    """

    callback: str = ""
    dead_letter: bool = False
    revision: str = ""
    replay_of: str = ""
    traceparent: str = ""
    key: str = ""


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One time that a call was sent. `cold_start` is the seconds that it waited for an instance (None: it didn't).

    `ended` None: the process that had sent it was lost. Not `executed`: no instance saw it.
    """

    began: float
    ended: float | None = None
    http_status: int = 0
    cold_start: float | None = None
    error: str = ""
    executed: bool = True
    owner: str = ""


class NewCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call to record. `skip` is a reason to record it as Skipped at once.

    `retries` bounds the executions that fail (`retries` + 1 in all); `max_age` is how many seconds after `accepted_at` it may
    still begin (0: no bound). `overlap` is looked at for cron calls only: Allow, Skip, Replace or Queue.
    `options.key` with `fingerprint` (of the request) stands for this call for `KEY_KEPT` seconds.
    """

    id: str
    namespace: str
    function: str
    trigger: str
    accepted_at: float
    scheduled_at: float = 0.0
    cron: str = ""
    request: Request = Request()
    retries: int = 0
    max_age: float = 0.0
    overlap: str = "Allow"
    skip: str = ""
    options: Options = Options()
    fingerprint: str = ""


class Inserted(NamedTuple):
    """`status` is what the record began with, "" where it was there already; `canceled` the calls that it replaced.

    `id` is the call's own, or that of the call which its idempotency key stands for.
    """

    id: str
    status: str
    canceled: tuple[str, ...] = ()
    fence: int = 0
    """Over 0 where it was claimed as it was inserted."""


class ClaimNow(NamedTuple):
    """Claim these calls for `owner` as they are inserted, where nothing goes before them; a queue may leave that to `claim`."""

    owner: str
    lease: float
    calls: frozenset[str]


class CallRecord(msgspec.Struct, kw_only=True):
    """What is told of a call. Absent times are None; `result` is `{contentType, encoding, body, truncated}`."""

    id: str
    namespace: str
    function: str
    trigger: str
    cron: str
    scheduled_at: float | None
    accepted_at: float
    started_at: float | None
    finished_at: float | None
    status: str
    attempts: int
    http_status: int | None
    result: Any
    error: str
    due: float | None = None
    """When it runs (again), while it is Queued."""
    options: Options = Options()
    tries: tuple[Try, ...] = ()
    """The latest of them, oldest first."""
    callback: str = ""
    """"", Pending, Delivered, or why it was given up."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A call to execute now. `attempts` counts this one; `refusals` are the times that the gateway had no instance for it."""

    id: str
    namespace: str
    function: str
    trigger: str
    cron: str
    scheduled_at: float
    accepted_at: float
    attempts: int
    refusals: int
    retries: int
    max_age: float
    fence: int
    request: Request
    spent: int = 0
    """Attempts before the call was redriven: its retries begin anew after them."""
    since: float = 0.0
    """From when `max_age` counts: when it was accepted, or redriven."""
    options: Options = Options()
    tries: tuple[Try, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """How an execution ended. `http_status` 0 where there was no answer."""

    status: str
    http_status: int = 0
    result: Any = None
    error: str = ""


class End(NamedTuple):
    """The end of a call that its owner (by `fence`) was executing, at the time `at`; `tries` replaces what is known of them."""

    call: str
    fence: int
    outcome: Outcome
    at: float
    tries: Sequence[Try] = ()


class Callback(NamedTuple):
    """A callback to make now. `tries` counts this one."""

    record: CallRecord
    tries: int


class Redrive(NamedTuple):
    """Which dead letters: these calls, or all of a namespace ("": of every one) and function ("": of every one)."""

    calls: Sequence[str] = ()
    namespace: str = ""
    function: str = ""


class Mark(NamedTuple):
    """How far one cron trigger is decided: every instant up to `through`.

    `uid` (of the Function) and `fingerprint` (of schedule and zone) say for which trigger that holds: a Function that was deleted
    and made anew, or a changed schedule, begins from its own time.
    """

    uid: str
    fingerprint: str
    through: float


class Calls(Protocol):
    """Every method raises `CallsUnavailable` where nothing was changed and it may be tried again, `CallsClosed` after `close`."""

    async def insert(
        self, calls: Sequence[NewCall], marks: Mapping[CronKey, Mark] | None = None, claim: ClaimNow | None = None
    ) -> list[Inserted]:
        """Record calls and move marks, all or nothing; durable when it returns. One answer per call, in order.

        An unfinished call of the same cron trigger makes a new one Skipped (overlap Skip), is canceled by it (Replace), or
        goes before it (Queue). A mark of the same trigger never moves back. Raises `KeyReused`.
        """

    async def marks(self) -> dict[CronKey, Mark]: ...

    async def forget(self, keys: Sequence[CronKey]) -> None:
        """Drop the marks of triggers that are gone."""

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
        """At most `limit` calls that are due, leased until `now + lease`; calls of other owners whose lease lapsed among them.

        Namespaces take turns by their weights, and functions within them by theirs; none gets more than `per_function` (0: no bound) together with what is `busy`.
        Calls over their `max_age` become Expired (or DeadLetter) instead.
        """

    async def renew(self, held: Mapping[str, int], now: float, lease: float) -> set[str]:
        """Extend the leases of calls (id -> fence); returns the ids that are lost."""

    async def finish(self, call: str, fence: int, outcome: Outcome, now: float, tries: Sequence[Try] = ()) -> None:
        """The end of a call; `tries` replaces what is known of them. Raises `LeaseLost`."""

    async def finish_all(self, ends: Sequence[End]) -> list[bool]:
        """The ends of many calls in one step; for each whether it was still held, and not `LeaseLost`."""

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
        """Back into the queue until `due`. With `executed=False` the attempt doesn't count, a refusal does. Raises `LeaseLost`."""

    async def cancel(self, call: str, reason: str, now: float) -> bool:
        """Whether the call was unfinished and is now Canceled."""

    async def redrive(self, which: Redrive, now: float, limit: int = 1000) -> list[str]:
        """Put dead letters back into the queue, with their retries and age anew; returns their ids."""

    async def request(self, call: str) -> Request | None:
        """What was asked for."""

    async def take_callbacks(self, now: float, lease: float, limit: int) -> list[Callback]:
        """Ended calls whose callback is due; nobody else gets them until `now + lease`."""

    async def called_back(self, call: str, again: float | None, error: str = "") -> None:
        """The callback was delivered, is to be tried again at that time, or (with `again` None and an error) is given up."""

    async def next_callback(self) -> float | None:
        """When `take_callbacks` has something, or sooner."""

    def listen(self, listener: Listener) -> None:
        """Call it on the event loop after each change, whichever process made it."""

    async def next_due(self, now: float) -> float | None:
        """When something becomes claimable that isn't at `now`: a waiting call, or a running one by its lease."""

    async def get(self, call: str) -> CallRecord | None: ...

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
        """Newest first. An empty filter is all of them."""

    async def latest_cron(self, now: float = math.inf) -> dict[CronKey, CallRecord]:
        """The record of each cron trigger's last instant by `now`, without its result."""

    async def counts(self) -> dict[str, int]:
        """How many records have each status."""

    async def ended(self, after: float, until: float) -> dict[tuple[str, str, str, str], int]:
        """How many calls ended after `after` and at `until` or before, by (namespace, function, trigger, status)."""

    async def prune(self, before: float, limit: int = 1000) -> int:
        """Delete up to `limit` records that finished before that time; returns how many."""

    async def rekey(self, ring: KeyRing) -> int:
        """Encrypt requests with the primary key of `ring` from now on, and write those again that another key encrypted; returns how many.

        A request that can't be read stays as it is. Raises `KeysShared`: nothing has changed then.
        """

    async def close(self) -> None: ...
