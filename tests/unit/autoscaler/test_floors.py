"""Scheduled minima, and the delay before instances go."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from autoscaler.decider import Observation, State, decide
from autoscaler.floors import minimum
from autoscaler.scaler import Autoscaler
from core.client.informer import Informers
from core.client.rest import Client
from faaslite.api.wire import Floor, ScalePolicy

OSLO = "Europe/Oslo"
NOW = 10_000.0
OFFICE = Floor("0 8 * * MON-FRI", 5, OSLO, until="0 18 * * MON-FRI")
HOUR = Floor("30 11 * * *", 9, OSLO, duration=3600.0)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(OSLO)).timestamp()


@pytest.mark.parametrize(
    ("when", "replicas", "until"),
    [
        ("2026-03-25T07:59:59", 1, "2026-03-25T08:00"),
        ("2026-03-25T08:00", 5, "2026-03-25T11:30"),
        ("2026-03-25T11:30", 9, "2026-03-25T12:30"),
        ("2026-03-25T12:30", 5, "2026-03-25T18:00"),
        ("2026-03-25T18:00", 1, "2026-03-26T08:00"),
        ("2026-03-28T12:00", 9, "2026-03-28T12:30"),  # a Saturday
        ("2026-03-28T13:00", 1, "2026-03-29T11:30"),  # the clock goes forward that night
    ],
)
def test_floors_hold_in_their_hours(when, replicas, until):
    found = minimum(ScalePolicy(min=1, floors=(OFFICE, HOUR)), at(when))
    assert (found.replicas, found.until) == (replicas, at(until))
    assert bool(found.why) == (replicas > 1)


def test_without_floors_the_minimum_is_the_policys_for_good():
    assert minimum(ScalePolicy(min=3), at("2026-01-01T00:00")) == (3, math.inf, "")
    assert minimum(ScalePolicy(min=3, floors=(Floor("nonsense", 9, duration=9.0),)), 0.0)[:2] == (3, math.inf)


def seen(stable: float, replicas: int) -> Observation:
    return Observation(stable, stable, 0.0, 0, replicas, replicas, NOW)


def test_instances_go_only_when_nothing_within_the_delay_asked_for_more():
    policy = ScalePolicy(target=1.0, max=0, down_delay=10.0, down_rate=100.0)
    state, replicas, told = State(), 8, []
    for second, load in ((0, 8), (1, 3), (5, 6), (6, 2), (11, 2), (12, 2), (15, 2), (16, 2), (17, 2)):
        found = decide(policy, seen(load, replicas)._replace(last_active=NOW + second), state, NOW + second)
        state, replicas = found.state, found.replicas
        told.append((second, replicas))
    assert told == [(0, 8), (1, 8), (5, 8), (6, 8), (11, 6), (12, 6), (15, 2), (16, 2), (17, 2)]


def test_growing_is_never_delayed():
    policy = ScalePolicy(target=1.0, max=0, down_delay=60.0)
    assert decide(policy, seen(9, 4), State(asked=((NOW - 5, 4),)), NOW).replicas == 9


def test_rates_bound_a_step():
    policy = ScalePolicy(target=1.0, max=0, up_rate=2.0, down_rate=4.0)
    assert decide(policy, seen(100, 4), State(), NOW).replicas == 8
    assert decide(policy, seen(1, 40), State(), NOW).replicas == 10


async def test_a_floor_raises_a_revision_without_calls_and_metrics_tell_of_it(api, tmp_path):
    client = Client(api)
    informers = Informers(client)
    path = tmp_path / "a.sock"
    autoscaler = Autoscaler(client, informers, path, clock=lambda: NOW)
    floor = {"cron": "* * * * *", "min": 4, "duration": 3600.0}
    api.put("hello-00001", replicas=0, policy={"floors": [floor]})
    await autoscaler.start()
    await informers.start()
    await informers.wait_synced()
    autoscaler.tick(NOW)
    await autoscaler.settled()
    assert api.writes == [("hello-00001", 4)]
    assert "scheduled: * * * * *" in autoscaler.decisions("default/hello-00001")[0].reason
    for target, status in ((b"/metrics", b"200"), (b"/other", b"404")):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET %s HTTP/1.0\r\n\r\n" % target)
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert reply.split(b" ", 2)[1] == status
        if status == b"200":
            assert b'faaslite_autoscaler_wanted_replicas{namespace="default",revision="hello-00001"} 4' in reply
            assert b'faaslite_autoscaler_scalings_total{direction="up"} 1' in reply
    await autoscaler.stop()
    await informers.stop()
