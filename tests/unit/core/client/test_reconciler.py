from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter

import pytest

from core.client.reconciler import Reconciler
from core.client.workqueue import WorkQueue
from core.errors import Conflict, NotFound


async def test_every_key_is_reconciled_and_none_twice_at_once() -> None:
    rng = random.Random(5)
    running: set[str] = set()
    last_seen: dict[str, int] = {}
    changes: dict[str, int] = {}
    most = 0
    idle = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal most
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        seen = changes[key]
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        last_seen[key] = seen
        running.discard(key)
        if not running and last_seen == changes and finished:
            idle.set()

    finished = False
    reconciler = Reconciler("test", reconcile, workers=4)
    await reconciler.start()
    for n in range(500):
        key = f"k{rng.randrange(12)}"
        changes[key] = n
        reconciler.queue.add(key)
        if rng.random() < 0.2:
            await asyncio.sleep(0)
    finished = True
    changes["end"] = 1
    reconciler.queue.add("end")
    async with asyncio.timeout(10):
        await idle.wait()
    assert last_seen == changes, "the last change of some key was never seen"
    assert most == 4
    await reconciler.stop()


async def test_what_it_returns_is_when_it_wants_the_key_again() -> None:
    answers = {"a": [0.01, 0, None]}
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        seen.append(key)
        again = answers[key].pop(0)
        if again is None:
            done.set()
        return again

    reconciler = Reconciler("test", reconcile)
    reconciler.queue.add("a")
    await reconciler.start()
    async with asyncio.timeout(10):
        await done.wait()
    await reconciler.stop()
    assert seen == ["a", "a", "a"]


async def test_failures_are_logged_once_each_and_tried_again(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[Exception] = [Conflict("changed"), NotFound("gone"), RuntimeError("a bug")]
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    reconciler = Reconciler("things", reconcile, queue=WorkQueue(base=0.001))
    reconciler.queue.add("default/a")
    await reconciler.start()
    async with asyncio.timeout(10):
        await done.wait()
    await asyncio.sleep(0)
    assert reconciler.queue.failures("default/a") == 0
    await reconciler.stop()
    records = [record for record in caplog.records if record.name == "core.client.reconciler"]
    assert [record.levelname for record in records] == ["DEBUG", "WARNING", "ERROR"]
    assert all("things: default/a" in record.getMessage() for record in records)
    assert [record.exc_info is not None for record in records] == [False, False, True]


async def test_one_key_that_fails_doesn_t_hold_up_another() -> None:
    calls: Counter[str] = Counter()
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        calls[key] += 1
        if key == "bad":
            raise RuntimeError
        if calls["good"] == 20:
            done.set()
        else:
            reconciler.queue.add("good")

    reconciler = Reconciler("test", reconcile, queue=WorkQueue(base=1000, cap=1000))
    reconciler.queue.add("bad")
    reconciler.queue.add("good")
    await reconciler.start()
    async with asyncio.timeout(10):
        await done.wait()
    await reconciler.stop()
    assert calls["bad"] == 1


async def test_a_long_queue_of_work_that_never_waits_leaves_the_loop_to_others() -> None:
    turns = 0

    async def reconcile(key: str) -> None:
        if key == "99":
            done.set()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not done.is_set():
            loop.call_soon(turn)

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    reconciler = Reconciler("test", reconcile)
    for n in range(100):
        reconciler.queue.add(str(n))
    await reconciler.start()
    loop.call_soon(turn)
    async with asyncio.timeout(10):
        await done.wait()
    await reconciler.stop()
    assert turns >= 99


async def test_one_iteration_can_be_called() -> None:
    async def reconcile(key: str) -> float | None:
        raise NotFound(key)

    reconciler = Reconciler("test", reconcile, queue=WorkQueue(base=100))
    await reconciler.run_one("a")
    assert reconciler.queue.failures("a") == 1
    await reconciler.stop()


async def test_stopping_lets_what_runs_end_and_cancels_what_doesn_t() -> None:
    ends, began, ended, cancelled = asyncio.Event(), asyncio.Event(), [], []

    async def reconcile(key: str) -> None:
        if key == "second":
            began.set()
        try:
            await (ends.wait() if key == "first" else asyncio.Event().wait())
            ended.append(key)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    reconciler = Reconciler("test", reconcile, workers=2)
    for key in ("first", "second", "never"):
        reconciler.queue.add(key)
    await reconciler.start()
    async with asyncio.timeout(10):
        await began.wait()
    stopping = asyncio.create_task(reconciler.stop(grace=0.1))
    await asyncio.sleep(0)
    ends.set()
    await stopping
    assert (ended, cancelled) == (["first"], ["second"])


async def test_stopping_what_never_started_is_fine() -> None:
    async def reconcile(key: str) -> None:
        pytest.fail("nothing may run")

    reconciler = Reconciler("test", reconcile)
    reconciler.queue.add("a")
    await reconciler.stop()


async def test_late_work_waits_for_a_lull_and_other_work_doesn_t(monkeypatch: pytest.MonkeyPatch) -> None:
    over = asyncio.Event()
    done = {"late": asyncio.Event(), "soon": asyncio.Event()}

    class Busy:
        async def wait(self) -> None:
            await over.wait()

    monkeypatch.setattr("core.client.reconciler.LULL", Busy())

    async def reconcile(key: str) -> None:
        done[key].set()

    late, soon = Reconciler("late", reconcile, late=True), Reconciler("soon", reconcile)
    await late.start()
    late.queue.add("late")
    await soon.start()
    soon.queue.add("soon")
    async with asyncio.timeout(10):
        await done["soon"].wait()
        assert not done["late"].is_set()
        over.set()
        await done["late"].wait()
    await late.stop()
    await soon.stop()
