"""What only the store with a disk has to do: survive, refuse, reopen."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.store import sqlite_writer
from core.store.base import Compacted, Event, StoreError, StoreUnavailable
from core.store.sqlite import _TOLD_IN_TURN, SqliteStore
from core.store.sqlite_log import SqliteLog

WRITER = Path(__file__).with_name("crashing_writer.py")
ROOT = Path(__file__).parents[4]


def crash(path: Path, life: str, acknowledged: int) -> tuple[int, int, dict[str, int]]:
    """Let a process write until that many writes are acknowledged, and kill it.

    What it said: its first revision, the highest it handed out, and the acknowledged keys with their revisions.
    """
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), life],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    acked: dict[str, int] = {}
    begin = given = 0
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            match line.split():
                case ["open", revision]:
                    begin = int(revision)
                case ["given", revision]:
                    given = max(given, int(revision))
                case ["acked", key, revision]:
                    acked[key] = int(revision)
            if len(acked) == acknowledged:
                process.kill()
    return begin, given, acked


async def test_a_killed_process_loses_no_acknowledged_write_and_no_revision_is_reused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    highest = 0
    durable: dict[str, int] = {}
    for life, count in (("one", 150), ("two", 40), ("three", 1)):
        begin, given, acked = crash(path, life, count)
        assert begin >= highest, "a revision of the life before was handed out again"
        highest = given
        durable |= acked
        store = SqliteStore(path)
        assert store.revision > given
        entries = {entry.key: entry.revision for entry in (await store.list("/")).entries}
        assert durable.items() <= entries.items()
        revisions = sorted(revision for revision in entries.values() if revision > begin)
        assert revisions == list(range(begin + 1, begin + 1 + len(revisions))), "there is a hole in the log"
        assert revisions[-1] >= max(acked.values())

        # What was durable can be watched on, what was lost can't.
        watch = store.watch("/", revisions[-2])
        batch = await watch.__anext__()
        assert [event.revision for event in batch] == [revisions[-1]]
        await watch.aclose()
        with pytest.raises(Compacted):
            store.watch("/", revisions[-1] + 1)
        with pytest.raises(Compacted):
            await store.list("/", revision=revisions[-1] + 1)
        highest = max(highest, (await store.create(f"/after/{life}", b"")).revision)
        await store.close()


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


class Gate:
    """Holds up commits until `open`; `batches` are the sizes of those that were begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self._open = threading.Event()
        self._began = asyncio.Event()
        loop, commit = asyncio.get_running_loop(), SqliteLog.commit

        def held(log: SqliteLog, events) -> None:
            self.batches.append(len(events))
            loop.call_soon_threadsafe(self._began.set)
            assert self._open.wait(10)
            commit(log, events)

        monkeypatch.setattr(SqliteLog, "commit", held)
        monkeypatch.setattr(sqlite_writer, "HERE_MOST", -1)  # what is held up is the thread

    async def began(self) -> None:
        async with asyncio.timeout(10):
            await self._began.wait()

    def open(self) -> None:
        self._open.set()


async def test_a_few_writes_are_committed_by_the_event_loop_and_many_by_the_thread(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    commit, by = SqliteLog.commit, []

    def seen(log: SqliteLog, events) -> None:
        by.append((threading.current_thread() is threading.main_thread(), len(events)))
        commit(log, events)

    monkeypatch.setattr(SqliteLog, "commit", seen)
    store = SqliteStore(tmp_path / "state.db")
    watch = store.watch("/a/", store.revision)
    await store.create("/a/1", b"")
    assert by == [(True, 1)]
    await asyncio.gather(*(store.create(f"/a/many-{number}", b"") for number in range(20)))
    await store.create("/a/2", b"")
    assert by == [(True, 1), (False, 20), (True, 1)]
    found = []
    while len(found) < 22:
        found += await anext(watch)
    assert [each.revision for each in found] == sorted(each.revision for each in found)
    await watch.aclose()
    await store.close()
    again = SqliteStore(tmp_path / "state.db")
    assert len((await again.list("/a/")).entries) == 22
    await again.close()


async def cascade(store: SqliteStore, gap: int) -> None:
    """Three soft-acknowledged writes, each some turns of the event loop after the one that it follows from."""
    for name in ("scale", "pod", "binding"):
        await store.create(f"/a/{name}", b"", durable=False)
        for _ in range(gap):
            await asyncio.sleep(0)


async def test_a_cascade_of_writes_is_one_commit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_writer, "GATHER_SECONDS", 60.0)
    commit, batches = SqliteLog.commit, []

    def seen(log: SqliteLog, events) -> None:
        batches.append([event.key for event in events])
        commit(log, events)

    monkeypatch.setattr(SqliteLog, "commit", seen)
    store = SqliteStore(tmp_path / "state.db")
    await cascade(store, sqlite_writer.QUIET_TURNS - 1)
    await store.durable(store.revision)
    assert batches == [["/a/scale", "/a/pod", "/a/binding"]]
    await store.create("/a/later", b"")
    assert batches[1:] == [["/a/later"]]
    await store.close()


async def test_soft_writes_go_with_the_next_hard_one_or_when_somebody_waits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_writer, "SOFT_SECONDS", 60.0)
    commit, batches, done = SqliteLog.commit, [], asyncio.Event()

    def seen(log: SqliteLog, events) -> None:
        batches.append([event.key for event in events])
        commit(log, events)
        done.set()

    monkeypatch.setattr(SqliteLog, "commit", seen)
    store = SqliteStore(tmp_path / "state.db")
    await store.create("/a/first", b"")
    batches.clear()
    for number in range(6):
        await store.create(f"/soft/{number}", b"", durable=False, soft=True)
        for _ in range(3 * sqlite_writer.QUIET_TURNS):
            await asyncio.sleep(0)
    assert batches == []
    await store.create("/a/hard", b"")
    assert batches == [[*(f"/soft/{number}" for number in range(6)), "/a/hard"]], "and by the event loop itself"
    entry = await store.create("/soft/asked", b"", durable=False, soft=True)
    await store.durable(entry.revision)
    assert batches[1:] == [["/soft/asked"]]
    monkeypatch.setattr(sqlite_writer, "SOFT_SECONDS", 0.01)
    done.clear()
    await store.create("/soft/alone", b"", durable=False, soft=True)
    async with asyncio.timeout(10):
        await done.wait()
    assert batches[2:] == [["/soft/alone"]]
    monkeypatch.setattr(sqlite_writer, "SOFT_SECONDS", 60.0)
    await store.create("/soft/last", b"", durable=False, soft=True)
    await store.close()
    again = SqliteStore(tmp_path / "state.db")
    assert await again.get("/soft/last") is not None
    await again.close()


async def test_writes_without_end_put_no_commit_off_for_long(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_writer, "GATHER_SECONDS", 0.0)
    store = SqliteStore(tmp_path / "state.db")
    first = asyncio.create_task(store.create("/a/first", b""))
    writes = 0
    async with asyncio.timeout(10):
        while not first.done():
            await store.create(f"/a/{writes}", b"", durable=False)
            writes += 1
            await asyncio.sleep(0)
    assert writes <= sqlite_writer.HERE_MOST
    await store.close()


async def test_a_disk_that_was_slow_once_is_trusted_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", -1.0)
    commit, by = SqliteLog.commit, []

    def seen(log: SqliteLog, events) -> None:
        by.append(threading.current_thread() is threading.main_thread())
        commit(log, events)

    monkeypatch.setattr(SqliteLog, "commit", seen)
    store = SqliteStore(tmp_path / "state.db")
    await store.create("/a/slow", b"")
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    for number in range(sqlite_writer.SLOW_COMMITS + 1):
        await store.create(f"/a/{number}", b"")
    assert by == [True, *[False] * sqlite_writer.SLOW_COMMITS, True]
    await store.close()


async def test_a_slow_disk_is_left_to_the_thread(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", -1.0)
    commit, by = SqliteLog.commit, []

    def seen(log: SqliteLog, events) -> None:
        by.append(threading.current_thread() is threading.main_thread())
        commit(log, events)

    monkeypatch.setattr(SqliteLog, "commit", seen)
    store = SqliteStore(tmp_path / "state.db")
    for number in range(3):
        await store.create(f"/a/{number}", b"")
    assert by == [True, False, False]
    await store.close()


async def test_a_commit_that_fails_on_the_event_loop_fails_the_store(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_writer, "HERE_SECONDS", 60.0)
    store = SqliteStore(tmp_path / "state.db")
    await store.create("/a/1", b"")

    def broken(log: SqliteLog, events) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "commit", broken)
        with pytest.raises(StoreUnavailable):
            await store.create("/a/2", b"")
    with pytest.raises(StoreUnavailable):
        await store.create("/a/3", b"")
    await store.close()


async def test_nobody_outside_hears_of_a_write_before_it_is_durable(tmp_path: Path, monkeypatch) -> None:
    gate = Gate(monkeypatch)
    store = SqliteStore(tmp_path / "state.db")
    since = store.revision
    durable, applied = store.watch("/a/", since), store.watch("/a/", since, applied=True)
    hard = asyncio.create_task(store.create("/a/hard", b""))
    await gate.began()
    soft = await store.create("/a/soft", b"", durable=False)
    asked = asyncio.create_task(store.durable(soft.revision))
    heard = asyncio.create_task(durable.__anext__())
    late = store.watch("/a/", since)
    late_heard = asyncio.create_task(late.__anext__())
    assert [event.key for event in await applied.__anext__()] == ["/a/hard", "/a/soft"]
    assert len((await store.list("/a/")).entries) == 2
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(each.done() for each in (hard, asked, heard, late_heard))
    gate.open()
    async with asyncio.timeout(10):
        assert (await hard).revision == since + 1
        await asked
    told = await heard
    if len(told) == 1:
        told += await durable.__anext__()
    assert [event.revision for event in told] == [since + 1, since + 2]
    assert (await late_heard)[0].revision == since + 1
    for watch in (durable, applied, late):
        await watch.aclose()
    await store.close()


async def test_a_soft_write_is_told_at_once_but_never_before_a_hard_one(tmp_path: Path, monkeypatch) -> None:
    gate = Gate(monkeypatch)
    store = SqliteStore(tmp_path / "state.db")
    watch = store.watch("/a/", store.revision)
    first = await store.create("/a/first", b"", durable=False, soft=True)
    assert [event.revision for event in watch.take()] == [first.revision]
    asked = asyncio.create_task(store.durable(first.revision))
    changed = await store.update("/a/first", b"1", first.revision, durable=False, soft=True)
    late = store.watch("/a/", first.revision - 1)
    assert [event.revision for event in late.take()] == [first.revision, changed.revision]
    await late.aclose()
    await gate.began()
    hard = asyncio.create_task(store.create("/a/hard", b""))
    await asyncio.sleep(0)
    behind = await store.update("/a/first", b"2", changed.revision, durable=False, soft=True)
    assert [event.revision for event in watch.take()] == [changed.revision], "a hard write before it isn't durable"
    early = store.watch("/a/", changed.revision)
    assert early.take() == []
    gate.open()
    async with asyncio.timeout(10):
        await asked
        made = await hard
        await store.durable(behind.revision)
    assert [event.revision for event in watch.take()] == [made.revision, behind.revision]
    assert [event.revision for event in early.take()] == [made.revision, behind.revision]
    for each in (watch, early):
        await each.aclose()
    await store.close()


async def test_who_saw_a_soft_write_that_a_crash_took_back_is_sent_to_list_anew(tmp_path: Path) -> None:
    """A process tells of soft writes whose commit never begins, and ends as a crash ends it."""
    path = tmp_path / "state.db"
    code = f"""
import asyncio, os, threading
from pathlib import Path
from core.store.sqlite import SqliteStore
from core.store.sqlite_log import SqliteLog

async def main():
    store = SqliteStore(Path({str(path)!r}))
    pod = await store.create("/pods/a", b"bound")
    SqliteLog.commit = lambda log, events: threading.Event().wait()
    watch = store.watch("/pods/", pod.revision)
    await store.update("/pods/a", b"ready", pod.revision, durable=False, soft=True)
    [told] = watch.take()
    os.write(1, f"{{pod.revision}} {{told.revision}} {{told.value.decode()}}".encode())
    os._exit(9)

asyncio.run(main())
"""
    done = run(code)
    assert done.returncode == 9, done.stderr
    durable, told, value = done.stdout.split()
    assert value == "ready"
    store = SqliteStore(path)
    assert [(each.value, each.revision) for each in (await store.list("/pods/")).entries] == [(b"bound", int(durable))]
    assert store.revision > int(told), "a revision that was told is another write's"
    with pytest.raises(Compacted):
        store.watch("/pods/", int(told))
    watch = store.watch("/pods/", int(durable))
    again = await store.update("/pods/a", b"ready", int(durable), durable=False, soft=True)
    assert [event.revision for event in watch.take()] == [again.revision]
    await watch.aclose()
    await store.close()


async def test_all_that_arrives_during_a_commit_is_the_next_one(tmp_path: Path, monkeypatch) -> None:
    gate = Gate(monkeypatch)
    store = SqliteStore(tmp_path / "state.db")
    first = asyncio.create_task(store.create("/a/first", b""))
    await gate.began()
    others = [asyncio.create_task(store.create(f"/a/{n}", b"", durable=n % 2 == 0)) for n in range(200)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *others)
    await store.durable(store.revision)
    assert gate.batches == [1, 200]
    await store.close()
    again = SqliteStore(tmp_path / "state.db")
    assert len((await again.list("/a/")).entries) == 201
    await again.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_those_who_wait_for_a_commit_are_told_a_few_in_a_turn(tmp_path: Path, monkeypatch, fails: bool) -> None:
    gate, told, most = Gate(monkeypatch), [], 0
    store = SqliteStore(tmp_path / "state.db")

    async def one(number: int) -> None:
        await store.create(f"/a/{number}", b"")
        told.append(number)

    first = asyncio.create_task(store.create("/a/first", b""))
    await gate.began()
    others = [asyncio.create_task(one(number)) for number in range(20)]
    await asyncio.sleep(0)
    gate.open()
    await first
    while len(told) < 20:
        before = len(told)
        await asyncio.sleep(0)
        most = max(most, len(told) - before)
        if fails and told:  # what is on the disk is, whatever becomes of the store
            store.failed(OSError("the disk is gone"))
            await asyncio.wait(others)
    await asyncio.gather(*others)
    assert sorted(told) == list(range(20))
    assert fails or (most == _TOLD_IN_TURN and told == sorted(told))
    await store.close()


async def test_a_write_whose_caller_gave_up_is_kept_and_harms_nobody(tmp_path: Path, monkeypatch) -> None:
    gate = Gate(monkeypatch)
    store = SqliteStore(tmp_path / "state.db")
    given_up = asyncio.create_task(store.create("/a/x", b""))
    await gate.began()
    given_up.cancel()
    other = asyncio.create_task(store.create("/a/y", b""))
    await asyncio.sleep(0)
    gate.open()
    async with asyncio.timeout(10):
        await other
    assert given_up.cancelled()
    assert await store.get("/a/x") is not None
    await store.close()


async def test_reopening_after_a_clean_close_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    made = [await store.create(f"/a/{n}", b"%d" % n, durable=n % 2 == 0) for n in range(200)]
    changed = await store.update("/a/7", b"new", made[7].revision)
    await store.delete("/a/8", made[8].revision)
    await store.create("/a/9/soft", b"", durable=False)
    listing, revision = await store.list("/"), store.revision
    await store.close()

    again = SqliteStore(path)
    assert again.revision == revision
    assert (await again.list("/")) == listing
    watch = again.watch("/", made[-1].revision)
    events = await watch.__anext__()
    assert [(event.key, event.value) for event in events] == [("/a/7", b"new"), ("/a/8", None), ("/a/9/soft", b"")]
    assert events[0].previous == made[7]
    assert events[1].previous == made[8]
    await watch.aclose()
    assert (await again.update("/a/7", b"x", changed.revision)).created == made[7].revision
    await again.close()


async def test_a_store_that_only_was_opened_and_crashed_takes_a_new_revision(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    log = SqliteLog(path)
    first = log.load().revision
    log.close(None)  # As a crash leaves it: the mark is not taken back.
    store = SqliteStore(path)
    assert store.revision > first
    await store.close()


async def test_revisions_are_set_aside_ahead_of_their_use(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "state.db", reserve=50)
    loaded = log.load()
    log.close(None)
    reopened = SqliteLog(tmp_path / "state.db", reserve=50)
    assert reopened.load().revision == loaded.revision + 51
    reopened.close(None)


async def test_the_reserve_is_extended_before_it_is_used_up(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "state.db", reserve=50)
    last = log.load().revision + 30
    log.commit([Event("/a/x", b"", last, None)])
    assert log.reserved == last + 50
    log.close(None)
    reopened = SqliteLog(tmp_path / "state.db", reserve=50)
    assert reopened.load().revision == last + 51
    reopened.close(None)


async def test_soft_writes_wait_when_the_disk_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.store.sqlite.MAX_BACKLOG", 3)
    gate = Gate(monkeypatch)
    store = SqliteStore(tmp_path / "state.db")
    calls = [asyncio.ensure_future(store.create(f"/a/{n}", b"", durable=False)) for n in range(5)]
    await gate.began()
    await asyncio.sleep(0)
    assert [call.done() for call in calls] == [True] * 3 + [False] * 2
    gate.open()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls)
    await store.close()


async def test_a_write_is_refused_at_the_end_of_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.create("/a/x", b"")
    monkeypatch.setattr(store._writer._log, "reserved", store.revision)
    with pytest.raises(StoreUnavailable, match="behind"):
        await store.create("/a/y", b"")
    await store.close()


def open_elsewhere(path: Path) -> str:
    """What another process says that opens the store."""
    code = f"from pathlib import Path; from core.store.sqlite import SqliteStore; SqliteStore(Path({str(path)!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stderr


def modes(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


async def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=f"open already, in process {os.getpid()}"):
        SqliteStore(path)
    assert f"StoreUnavailable: {path} is open already, in process {os.getpid()}" in open_elsewhere(path)
    await store.close()
    await SqliteStore(path).close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 1000)
    for _ in range(2):  # Twice: the first refusal must have released the lock.
        with pytest.raises(StoreError, match="can't be used as a store: file is not a database"):
            SqliteStore(path)
    assert path.read_bytes() == b"not a database at all" * 1000


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE log (a)")
    other.close()
    with pytest.raises(StoreError, match="something else"):
        SqliteStore(path)


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await SqliteStore(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="newer version"):
        SqliteStore(path)


async def test_damage_in_the_middle_is_told_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    for n in range(200):
        await store.create(f"/a/{n}", bytes(500), durable=False)
    await store.close()
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096 * 10)
    with pytest.raises(StoreError, match="can't be read"):
        SqliteStore(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing/state.db can't be used"):
        SqliteStore(tmp_path / "missing" / "state.db")


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    await store.create("/a/x", b"")
    assert modes(tmp_path) == {"state.db": 0o600, "state.db-wal": 0o600, "state.db.lock": 0o600}
    await store.close()


async def test_a_full_disk_fails_the_store_until_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    kept = await store.create("/a/kept", b"kept")
    await store.close()

    store = SqliteStore(path)
    database = store._writer._log._db
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    told, applied = store.watch("/a/", store.revision), store.watch("/a/", store.revision, applied=True)
    writes = [store.create(f"/a/{n}", bytes(100_000), durable=n > 0) for n in range(3)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert not isinstance(outcomes[0], Exception), "a soft write was applied before the disk refused it"
    for outcome in outcomes[1:]:
        assert isinstance(outcome, StoreUnavailable)
        assert "full" in str(outcome)
    with pytest.raises(StoreUnavailable):
        await told.__anext__()
    assert [len(batch) async for batch in until_failure(applied)] == [3]
    for call in (store.get("/a/0"), store.create("/a/z", b""), store.durable(1), store.list("/a/")):
        with pytest.raises(StoreUnavailable, match="open the store again"):
            await call
    lost = store.revision
    await store.close()

    again = SqliteStore(path)
    assert (await again.list("/a/")).entries == [kept]
    assert again.revision > lost
    await again.create("/a/z", b"")
    await again.close()


async def until_failure(watch):
    try:
        async for batch in watch:
            yield batch
    except StoreUnavailable:
        return


async def test_closing_tells_when_the_last_writes_could_not_be_kept(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    database = store._writer._log._db
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    await store.create("/a/x", bytes(100_000), durable=False)
    with pytest.raises(StoreUnavailable, match="not written to its end"):
        await store.close()


def rows(path: Path) -> list[tuple[int, str]]:
    """What is in the file, read after it was closed."""
    database = sqlite3.connect(path)
    try:
        return database.execute("SELECT revision, key FROM log ORDER BY revision").fetchall()
    finally:
        database.close()


async def test_compaction_deletes_superseded_rows_and_tombstones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.store.sqlite_log._WINDOW", 7)
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    entry = await store.create("/a/x", b"0", durable=False)
    for n in range(100):
        entry = await store.update("/a/x", b"%d" % n, entry.revision, durable=False)
    gone = await store.create("/a/gone", b"", durable=False)
    await store.delete("/a/gone", gone.revision, durable=False)
    revived = await store.create("/a/gone", b"again", durable=False)
    async with asyncio.timeout(10):
        await store.compact(store.revision)
    later = await store.update("/a/x", b"later", entry.revision)
    listing = await store.list("/")
    await store.close()
    assert rows(path) == [(entry.revision, "/a/x"), (revived.revision, "/a/gone"), (later.revision, "/a/x")]
    again = SqliteStore(path)
    assert (await again.list("/")) == listing
    with pytest.raises(Compacted):
        again.watch("/", entry.revision)
    watch = again.watch("/", revived.revision)
    assert [event.previous for event in await watch.__anext__()] == [entry]
    await watch.aclose()
    await again.close()


async def test_the_file_follows_the_bound_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.store.sqlite._COMPACT_EVERY", 50)
    path = tmp_path / "state.db"
    store = SqliteStore(path, log_events=100)
    entry = await store.create("/a/x", b"", durable=False)
    for n in range(2000):
        entry = await store.update("/a/x", b"%d" % n, entry.revision, durable=n % 50 == 0)
    await store.close()
    assert len(rows(path)) < 500
    again = SqliteStore(path)
    assert await again.get("/a/x") == entry
    await again.close()


async def test_a_crash_after_compaction_loads_what_is_live(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    entry = await store.create("/a/x", b"0")
    entry = await store.update("/a/x", b"1", entry.revision)
    gone = await store.create("/a/y", b"0")
    await store.delete("/a/y", gone.revision)
    await store.compact(store.revision)
    last = store.revision
    await store.close()
    log = SqliteLog(path)
    log.load()
    log.close(None)
    again = SqliteStore(path)
    assert (await again.list("/")).entries == [entry]
    watch = again.watch("/", last)  # The newest durable revision, though its row (a tombstone) is gone.
    await watch.aclose()
    await again.close()
