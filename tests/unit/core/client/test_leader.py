from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from core.api.kinds import LEASE
from core.api.views import Lease, LeaseSpec, Metadata
from core.client.leader import Action, Decision, Fence, LeaderElector, Observed, decide
from core.client.rest import Client
from core.errors import Conflict, ServiceUnavailable

MINE = Fence("u", 3)


def seen(holder: str | None, *, since: float = 100.0, duration: int = 15, term: int = 3) -> Observed:
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=duration, lease_transitions=term)
    return Observed(Lease(metadata=Metadata(name="l", uid="u"), spec=spec), since)


@pytest.mark.parametrize(
    ("observed", "fence", "now", "wanted"),
    [
        (None, None, 100, Decision(Action.CREATE)),
        (None, MINE, 100, Decision(Action.CREATE)),
        (seen("me"), MINE, 100, Decision(Action.RENEW)),
        (seen("me", since=0), MINE, 100, Decision(Action.RENEW)),
        (seen("me"), None, 100, Decision(Action.TAKE)),
        (seen("me", term=4), MINE, 100, Decision(Action.TAKE)),
        (seen("other"), None, 100, Decision(Action.WAIT, 15)),
        (seen("other"), MINE, 104, Decision(Action.WAIT, 11)),
        (seen("other"), None, 114.5, Decision(Action.WAIT, 0.5)),
        (seen("other"), None, 115, Decision(Action.TAKE)),
        (seen("other", duration=0), None, 100, Decision(Action.TAKE)),
        (seen(""), None, 100, Decision(Action.TAKE)),
        (seen(None), MINE, 100, Decision(Action.TAKE)),
    ],
)
def test_what_a_candidate_does(observed: Observed | None, fence: Fence | None, now: float, wanted: Decision) -> None:
    assert decide(observed, "me", fence, now) == wanted


class Candidate(LeaderElector):
    """A candidate that keeps what it was told, with times short enough for a test."""

    def __init__(self, api, identity: str, **times) -> None:
        self.told: list[int | None] = []
        self.stopped = asyncio.Event()
        times = {"duration": 15, "renew_deadline": 10, "retry": 2} | times
        super().__init__(
            Client(api), "lease", "kube-system", identity,
            on_started=lambda fence: self.told.append(fence.term), on_stopped=self._lost, **times,
        )  # fmt: skip

    def _lost(self) -> None:
        self.told.append(None)
        self.stopped.set()

    async def leads(self) -> Fence:
        async with asyncio.timeout(10):
            return await self.wait_leading()


@pytest.fixture
async def candidate(api) -> AsyncIterator:
    made: list[Candidate] = []

    def make(identity: str, to=api, **times) -> Candidate:
        made.append(Candidate(to, identity, **times))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


def lease(api) -> dict:
    (found,) = (each for key, each in api.objects.items() if key[0].endswith("/leases"))
    return found


async def test_the_first_candidate_leads_and_renews(api, candidate) -> None:
    one = candidate("one")
    await one.step()
    fence = one.fence
    assert fence == Fence(lease(api)["metadata"]["uid"], 0)
    first = dict(lease(api)["spec"])
    assert await one.step() == 2
    again = lease(api)["spec"]
    assert (again["holderIdentity"], again["acquireTime"]) == ("one", first["acquireTime"])
    assert again["renewTime"] > first["renewTime"]
    assert one.fence == fence
    assert one.told == [0]


async def test_another_waits_until_the_lease_ran_out_on_its_own_clock(api, candidate, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("core.client.leader.monotonic", lambda: now)
    one, two = candidate("one"), candidate("two")
    await one.step()
    assert await two.step() == 15
    now += 10
    assert await two.step() == 5
    await one.step()
    assert await two.step() == 15, "a renewal starts the wait anew"
    now += 15
    await two.step()
    assert (two.fence.term, two.told) == (1, [1])
    assert await one.step() == 15
    assert (one.fence, one.told) == (None, [0, None])


async def test_of_two_that_take_it_at_once_one_gets_it(api, candidate) -> None:
    one, two = candidate("one"), candidate("two")
    outcomes = await asyncio.gather(one.step(), two.step(), return_exceptions=True)
    assert sum(each.fence is not None for each in (one, two)) == 1
    assert all(isinstance(each, (int, float, Exception)) for each in outcomes)


async def test_a_candidate_that_comes_back_under_its_name_begins_a_new_term(api, candidate) -> None:
    await candidate("one").step()
    reborn = candidate("one")
    await reborn.step()
    assert reborn.fence.term == 1


async def test_releasing_hands_over_at_once(api, candidate) -> None:
    one, two = candidate("one"), candidate("two")
    await one.start()
    await one.leads()
    await two.start()
    async with asyncio.timeout(10):
        await api.watch_began.wait()  # The follower watches the Lease: it doesn't ask every so often.
    await one.stop()
    assert one.told == [0, None]
    assert (await two.leads()).term == 1
    assert lease(api)["spec"]["holderIdentity"] == "two"


async def test_a_lease_that_is_deleted_is_taken_by_a_follower(api, candidate) -> None:
    api.put(
        LEASE,
        {"metadata": {"name": "lease"}, "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 3600}},
        "kube-system",
    )
    two = candidate("two")
    await two.start()
    async with asyncio.timeout(10):
        await api.watch_began.wait()
    api.remove(LEASE, "lease", "kube-system")
    assert (await two.leads()).term == 0


async def test_a_leader_that_can_t_renew_steps_down_before_another_may_begin(api, candidate) -> None:
    one = candidate("one", duration=1, renew_deadline=0.2, retry=0.02)
    await one.start()
    await one.leads()
    began = asyncio.get_running_loop().time()
    api.failures += [ServiceUnavailable("down")] * 1000
    async with asyncio.timeout(10):
        await one.stopped.wait()
    assert asyncio.get_running_loop().time() - began < 1
    assert one.fence is None
    api.failures.clear()
    assert (await one.leads()).term == 1


async def test_a_leader_whose_write_hangs_steps_down_all_the_same(api, candidate) -> None:
    class Hanging(type(api)):
        hangs = False

        async def request(self, *parts, **named):
            if self.hangs:
                await asyncio.Event().wait()
            return await super().request(*parts, **named)

    slow = Hanging()
    one = candidate("one", slow, duration=1, renew_deadline=0.1, retry=0.02)
    await one.start()
    await one.leads()
    slow.hangs = True
    async with asyncio.timeout(10):
        await one.stopped.wait()
        await one.stop()


async def test_stopping_doesn_t_wait_for_an_api_that_hangs(api, candidate) -> None:
    class Hanging(type(api)):
        hangs = False

        async def request(self, *parts, **named):
            if self.hangs:
                await asyncio.Event().wait()
            return await super().request(*parts, **named)

    slow = Hanging()
    one = candidate("one", slow, retry=0.02)
    await one.step()
    slow.hangs = True
    async with asyncio.timeout(10):
        await one.stop()
    assert one.told == [0, None]


async def test_a_conflict_is_looked_at_and_not_overwritten(api, candidate) -> None:
    one, two = candidate("one"), candidate("two", duration=15)
    await one.step()
    plain = api.request
    raced = False

    async def race(method, path, *rest):
        nonlocal raced
        if method == "PUT" and not raced:
            raced = True
            stolen = {**lease(api), "spec": {**lease(api)["spec"], "holderIdentity": "two", "leaseTransitions": 1}}
            api.put(LEASE, stolen, "kube-system")
        return await plain(method, path, *rest)

    api.request = race
    with pytest.raises(Conflict):
        await one.step()
    assert await one.step() > 0
    assert one.fence is None
    assert lease(api)["spec"]["holderIdentity"] == "two"
    with contextlib.suppress(Conflict):
        await two.step()


def test_times_must_be_in_order(api) -> None:
    for times in ({"duration": 5}, {"retry": 11}, {"retry": 0}):
        with pytest.raises(ValueError, match="renew_deadline"):
            Candidate(api, "x", **times)
