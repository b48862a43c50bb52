from __future__ import annotations

import asyncio

import pytest

from core.client.workqueue import QueueClosed, WorkQueue


async def get(queue: WorkQueue) -> str:
    async with asyncio.timeout(10):
        return await queue.get()


def later(queue: WorkQueue) -> dict[str, float]:
    """Seconds until each delayed key is due."""
    now = asyncio.get_running_loop().time()
    return {key: handle.when() - now for key, handle in queue._later.items()}


async def test_keys_come_in_order_and_once_however_often_they_are_added() -> None:
    queue = WorkQueue()
    for key in "abacab":
        queue.add(key)
    assert len(queue) == 3
    assert [await get(queue) for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_a_key_that_is_worked_on_waits_until_that_is_done() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await get(queue) == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await get(queue) == "b"
    assert len(queue) == 0
    queue.done("a")
    assert await get(queue) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_waiting_worker_is_woken_by_an_add() -> None:
    queue = WorkQueue()
    workers = [asyncio.create_task(get(queue)) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    assert sorted(await asyncio.gather(*workers)) == ["a", "b"]


async def test_a_worker_cancelled_as_it_is_woken_leaves_the_key_to_another() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(get(queue)) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    await asyncio.gather(first, return_exceptions=True)


async def test_an_add_passes_over_a_cancelled_worker() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(get(queue)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    queue.add("a")
    assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_cancelled_worker_is_forgotten() -> None:
    queue = WorkQueue()
    worker = asyncio.create_task(get(queue))
    await asyncio.sleep(0)
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert not queue._getters


async def test_of_several_delays_the_earliest_holds() -> None:
    queue = WorkQueue()
    queue.add_after("a", 50)
    queue.add_after("a", 20)
    queue.add_after("a", 90)
    assert later(queue) == {"a": pytest.approx(20, abs=1)}
    queue.add_after("a", 0)
    assert await get(queue) == "a"
    queue.close()


async def test_a_delayed_key_comes_when_it_is_due() -> None:
    queue = WorkQueue()
    queue.add_after("b", 0.02)
    queue.add_after("a", 0.01)
    assert len(queue) == 0
    assert [await get(queue), await get(queue)] == ["a", "b"]
    assert later(queue) == {}


async def test_failures_in_a_row_wait_longer_up_to_the_cap_and_success_resets() -> None:
    queue = WorkQueue(base=0.005, cap=60)
    delays = [queue.retry("a") for _ in range(16)]
    assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
    assert delays[13:] == [pytest.approx(40.96), 60, 60]
    assert queue.failures("a") == 16
    assert queue.retry("b") == 0.005
    queue.forget("a")
    assert queue.failures("a") == 0
    assert queue.retry("a") == 0.005
    assert [queue.retry("c") for _ in range(2000)][-1] == 60
    queue.close()


async def test_closing_ends_workers_and_timers() -> None:
    queue = WorkQueue()
    workers = [asyncio.create_task(get(queue)) for _ in range(3)]
    queue.add_after("a", 100)
    await asyncio.sleep(0)
    queue.close()
    for worker in workers:
        with pytest.raises(QueueClosed):
            await worker
    assert later(queue) == {}
    queue.add("a")
    queue.add_after("b", 1)
    assert len(queue) == 0
    assert later(queue) == {}
    with pytest.raises(QueueClosed):
        await get(queue)


async def test_closing_leaves_what_is_queued_undone() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("b")
    assert await get(queue) == "a"
    queue.add("a")
    queue.close()
    queue.done("a")
    with pytest.raises(QueueClosed):
        await get(queue)
