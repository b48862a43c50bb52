"""What every queue of calls does. Each implementation gives an `open` that can be called again on the same data."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from core.keyring import KeyRing
from gateway.jobs.calls import schema
from gateway.jobs.calls.base import (
    ASYNC,
    CANCELED,
    CRON,
    DEAD_LETTER,
    EXPIRED,
    FAILED,
    KEY_KEPT,
    QUEUED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    Calls,
    CallsClosed,
    CallsUnavailable,
    ClaimNow,
    End,
    KeyReused,
    KeysShared,
    LeaseLost,
    Mark,
    NewCall,
    Options,
    Outcome,
    Redrive,
    Request,
    Try,
)
from gateway.jobs.calls.fair import Weights
from gateway.jobs.calls.redis import RedisCalls
from gateway.jobs.calls.sqlite import SqliteCalls

NOW = 1_800_000_000.0
LEASE = 30.0
TIMEOUT = 20.0

Open = Callable[[], Awaitable[Calls]]


REDIS = shutil.which("redis-server")


class Server:
    """A redis-server of its own on a Unix socket, with an append-only file that is flushed on each write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        assert REDIS is not None
        self.process = subprocess.Popen(
            [REDIS, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
             "--appendfsync", "always", "--daemonize", "no"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"ready to accept connections" in line.lower():
                return
        raise AssertionError("redis-server ended before it was ready")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    async def command(self, *words: str) -> None:
        client = Redis.from_url(self.url)
        await client.execute_command(*words)
        await client.aclose()


@pytest.fixture(scope="module")
def server() -> Iterator[Server | None]:
    """One redis-server for the module; None where there is none to be had."""
    if REDIS is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        found = Server(Path(folder))
        found.start()
        yield found
        found.kill()


@pytest.fixture
def redis_server(server, needs) -> Server:
    needs(server, "redis-server", "apt-get install redis-server")
    return server


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
async def opened(request, server, tmp_path) -> AsyncIterator[Open]:
    """Opens the queue; all that were opened are closed in the end."""
    made: list[Calls] = []
    if request.param == "redis":
        await request.getfixturevalue("redis_server").command("FLUSHALL")

    async def opening() -> Calls:
        if request.param == "redis":
            calls: Calls = await RedisCalls.open(server.url, tmp_path / "calls.keys")
        else:
            calls = await SqliteCalls.open(tmp_path / "calls.db")
        made.append(calls)
        return calls

    yield opening
    for each in made:
        await each.close()


@pytest.fixture
async def calls(opened: Open) -> Calls:
    return await opened()


def new(name: str, function: str = "f", **given) -> NewCall:
    values = {"id": name, "namespace": "default", "function": function, "trigger": ASYNC, "accepted_at": NOW}
    return NewCall(**{**values, **given})


def cron(name: str, instant: float, overlap: str = "Allow", **given) -> NewCall:
    return new(name, **{"trigger": CRON, "cron": "nightly", "scheduled_at": instant, "overlap": overlap, **given})


async def claim(calls: Calls, now: float = NOW, limit: int = 100, owner: str = "me", **given):
    return await calls.claim(owner, now, LEASE, limit, **given)


async def test_a_call_goes_from_queued_to_its_end(calls):
    request = Request("PUT", "/a%20b", "q=1", (("X-A", "1"), ("X-A", "2")), b"\x00body")
    assert [each.status for each in await calls.insert([new("c1", request=request)])] == [QUEUED]
    record = await calls.get("c1")
    assert (record.status, record.attempts, record.accepted_at, record.started_at) == (QUEUED, 0, NOW, None)

    (held,) = await claim(calls, NOW + 1)
    assert (held.id, held.attempts, held.request) == ("c1", 1, request)
    record = await calls.get("c1")
    assert (record.status, record.started_at, record.finished_at) == (RUNNING, NOW + 1, None)
    assert await claim(calls, NOW + 2) == []

    await calls.finish("c1", held.fence, Outcome(SUCCEEDED, 200, {"body": "hi"}), NOW + 3)
    record = await calls.get("c1")
    assert (record.status, record.http_status, record.result, record.finished_at) == (
        SUCCEEDED,
        200,
        {"body": "hi"},
        NOW + 3,
    )
    assert await claim(calls, NOW + 1000) == []
    assert await calls.next_due(NOW + 1000) is None


async def test_what_is_there_is_not_inserted_again(calls):
    first = await calls.insert([new("c1"), new("c2"), new("c1", function="other")])
    assert [each.status for each in first] == [QUEUED, QUEUED, ""]
    assert (await calls.get("c1")).function == "f"
    assert await calls.get("c3") is None


async def test_an_instant_is_claimed_once_whatever_its_id(calls):
    marks = {("default", "f", "nightly"): Mark("u1", "x", NOW)}
    assert (await calls.insert([cron("a", NOW)], marks))[0].status == QUEUED
    assert (await calls.insert([cron("b", NOW)], marks))[0].status == ""
    assert (await calls.insert([cron("c", NOW + 60)], marks))[0].status == QUEUED
    assert (await calls.insert([cron("d", NOW, function="g")], marks))[0].status == QUEUED
    assert await calls.get("b") is None
    assert await calls.marks() == marks


async def test_marks_move_and_are_forgotten(calls):
    key, other = ("default", "f", "nightly"), ("default", "g", "nightly")
    await calls.insert([], {key: Mark("u1", "x", NOW), other: Mark("u2", "x", NOW)})
    await calls.insert([], {key: Mark("u1", "x", NOW + 60)})
    await calls.forget([other])
    assert await calls.marks() == {key: Mark("u1", "x", NOW + 60)}


async def test_an_insert_is_all_or_nothing(calls):
    bad = new("bad", function=None)  # type: ignore[arg-type]
    with pytest.raises(Exception):
        await calls.insert([new("good"), bad], {("default", "f", "n"): Mark("u", "x", NOW)})
    assert await calls.get("good") is None
    assert await calls.marks() == {}
    await calls.insert([new("good")])
    assert (await calls.get("good")).status == QUEUED


async def test_overlap_skip(calls):
    assert (await calls.insert([cron("a", NOW, "Skip")]))[0].status == QUEUED
    assert (await calls.insert([cron("b", NOW + 60, "Skip")]))[0].status == SKIPPED
    record = await calls.get("b")
    assert "a" in record.error and record.finished_at is not None
    (held,) = await claim(calls)
    assert (await calls.insert([cron("c", NOW + 120, "Skip")]))[0].status == SKIPPED
    await calls.finish("a", held.fence, Outcome(FAILED, 500), NOW + 130)
    assert (await calls.insert([cron("d", NOW + 180, "Skip")]))[0].status == QUEUED


async def test_overlap_replace(calls):
    await calls.insert([cron("a", NOW, "Replace")])
    (held,) = await claim(calls)
    (answer,) = await calls.insert([cron("b", NOW + 60, "Replace")])
    assert (answer.status, answer.canceled) == (QUEUED, ("a",))
    assert (await calls.get("a")).status == CANCELED
    assert await calls.renew({"a": held.fence}, NOW, LEASE) == {"a"}
    with pytest.raises(LeaseLost):
        await calls.finish("a", held.fence, Outcome(SUCCEEDED, 200), NOW)
    assert [each.id for each in await claim(calls, NOW + 60)] == ["b"]


async def test_overlap_queue_runs_one_after_the_other(calls):
    await calls.insert([cron("a", NOW, "Queue"), cron("b", NOW + 60, "Queue"), cron("c", NOW + 120, "Queue")])
    for name in "abc":
        (held,) = await claim(calls, NOW + 200)
        assert held.id == name
        assert await claim(calls, NOW + 200) == []
        if name == "a":  # also while it waits for its next attempt
            await calls.again("a", held.fence, NOW + 300, "later")
            assert await claim(calls, NOW + 200) == []
            (held,) = await claim(calls, NOW + 300)
        await calls.finish(name, held.fence, Outcome(SUCCEEDED, 200), NOW + 300)


async def test_allow_and_other_triggers_do_not_wait_for_each_other(calls):
    await calls.insert([cron("a", NOW), cron("b", NOW + 60), new("c"), new("d")])
    assert {each.id for each in await claim(calls, NOW + 60)} == {"a", "b", "c", "d"}


async def test_what_was_skipped_from_the_start_never_runs(calls):
    assert (await calls.insert([cron("a", NOW, skip="missed: 3 instants")]))[0].status == SKIPPED
    assert await claim(calls, NOW + 100) == []
    assert (await calls.get("a")).error == "missed: 3 instants"
    assert (await calls.insert([cron("b", NOW + 60, "Skip")]))[0].status == QUEUED, "a skipped one overlaps nothing"


async def test_a_lease_that_lapses_lets_another_claim_and_fences_the_first(calls):
    await calls.insert([new("c1")])
    (first,) = await claim(calls, NOW, owner="one")
    assert await calls.next_due(NOW) == NOW + LEASE
    assert await claim(calls, NOW + LEASE - 0.1, owner="two") == []
    (second,) = await claim(calls, NOW + LEASE, owner="two")
    assert (second.attempts, second.fence > first.fence) == (2, True)
    for refused in (
        calls.finish("c1", first.fence, Outcome(SUCCEEDED, 200), NOW),
        calls.again("c1", first.fence, NOW, "x"),
    ):
        with pytest.raises(LeaseLost):
            await refused
    assert await calls.renew({"c1": first.fence}, NOW + LEASE, LEASE) == {"c1"}
    assert (await calls.get("c1")).status == RUNNING
    await calls.finish("c1", second.fence, Outcome(SUCCEEDED, 200), NOW + 40)
    assert (await calls.get("c1")).status == SUCCEEDED


async def test_renewing_keeps_a_call(calls):
    await calls.insert([new("c1"), new("c2")])
    held = {each.id: each.fence for each in await claim(calls, NOW)}
    assert await calls.renew({"c1": held["c1"]}, NOW + 20, LEASE) == set()
    assert [each.id for each in await claim(calls, NOW + 35, owner="two")] == ["c2"]


async def test_again_waits_until_it_is_due_and_refusals_do_not_count(calls):
    await calls.insert([new("c1", retries=2)])
    (held,) = await claim(calls)
    await calls.again("c1", held.fence, NOW + 10, "busy", http_status=503, executed=False)
    assert await claim(calls, NOW + 9) == []
    assert await calls.next_due(NOW + 9) == NOW + 10
    (held,) = await claim(calls, NOW + 10)
    assert (held.attempts, held.refusals) == (1, 1)
    await calls.again("c1", held.fence, NOW + 20, "it raised", http_status=500)
    record = await calls.get("c1")
    assert (record.status, record.attempts, record.error, record.http_status) == (QUEUED, 1, "it raised", 500)
    (held,) = await claim(calls, NOW + 20)
    assert (held.attempts, held.refusals, held.retries) == (2, 1, 2)


async def test_a_call_over_its_age_expires(calls):
    await calls.insert([new("c1", max_age=60.0), new("c2")])
    assert [each.id for each in await claim(calls, NOW + 61)] == ["c2"]
    record = await calls.get("c1")
    assert (record.status, record.finished_at) == (EXPIRED, NOW + 61)


async def test_cancel(calls):
    await calls.insert([new("c1"), new("c2")])
    (held,) = await claim(calls, limit=1)
    assert await calls.cancel(held.id, "not wanted", NOW)
    assert not await calls.cancel(held.id, "again", NOW)
    assert not await calls.cancel("nobody", "x", NOW)
    with pytest.raises(LeaseLost):
        await calls.finish(held.id, held.fence, Outcome(SUCCEEDED), NOW)
    assert ((await calls.get(held.id)).status, (await calls.get(held.id)).error) == (CANCELED, "not wanted")


async def test_functions_take_turns(calls):
    await calls.insert([new(f"a{n}", "a") for n in range(20)])
    await calls.insert([new("b1", "b"), new("b2", "b"), new("c1", "c")])
    assert sorted(each.id[0] for each in await claim(calls, limit=6)) == ["a", "a", "a", "b", "b", "c"]


async def test_a_function_gets_no_more_than_its_share(calls):
    await calls.insert([new(f"a{n}", "a") for n in range(20)] + [new("b1", "b")])
    busy = {("default", "a"): 3}
    found = await claim(calls, limit=50, busy=busy, per_function=5)
    assert sorted(each.id[0] for each in found) == ["a", "a", "b"]
    assert await claim(calls, limit=50, busy={("default", "a"): 5}, per_function=5) == []


async def test_the_oldest_of_a_function_goes_first(calls):
    await calls.insert([new(f"c{n}", accepted_at=NOW - n) for n in range(5)])
    assert [each.id for each in await claim(calls, limit=2)] == ["c4", "c3"]


async def test_two_owners_never_get_the_same_call(calls):
    await calls.insert([new(f"c{n}", f"f{n % 7}") for n in range(200)])
    found = await asyncio.gather(*(claim(calls, limit=9, owner=f"o{n}") for n in range(30)))
    ids = [each.id for part in found for each in part]
    assert len(ids) == len(set(ids)) == 200


async def test_lists_are_newest_first_and_bounded(calls):
    await calls.insert([new("a"), new("b", "g"), new("c"), new("d", namespace="other")])
    assert [each.id for each in await calls.list("default")] == ["c", "b", "a"]
    assert [each.id for each in await calls.list("default", "f")] == ["c", "a"]
    assert [each.id for each in await calls.list("", limit=2)] == ["d", "c"]
    assert await calls.list("nowhere") == []


async def test_counts_and_the_latest_of_each_trigger(calls):
    key = ("default", "f", "nightly")
    await calls.insert([cron("a", NOW), cron("b", NOW + 60), new("x")], {key: Mark("u", "x", NOW + 60)})
    (held,) = await claim(calls, NOW + 60, limit=1)
    assert await calls.counts() == {QUEUED: 2, RUNNING: 1}
    latest = await calls.latest_cron()
    assert {name: each.id for name, each in latest.items()} == {key: "b"}
    assert held.id


async def test_prune_takes_the_finished_and_old_only(calls):
    await calls.insert([new("a"), new("b"), new("c")])
    held = {each.id: each.fence for each in await claim(calls)}
    await calls.finish("a", held["a"], Outcome(SUCCEEDED), NOW + 1)
    await calls.finish("b", held["b"], Outcome(SUCCEEDED), NOW + 100)
    assert await calls.prune(NOW + 50) == 1
    assert [each.id for each in await calls.list("")] == ["c", "b"]
    assert await calls.prune(NOW + 500, limit=10) == 1
    assert await calls.prune(NOW + 500) == 0


async def test_everything_is_there_after_it_was_opened_again(opened):
    calls = await opened()
    marks = {("default", "f", "nightly"): Mark("u", "x", NOW)}
    await calls.insert([cron("a", NOW), new("b")], marks)
    await calls.close()
    with pytest.raises(CallsClosed):
        await calls.insert([new("c")])
    with pytest.raises(CallsClosed):
        await calls.get("a")
    again = await opened()
    assert await again.marks() == marks
    assert (await again.insert([cron("z", NOW)]))[0].status == ""
    assert {each.id for each in await claim(again)} == {"a", "b"}


async def test_a_cancelled_caller_does_not_undo_what_it_asked_for(calls):
    task = asyncio.create_task(calls.insert([new("c1")]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(TIMEOUT):
        while await calls.get("c1") is None:  # asking again is an exchange with the queue
            continue


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.jobs.calls.base import NewCall
from gateway.jobs.calls.sqlite import SqliteCalls

async def insert(calls, number):
    call = NewCall(id=f"c{number}", namespace="default", function="f", trigger="async", accepted_at=1.8e9)
    await calls.insert([call])
    print(call.id, flush=True)

async def main():
    calls = await SqliteCalls.open(Path(sys.argv[1]))
    await insert(calls, 0)
    claimed = await calls.claim("victim", 1.8e9, 1e6, 1)
    print("claimed", *[each.id for each in claimed], flush=True)
    number = 0
    while True:
        await asyncio.gather(*(insert(calls, number + n) for n in range(1, 9)))
        number += 8

asyncio.run(main())
"""


async def test_tries_and_options_are_kept(calls):
    options = Options(callback="http://a/b", dead_letter=True, revision="f-00002", traceparent="00-1-2-01", key="k")
    await calls.insert([new("c1", retries=3, options=options, fingerprint="x")])
    (held,) = await claim(calls)
    assert (held.options, held.tries, held.since, held.spent) == (options, (), NOW, 0)
    first = Try(NOW, NOW + 1, 500, 0.25, "no", True, "me")
    await calls.again("c1", held.fence, NOW + 5, "no", http_status=500, tries=(first,))
    record = await calls.get("c1")
    assert (record.tries, record.due, record.callback) == ((first,), NOW + 5, "Pending")
    (held,) = await claim(calls, NOW + 5)
    assert held.tries == (first,)
    second = Try(NOW + 5, NOW + 6, 200)
    await calls.finish("c1", held.fence, Outcome(SUCCEEDED, 200), NOW + 6, (first, second))
    record = await calls.get("c1")
    assert (record.tries, record.options, record.due) == ((first, second), options, None)
    assert await calls.request("c1") == Request() and await calls.request("nobody") is None


async def test_dead_letters_are_listed_and_redriven_with_their_retries_anew(calls):
    kept = Options(dead_letter=True)
    await calls.insert(
        [new("a", options=kept, retries=1), new("b", "g", options=kept, max_age=60.0), new("c", options=kept), new("d")]
    )
    held = {each.id: each for each in await claim(calls, limit=100)}
    for name in "acd":
        status = FAILED if name == "d" else DEAD_LETTER
        await calls.finish(name, held[name].fence, Outcome(status, 500, None, "no"), NOW + 1)
    await calls.again("b", held["b"].fence, NOW + 61, "busy", executed=False)
    assert await claim(calls, NOW + 61) == []
    dead = await calls.list("", status=DEAD_LETTER)
    assert [each.id for each in dead] == ["c", "b", "a"]
    assert "maxAge" in dead[1].error and "busy" in dead[1].error
    assert [each.id for each in await calls.list("default", "f", status=DEAD_LETTER)] == ["c", "a"]

    assert await calls.redrive(Redrive(["d", "c", "nobody"]), NOW + 100) == ["c"]
    assert set(await calls.redrive(Redrive(namespace="default"), NOW + 100)) == {"a", "b"}
    assert await calls.redrive(Redrive(namespace="default"), NOW + 100) == []
    again = {each.id: each for each in await claim(calls, NOW + 100)}
    assert {name: (each.attempts, each.spent, each.since) for name, each in again.items()} == {
        "a": (2, 1, NOW + 100), "b": (1, 0, NOW + 100), "c": (2, 1, NOW + 100),
    }  # fmt: skip
    assert again["a"].fence > held["a"].fence
    assert await calls.counts() == {RUNNING: 3, FAILED: 1}


async def test_an_idempotency_key_stands_for_its_first_call_for_a_day(calls):
    def keyed(name: str, key: str = "k", at: float = NOW, fingerprint: str = "x", **given) -> NewCall:
        return new(name, options=Options(key=key), accepted_at=at, fingerprint=fingerprint, **given)

    assert (await calls.insert([keyed("a")]))[0].status == QUEUED
    assert (await calls.insert([keyed("b")]))[0][:2] == ("a", "")
    assert (await calls.insert([keyed("b", at=NOW + KEY_KEPT - 1)]))[0].id == "a"
    with pytest.raises(KeyReused):
        await calls.insert([keyed("c", fingerprint="y")])
    assert await calls.get("b") is None and await calls.get("c") is None
    assert [each.status for each in await calls.insert([keyed("d", function="g"), keyed("e", "other")])] == [QUEUED] * 2
    assert (await calls.insert([keyed("f", at=NOW + KEY_KEPT + 1, fingerprint="y")]))[0][:2] == ("f", QUEUED)


async def test_callbacks_are_due_once_their_call_has_ended_and_handed_out_under_a_lease(calls):
    wanted = Options(callback="http://a/b")
    await calls.insert([new("a", options=wanted), new("b"), new("c", options=wanted)])
    assert await calls.take_callbacks(NOW + 1000, 10, 9) == [] and await calls.next_callback() is None
    held = {each.id: each.fence for each in await claim(calls)}
    for name in "ab":
        await calls.finish(name, held[name], Outcome(SUCCEEDED, 200, {"body": "hi"}), NOW + 1)
    await calls.cancel("c", "not wanted", NOW + 2)
    assert await calls.next_callback() <= NOW + 2
    taken = await calls.take_callbacks(NOW + 2, 10, 9)
    assert {(each.record.id, each.tries) for each in taken} == {("a", 1), ("c", 1)}
    assert {each.record.id: each.record.result for each in taken}["a"] == {"body": "hi"}
    assert await calls.take_callbacks(NOW + 3, 10, 9) == []
    await calls.called_back("a", None)
    await calls.called_back("c", NOW + 20, "it answered 500")
    assert await calls.next_callback() == NOW + 20
    assert ((await calls.get("a")).callback, (await calls.get("c")).callback) == (
        "Delivered",
        "Pending: it answered 500",
    )
    ((_, tries),) = await calls.take_callbacks(NOW + 20, 10, 9)
    assert tries == 2
    await calls.called_back("c", None, "it answered 500")
    assert (await calls.get("c")).callback == "Failed: it answered 500"
    assert await calls.next_callback() is None


async def test_a_call_may_be_claimed_as_it_is_inserted(calls):
    """A queue may leave that to `claim`; where it doesn't, the call is the owner's, under its lease, and nobody else's."""
    both = [cron("a", NOW, "Queue"), cron("b", NOW + 60, "Queue"), new("c"), new("d")]
    answers = await calls.insert(both, None, ClaimNow("me", LEASE, frozenset(["a", "b", "c"])))
    assert [each.status for each in answers] == [QUEUED] * 4
    held = {each.id: each.fence for each in answers if each.fence}
    rest = await claim(calls, NOW, owner="two")
    assert {each.id for each in rest} == {"a", "c", "d"} - held.keys(), "b goes after a"
    held |= {each.id: each.fence for each in rest}
    assert await calls.renew(held, NOW + 1, LEASE) == set()
    record = await calls.get("a")
    assert (record.status, record.attempts, record.started_at) == (RUNNING, 1, NOW)
    await calls.finish("a", held["a"], Outcome(SUCCEEDED, 200), NOW + 1)
    assert "b" in {each.id for each in await claim(calls, NOW + 60)}


async def test_marks_never_move_back(calls):
    key = ("default", "f", "nightly")
    await calls.insert([], {key: Mark("u1", "x", NOW + 60)})
    await calls.insert([], {key: Mark("u1", "x", NOW)})
    assert (await calls.marks())[key].through == NOW + 60
    await calls.insert([], {key: Mark("u1", "another schedule", NOW)})
    assert (await calls.marks())[key] == Mark("u1", "another schedule", NOW)


async def test_namespaces_take_turns_before_functions_do(calls):
    crowd = [new(f"a{n}-{k}", f"f{k}", namespace="crowd") for k in range(8) for n in range(5)]
    await calls.insert([*crowd, *(new(f"b{n}", "f", namespace="quiet") for n in range(5))])
    found = await claim(calls, limit=10)
    assert sorted(each.id[0] for each in found) == ["a"] * 5 + ["b"] * 5
    found = await claim(calls, limit=4, busy={("quiet", "f"): 0, ("crowd", "f0"): 20})
    assert [each.function for each in found if each.namespace == "crowd"] != ["f0"] * 4


async def test_lists_are_filtered(calls):
    await calls.insert([cron("a", NOW), cron("b", NOW + 60, cron="other"), new("c"), new("d")])
    assert await calls.cancel("c", "x", NOW)
    assert [each.id for each in await calls.list("default", status=CANCELED)] == ["c"]
    assert [each.id for each in await calls.list("default", "f", trigger=CRON)] == ["b", "a"]
    assert [each.id for each in await calls.list("default", "f", cron="other")] == ["b"]


async def test_listeners_hear_of_inserts_and_ends(calls):
    heard: list[tuple[str, str]] = []
    more = asyncio.Event()

    def listener(kind: str, call: str) -> None:
        heard.append((kind, call))
        more.set()

    async def until(*wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not set(wanted) <= set(heard):
                more.clear()
                await more.wait()

    calls.listen(listener)
    await calls.insert([new("a"), new("b"), new("c", max_age=1.0)])
    await until(("queued", ""))
    held = {each.id: each.fence for each in await claim(calls, limit=1)}
    ((name, fence),) = held.items()
    await calls.finish(name, fence, Outcome(SUCCEEDED), NOW)
    await calls.cancel("b" if name == "a" else "a", "x", NOW)
    await until(("ended", "a"), ("ended", "b"))
    await claim(calls, NOW + 10)
    await until(("ended", "c"))


SECRET = "Bearer eyJ-not-for-everyone"
BODY = b"the patient's name is Rumpelstiltskin"


def at_rest(*files: Path) -> bytes:
    return b"".join(each.read_bytes() for each in files if each.is_file())


def in_clear(data: bytes) -> list[bytes]:
    return [each for each in (SECRET.encode(), BODY, b"x-private-header", b"hidden=1") if each in data]


CONFIDENTIAL = Request("POST", "/a", "hidden=1", (("authorization", SECRET), ("x-private-header", "v")), BODY)


async def test_requests_are_encrypted_at_rest(opened, request, server, tmp_path):
    calls = await opened()
    await calls.insert([new(f"c{n}", request=CONFIDENTIAL) for n in range(3)])
    (held,) = await claim(calls, limit=1)
    assert held.request == CONFIDENTIAL
    await calls.finish(held.id, held.fence, Outcome(SUCCEEDED, 200, {"body": "ok"}), NOW + 1)
    assert await calls.request("c0") == CONFIDENTIAL
    # Before and after the queue is closed: the log, the database, what Redis appends.
    files = [*server.folder.rglob("*")] if server and "redis" in request.node.name else [*tmp_path.glob("calls.db*")]
    found = at_rest(*files)
    assert b"c1" in found
    assert in_clear(found) == []
    again = await opened() if "redis" in request.node.name else None
    await calls.close()
    calls = again or await opened()
    assert in_clear(at_rest(*files)) == []
    assert await calls.request("c1") == CONFIDENTIAL


async def test_a_request_that_was_put_under_another_call_ends_that_call(tmp_path):
    """What is encrypted as one call's doesn't open as another's."""
    path = tmp_path / "calls.db"
    calls = await SqliteCalls.open(path)
    await calls.insert(
        [new("mine", request=CONFIDENTIAL), new("other", options=Options(dead_letter=True)), new("third")]
    )
    await calls.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE calls SET request = (SELECT request FROM calls WHERE id = 'mine') WHERE id <> 'mine'"
        )
    calls = await SqliteCalls.open(path)
    assert [each.id for each in await claim(calls)] == ["mine"]
    for call, status in (("other", DEAD_LETTER), ("third", FAILED)):
        record = await calls.get(call)
        assert (record.status, "can't be decrypted" in record.error) == (status, True)
        with pytest.raises(CallsUnavailable, match="can't be read"):
            await calls.request(call)
    await calls.close()


async def test_without_its_keys_a_queue_ends_its_calls_and_goes_on(tmp_path):
    path = tmp_path / "calls.db"
    calls = await SqliteCalls.open(path)
    await calls.insert([new("c1", request=CONFIDENTIAL)])
    await calls.close()
    (tmp_path / "calls.keys").unlink()
    calls = await SqliteCalls.open(path)
    assert await claim(calls) == []
    assert "can't be decrypted" in (await calls.get("c1")).error
    await calls.insert([new("c2", request=CONFIDENTIAL)])
    assert [each.request for each in await claim(calls)] == [CONFIDENTIAL]
    await calls.close()


async def test_a_database_of_the_first_release_is_brought_up_to_date(tmp_path):
    """Its requests are encrypted, and nothing of them is left in clear in the file or its log."""
    path = tmp_path / "calls.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"{schema._TABLES} PRAGMA user_version = 1;")
    connection.executemany(
        "INSERT INTO calls (id, namespace, function, trigger_, cron, overlap, scheduled_at, accepted_at, status, retries, max_age, due, request) "
        "VALUES (?, 'default', 'f', 'async', '', 'Allow', 0, ?, 'Queued', 3, 60, ?, ?)",
        [(f"old{n}", NOW, NOW + n / 1000, schema.pack(CONFIDENTIAL)) for n in range(600)],
    )
    connection.commit()
    connection.close()
    assert in_clear(at_rest(path))
    calls = await SqliteCalls.open(path)
    held = await claim(calls, NOW + 1, limit=1000)
    assert len(held) == 600
    assert (held[0].id, held[0].since, held[0].options) == ("old0", NOW, Options())
    assert {each.request for each in held} == {CONFIDENTIAL}
    assert in_clear(at_rest(*tmp_path.glob("calls.db*"))) == []
    await calls.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RuntimeError, match="version 99"):
        await SqliteCalls.open(path)


@pytest.mark.redis
async def test_a_process_with_other_keys_may_not_share_the_queue(redis_server, tmp_path):
    await redis_server.command("FLUSHALL")
    one = await RedisCalls.open(redis_server.url, tmp_path / "calls.keys")
    await one.insert([new("c1", request=CONFIDENTIAL)])
    with pytest.raises(CallsUnavailable, match="copy that file from the data dir of a jobs process that shares it"):
        await RedisCalls.open(redis_server.url, tmp_path / "others.keys")
    assert [each.request for each in await claim(one)] == [CONFIDENTIAL]
    await one.close()


@pytest.mark.redis
async def test_the_keys_of_a_queue_that_is_shared_wait_until_one_is_alone(redis_server, tmp_path):
    await redis_server.command("FLUSHALL")
    mine, theirs = tmp_path / "calls.keys", tmp_path / "others.keys"
    one = await RedisCalls.open(redis_server.url, mine)
    shutil.copy(mine, theirs)
    two = await RedisCalls.open(redis_server.url, theirs)
    request = Request("POST", "/p", "", (), b"body")
    await one.insert([new("before", request=request)])
    ring = KeyRing.load(mine).rotated()
    with pytest.raises(KeysShared, match="1 other"):
        await one.rekey(ring)
    await one.insert([new("after", request=request)])
    assert await two.request("after") == request
    await one.close()

    ring.save(mine)  # as a platform that was down does it
    one = await RedisCalls.open(redis_server.url, mine)
    await one.insert([new("with the old one", request=request)])
    assert await two.request("with the old one") == request
    await two.close()
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                assert await one.rekey(ring) == 3
                break
            except KeysShared:  # Redis has still to hear that the other is gone
                await asyncio.sleep(0.01)
    with pytest.raises(CallsUnavailable, match="copy that file"):
        await RedisCalls.open(redis_server.url, theirs)
    ring.without_old().save(mine)
    shutil.copy(mine, theirs)
    two = await RedisCalls.open(redis_server.url, theirs)
    assert await two.request("before") == request
    await one.close()
    await two.close()


@pytest.mark.redis
async def test_redis_that_is_killed_and_comes_back_has_every_call_and_is_found_again(redis_server, tmp_path):
    own, keys = Server(tmp_path), tmp_path / "calls.keys"
    own.start()
    try:
        calls, other = await RedisCalls.open(own.url, keys), await RedisCalls.open(own.url, keys)
        changed = asyncio.Event()
        calls.listen(lambda kind, _: changed.set() if kind == "changed" else None)
        await calls.insert([new(f"c{n}", f"f{n % 3}") for n in range(50)], {("default", "f", "n"): Mark("u", "x", NOW)})
        held = {each.id: each.fence for each in await claim(other, limit=10, owner="other")}
        own.kill()
        with pytest.raises(CallsUnavailable):
            await calls.insert([new("lost")])
        own.start()
        async with asyncio.timeout(TIMEOUT):
            await changed.wait()
        assert await calls.counts() == {QUEUED: 40, RUNNING: 10}
        assert await calls.renew(held, NOW + 1, LEASE) == set()
        name = next(iter(held))
        await other.finish(name, held[name], Outcome(SUCCEEDED, 200), NOW + 2)
        assert len(await claim(calls, NOW + 2, owner="me")) == 40
        assert len(await claim(calls, NOW + 100, owner="me")) == 49
        assert await calls.marks() == {("default", "f", "n"): Mark("u", "x", NOW)}
        await calls.close()
        await other.close()
    finally:
        own.kill()


@pytest.mark.redis
async def test_two_redis_queues_share_calls_and_hear_of_each_other(redis_server, tmp_path):
    keys = tmp_path / "calls.keys"
    await redis_server.command("FLUSHALL")
    one, two = await RedisCalls.open(redis_server.url, keys), await RedisCalls.open(redis_server.url, keys)
    heard = asyncio.Event()
    two.listen(lambda kind, call: heard.set() if kind == "queued" else None)
    await one.insert([new(f"c{n}", f"f{n % 7}") for n in range(200)])
    async with asyncio.timeout(TIMEOUT):
        await heard.wait()
    found = await asyncio.gather(*(claim(each, limit=9, owner=f"o{n}") for n in range(15) for each in (one, two)))
    ids = [each.id for part in found for each in part]
    assert len(ids) == len(set(ids)) == 200
    await one.close()
    await two.close()


async def test_redis_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(CallsUnavailable, match="Redis"):
        await RedisCalls.open(f"unix://{tmp_path}/nothing.sock", tmp_path / "calls.keys")


async def test_a_killed_writer_loses_nothing_that_it_said_was_written(tmp_path):
    """kill -9 in the middle of writing: every call that was answered is there, and what ran can be claimed again."""
    path = tmp_path / "calls.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    said: list[str] = []
    async with asyncio.timeout(TIMEOUT):
        while len(said) < 150:
            said.append((await process.stdout.readline()).decode().strip())
        with pytest.raises(CallsUnavailable, match="another jobs process"):
            await SqliteCalls.open(path)
        process.kill()
        said += (await process.stdout.read()).decode().split("\n")[:-1]
        await process.wait()
    answered = {each for each in said if each and not each.startswith("claimed")}
    assert "claimed c0" in said

    calls = await SqliteCalls.open(path)
    try:
        found = {each.id for each in await calls.list("", limit=100_000)}
        assert answered <= found
        claimed = await calls.claim("next", NOW, LEASE, 1)
        assert [(each.id, each.attempts, each.fence) for each in claimed] == [("c0", 2, 2)], (
            "its lease was not waited for"
        )
    finally:
        await calls.close()


async def test_one_process_at_a_time(tmp_path):
    calls = await SqliteCalls.open(tmp_path / "calls.db")
    with pytest.raises(CallsUnavailable):
        await SqliteCalls.open(tmp_path / "calls.db")
    await calls.close()


async def test_many_ends_are_one_step(calls):
    """Those that are still held are recorded, whatever became of the others."""
    await calls.insert([new(f"c{n}", accepted_at=NOW + n) for n in range(4)])
    first = {each.id: each.fence for each in await calls.claim("a", NOW + 10, LEASE, 3)}
    assert await calls.cancel("c1", "enough", NOW + 11)
    outcome = Outcome(SUCCEEDED, 200, {"body": "done"})
    ends = [
        End(call, first.get(call, 1), outcome, NOW + 12, (Try(NOW + 10, NOW + 12, 200),))
        for call in ("c0", "c1", "c2", "c3", "gone")
    ]
    assert await calls.finish_all(ends) == [True, False, True, False, False]
    assert [(await calls.get(f"c{n}")).status for n in range(4)] == [SUCCEEDED, CANCELED, SUCCEEDED, QUEUED]
    record = await calls.get("c2")
    assert (record.http_status, record.result, record.finished_at, len(record.tries)) == (
        200,
        {"body": "done"},
        NOW + 12,
        1,
    )
    assert await calls.finish_all(ends[:1]) == [False]
    assert await calls.finish_all([]) == []


async def test_ends_are_told_one_by_one(calls):
    heard = []
    calls.listen(lambda kind, call: heard.append((kind, call)))
    await calls.insert([new("c0"), new("c1")])
    claimed = await calls.claim("a", NOW, LEASE, 2)
    await calls.finish_all([End(each.id, each.fence, Outcome(SUCCEEDED, 200), NOW) for each in claimed])
    async with asyncio.timeout(TIMEOUT):
        while not {("ended", "c0"), ("ended", "c1")} <= set(heard):  # noqa: ASYNC110 - the listener is what is looked at
            await asyncio.sleep(0.01)


async def test_slots_go_by_weight(calls):
    await calls.insert([new(f"{name}{n}", name, accepted_at=NOW + n / 100) for name in "fg" for n in range(8)])
    await calls.insert([new(f"o{n}", "f", namespace="other") for n in range(8)])
    weights = Weights({"other": 2.0}, {("default", "f"): 3.0})
    claimed = await calls.claim("a", NOW + 1, LEASE, 12, {("other", "f"): 2}, 0, weights)
    assert Counter((each.namespace, each.function) for each in claimed) == {
        ("other", "f"): 7, ("default", "f"): 4, ("default", "g"): 1,
    }  # fmt: skip


async def test_ends_are_counted_between_two_times(calls):
    for n, (name, function, trigger) in enumerate(
        (("c0", "f", ASYNC), ("c1", "f", ASYNC), ("c2", "g", ASYNC), ("c3", "f", CRON))
    ):
        cron = {"cron": "n", "scheduled_at": NOW} if trigger == CRON else {}
        await calls.insert([new(name, function, trigger=trigger, **cron)])
        (held,) = await claim(calls, NOW + n, limit=1)
        await calls.finish(name, held.fence, Outcome(FAILED if name == "c1" else SUCCEEDED, 200), NOW + n)
    await calls.insert([new("open")])
    assert await calls.ended(NOW, NOW + 2) == {
        ("default", "f", ASYNC, FAILED): 1,
        ("default", "g", ASYNC, SUCCEEDED): 1,
    }
    assert sum((await calls.ended(NOW - 1, NOW + 9)).values()) == 4
    assert await calls.ended(NOW + 3, NOW + 9) == {}


async def test_a_new_key_and_what_the_old_one_encrypted(opened, tmp_path):
    """`opened` keeps the keys in the same file for both queues."""
    keys = tmp_path / "calls.keys"
    calls = await opened()
    request = Request("POST", "/p", "", (("Authorization", "Bearer of somebody"),), b"body")
    await calls.insert([new(f"old-{n}", request=request) for n in range(1200)])
    (running,) = await claim(calls, limit=1)
    ring = KeyRing.load(keys).rotated()
    _, count = await asyncio.gather(calls.insert([new("meanwhile", request=request)]), calls.rekey(ring))
    assert count in (1200, 1201), "the one that came meanwhile may be encrypted with either"
    assert await calls.rekey(ring) == 0
    await calls.insert([new("new", request=request)])
    assert (await calls.request("old-7"), await calls.request("new")) == (request, request)
    await calls.finish(running.id, running.fence, Outcome(SUCCEEDED, 200, None), NOW)
    await calls.close()

    ring.without_old().save(keys)
    calls = await opened()
    for each in ("old-0", "old-1199", "meanwhile", "new"):
        assert await calls.request(each) == request
    assert {each.request for each in await claim(calls, NOW + 1, 2000)} == {request}


async def test_a_request_that_nobody_can_read_does_not_hold_up_a_rotation(opened, tmp_path, caplog):
    keys = tmp_path / "calls.keys"
    calls = await opened()
    request = Request("POST", "/p", "", (), b"body")
    await calls.insert([new("good", request=request)])
    stranger = KeyRing.load(tmp_path / "stranger.keys").rotated().rotated().without_old()
    await calls.rekey(stranger)
    await calls.insert([new("bad", request=request)])
    await calls.rekey(KeyRing.load(keys).rotated())
    assert "encrypted with a key that the key file doesn't have" in caplog.text
    await calls.insert([new("after", request=request)])
    assert await calls.request("after") == request
    with pytest.raises(CallsUnavailable, match="can't be read"):
        await calls.request("bad")
