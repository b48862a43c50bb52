from __future__ import annotations

import asyncio

from core.tasks import ended


async def test_it_returns_when_the_task_has_ended() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await ended(task)
    assert task.cancelled()


async def test_what_the_task_raised_is_not_raised_again() -> None:
    async def fail() -> None:
        raise RuntimeError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await ended(task)
    assert isinstance(task.exception(), RuntimeError)


async def test_there_may_be_none() -> None:
    await ended(None)
