"""Parts run while the Lease is held, and not a moment longer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from core.api.kinds import LEASE
from core.errors import Conflict
from faaslite.api.names import SYSTEM_NAMESPACE
from gateway.jobs.leadership import Leadership

TIMEOUT = 5.0


class Part:
    def __init__(self, name: str, log: list[str], fails: int = 0) -> None:
        self.name, self.log, self.fails = name, log, fails
        self.changed = asyncio.Event()

    async def start(self) -> None:
        self.log.append(f"start {self.name}")
        self.changed.set()
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not yet")

    async def stop(self) -> None:
        self.log.append(f"stop {self.name}")
        self.changed.set()

    async def until(self, entry: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            while entry not in self.log:
                self.changed.clear()
                await self.changed.wait()


async def test_parts_stop_when_another_takes_the_lease_and_start_again_with_it(cluster):
    log: list[str] = []
    first, second = Part("1", log), Part("2", log)
    leadership = Leadership(cluster.jobs_client(), "test", SYSTEM_NAMESPACE, "me", (first, second))
    await leadership.start()
    await second.until("start 2")
    assert log == ["start 1", "start 2"]

    lease = await cluster.admin.get(LEASE, "test", SYSTEM_NAMESPACE)
    lease["spec"] |= {"holderIdentity": "thief", "leaseDurationSeconds": 1, "leaseTransitions": 7}
    await cluster.admin.update(LEASE, lease)
    for _ in range(2):  # the first round is refused by the Lease's version, the second sees who has it
        with contextlib.suppress(Conflict):
            await leadership._elector.step()
    await first.until("stop 1")
    assert log == ["start 1", "start 2", "stop 2", "stop 1"]
    assert not leadership.leading

    log.clear()
    await second.until("start 2")  # the thief's lease runs out
    await leadership.stop()
    assert log == ["start 1", "start 2", "stop 2", "stop 1"]
    lease = await cluster.admin.get(LEASE, "test", SYSTEM_NAMESPACE)
    assert lease["spec"].get("holderIdentity", "") == "", "released"


async def test_a_part_that_can_not_start_is_tried_again(cluster, monkeypatch, caplog):
    monkeypatch.setattr("gateway.jobs.leadership.TROUBLE", 0.01)
    log: list[str] = []
    first, second = Part("1", log), Part("2", log, fails=1)
    leadership = Leadership(cluster.jobs_client(), "test", SYSTEM_NAMESPACE, "me", (first, second))
    await leadership.start()
    async with asyncio.timeout(TIMEOUT):
        while log.count("start 2") < 2:
            second.changed.clear()
            await second.changed.wait()
    assert log == ["start 1", "start 2", "stop 2", "stop 1", "start 1", "start 2"]
    assert "could not begin to execute calls" in caplog.text
    await leadership.stop()


@pytest.mark.parametrize("rounds", [2])
async def test_stop_before_the_lease_is_won_is_harmless(cluster, rounds):
    for _ in range(rounds):
        leadership = Leadership(cluster.jobs_client(), "test", SYSTEM_NAMESPACE, "me", ())
        await leadership.start()
        await leadership.stop()
