"""Pages for whoever looks after the server: for those who may, and what they show."""

from __future__ import annotations

import asyncio

import pytest

from core.apiserver.flow.queues import Limits
from core.errors import ApiError, BadRequest, Forbidden

PROFILE = "/debug/pprof/profile"


async def _read(caller, path, **query):
    return (await caller.transport.request("GET", path, query)).decode()


async def test_a_profile_says_where_the_loop_is(admin):
    over = asyncio.Event()

    async def busy():
        while not over.is_set():
            sum(range(20_000))
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    text = await _read(admin, PROFILE, seconds="0.3")
    over.set()
    await task
    assert "Ordered by: internal time" in text
    rows = [line.split() for line in text.splitlines() if line.rstrip().endswith("(busy)")]
    assert len(rows) == 1 and int(rows[0][0].partition("/")[0]) > 3
    assert "built-in method builtins.sum" in text
    assert "Ordered by: cumulative time" in await _read(admin, PROFILE, seconds="0.05", sort="cumulative")
    with pytest.raises(BadRequest, match="sort must be one of"):
        await _read(admin, PROFILE, seconds="0.05", sort="name")


async def test_one_at_a_time_and_bounded(admin):
    for seconds in ("soon", "0", "-1", "46", "nan"):
        with pytest.raises(BadRequest, match="seconds must be a number"):
            await _read(admin, PROFILE, seconds=seconds)
    first = asyncio.create_task(_read(admin, PROFILE, seconds="0.3"))
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="another profile"):
        await _read(admin, PROFILE, seconds="0.1")
    await first
    await _read(admin, PROFILE, seconds="0.05")


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        PROFILE,
        "/debug/api_priority_and_fairness/dump_priority_levels",
        "/debug/api_priority_and_fairness/dump_queues",
    ],
)
async def test_only_for_those_who_may(admin, caller, path):
    from core.apiserver.authn import User

    ann = caller(User("ann", ("system:authenticated",)))
    with pytest.raises(Forbidden, match=f'User "ann" cannot get path "{path}"'):
        await _read(ann, path, seconds="0.01")
    rule = {"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await admin.post(f"{rbac}/clusterroles", {"metadata": {"name": "debugger"}, "rules": [rule]})
    binding = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "debugger"}, "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]}  # fmt: skip
    await admin.post(f"{rbac}/clusterrolebindings", {"metadata": {"name": "debugger"}, **binding})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await _read(ann, path, seconds="0.01") is not None


async def test_who_waits_is_shown(api, admin):
    seats = api._flow.seats
    seats.configure({"tiny": Limits(1, 1, 1, 5, 5)})
    tickets = [seats.offer("tiny", ("schema", "ann"), 1, 0.0)[0] for _ in range(3)]
    levels = await _read(admin, "/debug/api_priority_and_fairness/dump_priority_levels")
    assert "tiny, 1, false, false, 2, 1, 1, 0, 0, 1, 1\n" in levels
    assert "tiny, schema, ann, 2, 1, " in await _read(admin, "/debug/api_priority_and_fairness/dump_queues")
    text = await _read(admin, "/metrics")
    assert 'apiserver_flowcontrol_current_inqueue_requests{priority_level="tiny"} 2.0' in text
    assert 'apiserver_flowcontrol_dispatched_requests_total{priority_level="tiny"} 1.0' in text
    for each in tickets:
        seats.finish(each, 1.0)
