"""The alarm rings by the wall clock."""

from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest

from gateway.jobs.cron import alarm as module
from gateway.jobs.cron.alarm import Alarm

TIMEOUT = 5.0


@pytest.fixture
async def bell():
    rung = asyncio.Event()
    alarm = Alarm(rung.set)
    yield alarm, rung
    alarm.close()
    alarm.close()


async def test_it_rings_at_its_time_and_not_before(bell):
    alarm, rung = bell
    at = time.time() + 0.1
    alarm.set(at)
    async with asyncio.timeout(TIMEOUT):
        await rung.wait()
    assert 0 <= time.time() - at < 1.0


async def test_a_time_that_has_passed_rings_at_once_and_a_new_time_replaces_the_old(bell):
    alarm, rung = bell
    alarm.set(time.time() + 1000)
    alarm.set(5.0)
    async with asyncio.timeout(TIMEOUT):
        await rung.wait()
    rung.clear()
    alarm.set(None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await rung.wait()


async def test_a_clock_that_was_set_rings_too(bell, monkeypatch):
    """The kernel's word for it is ECANCELED (timerfd_create(2)); a test can't set the clock."""
    alarm, rung = bell

    def canceled(descriptor: int, size: int) -> bytes:
        monkeypatch.undo()
        os.read(descriptor, size)
        raise OSError(errno.ECANCELED, "Operation canceled")

    monkeypatch.setattr(module.os, "read", canceled)
    alarm.set(time.time() + 0.01)
    async with asyncio.timeout(TIMEOUT):
        await rung.wait()
