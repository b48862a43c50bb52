"""The queue of calls in Redis: any number of jobs processes share it, and it outlives each of them.

Every step is one Lua script (`redis_scripts`), so nothing is ever half done. A call that is ready is an entry of its function's stream, and a
pending entry of the consumer group while it runs; the lease is a time of our own, so that it can be renewed and
fenced. What is durable when a call is accepted is what Redis has flushed: `appendonly yes` with `appendfsync always` is as safe
as the embedded queue, `everysec` loses up to a second when the *machine* dies, and nothing when only Redis does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from core.keyring import KeyRing, KeyRingError, Sealer
from gateway.jobs.calls import redis_scripts as scripts
from gateway.jobs.calls import schema
from gateway.jobs.calls.base import (
    KEY_KEPT,
    SEALED,
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
    KeysShared,
    LeaseLost,
    Listener,
    Mark,
    NewCall,
    Outcome,
    Redrive,
    Request,
    Try,
)
from gateway.jobs.calls.fair import EQUAL, FunctionKey, Weights, divide

__all__ = ["RedisCalls"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Rows = list[list[bytes | None]]
ANSWER = 10.0
"""Seconds that Redis is given for an answer."""
RECONNECT_FIRST, RECONNECT_LAST = 0.05, 2.0
PAGE = 200
_MARK, _PLACE = f"{scripts.PREFIX}sealed", "keys"
"""What shows which key the queue is encrypted with."""
MOST_SCANNED = 20_000
"""Records that one filtered list looks at."""
_UNAVAILABLE = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, AuthenticationError, OSError)


class RedisCalls:
    """`Calls` in Redis. Made by `open`."""

    def __init__(self, redis: Redis, ring: KeyRing) -> None:
        self._redis = redis
        self._ring = ring
        self._sealer = Sealer(ring, SEALED)
        names = (
            "INSERT",
            "READY",
            "TAKE",
            "RENEW",
            "FINISH",
            "AGAIN",
            "CANCEL",
            "REDRIVE",
            "CALLBACKS",
            "RESEAL",
            "PRUNE",
        )
        self._scripts = {name: redis.register_script(getattr(scripts, name)) for name in names}
        self._listeners: list[Listener] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._events: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()
        self._hearing = False
        self._closed = False

    @classmethod
    async def open(cls, url: str, keys: Path) -> RedisCalls:
        """`redis://[USER:PASSWORD@]HOST:PORT/DB`, `rediss://...` or `unix://PATH`; `keys` is the file of those that requests are encrypted
        with, the same for all processes that share the queue. Raises `CallsUnavailable`, `KeyRingError`."""
        ring = KeyRing.load(keys)
        redis = Redis.from_url(
            url,
            socket_timeout=ANSWER,
            socket_connect_timeout=5.0,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1),
        )
        calls = cls(redis, ring)
        try:
            await calls._run(calls._look_around)
            await calls._agree_on_keys(keys)
            calls._events = asyncio.create_task(calls._hear(), name="redis events")
            async with asyncio.timeout(ANSWER):
                await calls._subscribed.wait()
            # Whoever rotates sees from now on that there is another.
            await calls._agree_on_keys(keys)
        except BaseException as error:
            await calls.close()
            if isinstance(error, TimeoutError | asyncio.TimeoutError):
                raise CallsUnavailable("Redis doesn't let us subscribe") from error
            raise
        return calls

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)
        if self._events is not None:
            self._events.cancel()
            await asyncio.wait([self._events])
        await self._redis.aclose()

    async def _look_around(self) -> None:
        """Say where Redis is set up so that it may lose or evict what it accepts."""
        try:
            found = await self._redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
        except ResponseError:
            log.info(
                "this Redis doesn't tell its configuration; it should have appendonly yes and maxmemory-policy noeviction"
            )
            return
        if found.get("appendonly") != "yes":
            log.warning("this Redis has no append-only file: a restart of it loses calls; set appendonly yes")
        if found.get("maxmemory-policy", "noeviction") != "noeviction":
            log.warning("this Redis evicts keys (%s): set maxmemory-policy noeviction", found["maxmemory-policy"])

    async def _agree_on_keys(self, keys: Path) -> None:
        """A process without the others' keys would end their calls; one with more of them writes with theirs."""
        await self._ask("SETNX", _MARK, self._sealer.seal(b"calls", _PLACE))
        mark = await self._ask("GET", _MARK)
        try:
            self._sealer.open(mark, _PLACE)
            if not self._sealer.current(mark):
                self._ring = self._ring.led_by(self._sealer.key_of(mark))
                self._sealer.use(self._ring)
        except KeyRingError as error:
            raise CallsUnavailable(
                f"the calls in this Redis are encrypted with keys that {keys} doesn't have: copy that file from the data dir of a jobs process that shares it"
            ) from error

    # Asking Redis

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        """In a task of its own: a caller that is cancelled doesn't undo what it asked for."""
        if self._closed:
            raise CallsClosed("the queue of calls was closed")
        task = asyncio.ensure_future(work())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except _UNAVAILABLE as error:
            raise CallsUnavailable(f"Redis can't be reached: {error}") from error
        except RedisError as error:
            raise CallsUnavailable(f"Redis refused: {error}") from error

    async def _script(self, name: str, *values: Any) -> Any:
        script = self._scripts[name]
        return await self._run(lambda: script(args=list(values)))

    async def _ask(self, command: str, *values: Any) -> Any:
        return await self._run(lambda: self._redis.execute_command(command, *values))  # type: ignore[no-untyped-call]

    # Hearing of what other processes did

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _tell(self, kind: str, call: str) -> None:
        for listener in self._listeners:
            listener(kind, call)

    async def _hear(self) -> None:
        pause = RECONNECT_FIRST
        while True:
            try:
                async with self._redis.pubsub() as events:
                    await events.subscribe(scripts.EVENTS)
                    async for message in events.listen():
                        if message["type"] == "subscribe":
                            pause = RECONNECT_FIRST
                            self._hearing = True
                            self._subscribed.set()
                            self._tell("changed", "")
                        elif message["type"] == "message":
                            kind, _, calls = message["data"].decode().partition(" ")
                            for call in calls.split(" "):
                                self._tell(kind, call)
            except (RedisError, OSError) as error:
                log.warning("the connection to Redis broke: %s", error)
            self._hearing = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_LAST)

    # Writing

    async def insert(
        self, calls: Sequence[NewCall], marks: Mapping[CronKey, Mark] | None = None, claim: ClaimNow | None = None
    ) -> list[Inserted]:
        # What may be claimed at once is claimed by whichever process hears of it first.
        values: list[Any] = [len(calls)]
        # A stream is read in the order in which it was written: the oldest goes first.
        order = sorted(range(len(calls)), key=lambda n: calls[n].accepted_at)
        for n in order:
            values += _fields(calls[n], self._sealer)
        for key, mark in (marks or {}).items():
            values += ("/".join(key), repr(mark.through), f"{mark.uid}\n{mark.fingerprint}")
        if len(values) == 1:
            return []
        try:
            found = await self._script("INSERT", *values)
        except CallsUnavailable as error:
            if "KEYREUSED" in str(error):
                raise _reused(str(error).partition("KEYREUSED ")[2]) from None
            raise
        answers: dict[int, Inserted] = {}
        for n, (call, status, canceled) in zip(
            order, zip(found[::3], found[1::3], found[2::3], strict=True), strict=True
        ):
            if status == b"REUSED":
                raise _reused(calls[n].options.key)
            answers[n] = Inserted(call.decode(), status.decode(), tuple(canceled.decode().split()))
        return [answers[n] for n in range(len(calls))]

    async def forget(self, keys: Sequence[CronKey]) -> None:
        if keys:
            await self._ask("HDEL", f"{scripts.PREFIX}marks", *("/".join(key) for key in keys))

    async def claim(
        self,
        owner: str,
        now: float,
        lease: float,
        limit: int,
        busy: Mapping[FunctionKey, int] | None = None,
        per_function: int = 0,
        weights: Weights = EQUAL,
    ) -> list[Claimed]:
        flat = await self._script("READY", repr(now))
        waiting = {}
        for key, count in zip(flat[::2], flat[1::2], strict=True):
            if int(count) > 0:
                namespace, _, function = key.decode().partition("/")
                waiting[namespace, function] = int(count)
        shares = divide(waiting, busy or {}, limit, per_function, weights)
        if not shares:
            return []
        wanted: list[Any] = []
        for (namespace, function), count in shares.items():
            wanted += (f"{namespace}/{function}", count)
        found = await self._script("TAKE", owner, repr(now), repr(now + lease), *wanted)
        claimed, lost = schema.with_requests([_claimed(row) for row in found], self._sealer, now)
        if lost:
            await self.finish_all(lost)
        return claimed

    async def renew(self, held: Mapping[str, int], now: float, lease: float) -> set[str]:
        flat = [part for each in held.items() for part in each]
        return {each.decode() for each in await self._script("RENEW", repr(now + lease), *flat)}

    async def finish(self, call: str, fence: int, outcome: Outcome, now: float, tries: Sequence[Try] = ()) -> None:
        if not (await self.finish_all([End(call, fence, outcome, now, tries)]))[0]:
            raise LeaseLost(f"call {call} is no longer held")

    async def finish_all(self, ends: Sequence[End]) -> list[bool]:
        values: list[Any] = []
        for each in ends:
            outcome = each.outcome
            values += (
                each.call, each.fence, outcome.status, outcome.http_status or "", schema.pack(outcome.result) or b"", outcome.error, repr(each.at),
                schema.pack_tries(each.tries) or b"",
            )  # fmt: skip
        return [bool(each) for each in await self._script("FINISH", *values)] if values else []

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
        packed = schema.pack_tries(tries) or b""
        if not await self._script("AGAIN", call, fence, repr(due), error, http_status or "", int(not executed), packed):
            raise LeaseLost(f"call {call} is no longer held")

    async def cancel(self, call: str, reason: str, now: float) -> bool:
        return bool(await self._script("CANCEL", call, reason, repr(now)))

    async def redrive(self, which: Redrive, now: float, limit: int = 1000) -> list[str]:
        ids = list(which.calls)[:limit]
        if not which.calls:
            dead = [each.decode() for each in await self._ask("ZRANGE", f"{scripts.PREFIX}dead", 0, -1)]
            owners = await self._fields_of(dead, "ns", "fn")
            wanted = (which.namespace.encode(), which.function.encode())
            ids = [
                call
                for call, row in zip(dead, owners, strict=True)
                if all(not text or text == value for text, value in zip(wanted, row, strict=True))
            ][:limit]
        return [each.decode() for each in await self._script("REDRIVE", repr(now), *ids)] if ids else []

    async def prune(self, before: float, limit: int = 1000) -> int:
        return int(await self._script("PRUNE", repr(before), limit))

    async def rekey(self, ring: KeyRing) -> int:
        await self._alone()
        before = self._ring
        await self._set_mark(ring)  # from now on a process without the new key doesn't start
        try:
            await self._alone()
        except BaseException:
            await self._set_mark(before)
            raise
        self._ring = ring
        self._sealer.use(ring)
        if self._running:  # what was encrypted before is written before
            await asyncio.wait(set(self._running))
        cursor, count = b"0", 0
        while True:
            cursor, keys = await self._ask("SCAN", cursor, "MATCH", f"{_escaped(scripts.PREFIX)}call:*", "COUNT", PAGE)
            calls = [each.decode().removeprefix(f"{scripts.PREFIX}call:") for each in keys]
            for call, (packed,) in zip(calls, await self._fields_of(calls, "request"), strict=True):
                count += packed is not None and await self._reseal(call, packed)
            if int(cursor) == 0:
                return count

    async def _reseal(self, call: str, packed: bytes) -> bool:
        if self._sealer.current(packed):
            return False
        try:
            fresh = self._sealer.seal(self._sealer.open(packed, call), call)
        except KeyRingError as error:
            log.warning("%s", error)
            return False
        return bool(await self._script("RESEAL", call, packed, fresh))

    async def _alone(self) -> None:
        """Raises `KeysShared` where another process listens to the queue, as each does from before its first call to its last."""
        if not self._hearing:
            raise CallsUnavailable("the connection to Redis on which we hear of others is broken")
        _, count = await self._ask("PUBSUB", "NUMSUB", scripts.EVENTS)
        if count > 1:
            raise KeysShared(f"{count - 1} other jobs processes share this Redis")

    async def _set_mark(self, ring: KeyRing) -> None:
        await self._ask("SET", _MARK, Sealer(ring, SEALED).seal(b"calls", _PLACE))

    # Callbacks

    async def take_callbacks(self, now: float, lease: float, limit: int) -> list[Callback]:
        found = await self._script("CALLBACKS", repr(now), repr(now + lease), limit)
        return [Callback(_record(row), int(tries)) for row, tries in found]

    async def called_back(self, call: str, again: float | None, error: str = "") -> None:
        text = ("Pending" if again is not None else "Failed") + f": {error}" if error else "Delivered"
        if again is None:
            await self._ask("ZREM", f"{scripts.PREFIX}callbacks", call)
        else:
            await self._ask("ZADD", f"{scripts.PREFIX}callbacks", "XX", repr(again), call)
        await self._ask("HSET", f"{scripts.PREFIX}call:{call}", "callback", text)

    async def next_callback(self) -> float | None:
        return await self._first("callbacks", "-inf")

    # Reading

    async def marks(self) -> dict[CronKey, Mark]:
        flat = await self._ask("HGETALL", f"{scripts.PREFIX}marks")
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        found: dict[CronKey, Mark] = {}
        for key, value in pairs:
            namespace, function, cron = key.decode().split("/")
            through, uid, fingerprint = value.decode().split("\n", 2)
            found[namespace, function, cron] = Mark(uid, fingerprint, float(through))
        return found

    async def next_due(self, now: float) -> float | None:
        times = (await self._first("later", f"({now!r}"), await self._first("leases", "-inf"))
        return min((each for each in times if each is not None), default=None)

    async def _first(self, key: str, after: str) -> float | None:
        found = await self._ask("ZRANGEBYSCORE", f"{scripts.PREFIX}{key}", after, "+inf", "LIMIT", 0, 1)
        if not found:
            return None
        score = await self._ask("ZSCORE", f"{scripts.PREFIX}{key}", found[0])
        return None if score is None else float(score)

    async def get(self, call: str) -> CallRecord | None:
        (row,) = await self._fields_of([call], *scripts.RECORD_FIELDS)
        return None if row[0] is None else _record(row)

    async def request(self, call: str) -> Request | None:
        packed = await self._ask("HGET", f"{scripts.PREFIX}call:{call}", "request")
        if packed is None:
            return None
        try:
            return schema.unpack_request(packed, call, self._sealer)
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
        if status == "DeadLetter":
            index = "dead"
        elif namespace and function:
            index = f"fn:{namespace}/{function}"
        else:
            index = f"ns:{namespace}" if namespace else "all"
        found: list[CallRecord] = []
        for start in range(0, MOST_SCANNED, PAGE):
            ids = await self._ask("ZREVRANGE", f"{scripts.PREFIX}{index}", start, start + PAGE - 1)
            for row in await self._fields_of([each.decode() for each in ids], *scripts.RECORD_FIELDS):
                if row[0] is None:
                    continue
                record = _record(row)
                wanted = (
                    (namespace, record.namespace), (function, record.function), (status, record.status), (cron, record.cron), (trigger, record.trigger),
                )  # fmt: skip
                if all(not text or text == value for text, value in wanted):
                    found.append(record)
            if len(found) >= limit or len(ids) < PAGE:
                break
        return found[:limit]

    async def latest_cron(self, now: float = math.inf) -> dict[CronKey, CallRecord]:
        ids = [each.decode() for each in await self._ask("HVALS", f"{scripts.PREFIX}latest")]
        fields = [each if each != "result" else "-" for each in scripts.RECORD_FIELDS]
        rows = await self._fields_of(ids, *fields)
        records = [_record(row) for row in rows if row[0] is not None]
        return {(each.namespace, each.function, each.cron): each for each in records}

    async def ended(self, after: float, until: float) -> dict[tuple[str, str, str, str], int]:
        found: Counter[tuple[str, str, str, str]] = Counter()
        start, name = 0, f"{scripts.PREFIX}finished"
        while ids := await self._ask("ZRANGEBYSCORE", name, f"({after!r}", repr(until), "LIMIT", start, PAGE):
            start += len(ids)
            for row in await self._fields_of([each.decode() for each in ids], "ns", "fn", "trigger", "status"):
                if row[0] is not None:
                    found[_text(row[0]), _text(row[1]), _text(row[2]), _text(row[3])] += 1
        return dict(found)

    async def counts(self) -> dict[str, int]:
        flat = await self._ask("HGETALL", f"{scripts.PREFIX}counts")
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {key.decode(): int(count) for key, count in pairs if int(count)}

    async def _fields_of(self, calls: Sequence[str], *fields: str) -> Rows:
        if not calls:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command("HMGET", f"{scripts.PREFIX}call:{call}", *fields)
        return await self._run(pipeline.execute)


def _escaped(text: str) -> str:
    """As a part of a pattern that stands for itself."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _reused(key: str) -> KeyReused:
    return KeyReused(f'the idempotency key "{key}" was given with another request before')


def _fields(call: NewCall, sealer: Sealer) -> tuple[Any, ...]:
    """The arguments of one call, as `scripts.INSERT` counts them."""
    return (
        call.id, call.namespace, call.function, call.trigger, call.cron, call.overlap, repr(call.scheduled_at), repr(call.accepted_at), call.retries,
        repr(call.max_age), call.skip, schema.pack_request(call.request, call.id, sealer), int(call.options.dead_letter), schema.pack_options(call.options) or b"",
        int(bool(call.options.callback)), call.options.key, call.fingerprint, repr(call.accepted_at + KEY_KEPT),
    )  # fmt: skip


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""


def _time(value: bytes | None) -> float | None:
    return float(value) if value else None


def _record(row: Sequence[bytes | None]) -> CallRecord:
    found = dict(zip(scripts.RECORD_FIELDS, row, strict=True))
    options = schema.options_of(found["options"] or None)
    status = _text(found["status"])
    return CallRecord(
        id=_text(found["id"]),
        namespace=_text(found["ns"]),
        function=_text(found["fn"]),
        trigger=_text(found["trigger"]),
        cron=_text(found["cron"]),
        scheduled_at=_time(found["scheduled_at"]) or None,
        accepted_at=float(found["accepted_at"] or 0),
        started_at=_time(found["started_at"]),
        finished_at=_time(found["finished_at"]),
        status=status,
        attempts=int(found["attempts"] or 0),
        http_status=int(found["http_status"]) if found["http_status"] else None,
        result=schema.unpack(found["result"]) if found["result"] else None,
        error=_text(found["error"]),
        due=_time(found["due"]) if status == "Queued" else None,
        options=options,
        tries=schema.tries_of(found["tries"] or None),
        callback=_text(found["callback"]) or ("Pending" if options.callback else ""),
    )


def _claimed(row: Sequence[bytes | None]) -> tuple[Claimed, bytes]:
    found = dict(zip(scripts.CLAIM_FIELDS, row, strict=True))
    call = Claimed(
        id=_text(found["id"]),
        namespace=_text(found["ns"]),
        function=_text(found["fn"]),
        trigger=_text(found["trigger"]),
        cron=_text(found["cron"]),
        scheduled_at=float(found["scheduled_at"] or 0),
        accepted_at=float(found["accepted_at"] or 0),
        attempts=int(found["attempts"] or 0),
        refusals=int(found["refusals"] or 0),
        retries=int(found["retries"] or 0),
        max_age=float(found["max_age"] or 0),
        fence=int(found["fence"] or 0),
        request=Request(),
        spent=int(found["spent"] or 0),
        since=float(found["since"] or 0),
        options=schema.options_of(found["options"] or None),
        tries=schema.tries_of(found["tries"] or None),
    )
    return call, found["request"] or b""
