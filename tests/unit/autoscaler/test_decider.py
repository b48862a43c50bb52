"""The decider: rows of (policy, observation, state) -> replicas, and what holds for every input."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decider import FIRST_START, Observation, State, decide, initial_state
from faaslite.api.wire import ScalePolicy

NOW = 10_000.0
POLICY = ScalePolicy(target=7.0, max=100, limit=10)


def seen(**given) -> Observation:
    """A revision with one ready instance that had a call just now, but for what is given."""
    values = {
        "stable": 0.0,
        "panic": 0.0,
        "in_flight": 0.0,
        "waiting": 0,
        "replicas": 1,
        "ready": 1,
        "last_active": NOW,
    }
    return Observation(**{**values, **given})


ROWS = [
    ("one call keeps one", POLICY, seen(stable=1, panic=1, in_flight=1), State(), 1),
    ("exactly the target is one", POLICY, seen(stable=7, panic=7, in_flight=7), State(), 1),
    ("over the target is two", POLICY, seen(stable=7.1, panic=7.1, in_flight=7), State(), 2),
    ("a float's hair over is not one more", POLICY, seen(stable=7.0000000001, panic=7, in_flight=7), State(), 1),
    ("the stable window decides", POLICY, seen(stable=35, panic=35, in_flight=35, replicas=4, ready=4), State(), 5),
    ("half at most goes in one step", POLICY, seen(stable=7, panic=7, replicas=20, ready=20), State(), 10),
    ("down by the average", POLICY, seen(stable=84, panic=84, replicas=20, ready=20), State(), 12),
    ("calls in flight hold theirs", POLICY, seen(stable=42, panic=42, in_flight=80, replicas=10, ready=10), State(), 10),
    ("a surge follows the panic window", POLICY, seen(stable=7, panic=28, in_flight=28, replicas=2, ready=2), State(), 4),
    ("under the threshold it doesn't", POLICY, seen(stable=7, panic=21, in_flight=7, replicas=2, ready=2), State(), 1),
    ("in panic nothing shrinks", POLICY, seen(stable=7, panic=7, replicas=9, ready=9), State(NOW - 30, 9), 9),
    ("panic ends after a stable window", POLICY, seen(stable=7, panic=7, replicas=9, ready=9), State(NOW - 60, 9), 4),
    ("panic holds starting replicas", POLICY, seen(stable=3, panic=14, replicas=30, ready=1), State(), 30),
    ("a poke from zero", POLICY, seen(waiting=1, replicas=0, ready=0), State(), 1),
    ("many wait: as many as hold them, at once", POLICY, seen(waiting=95, replicas=0, ready=0), State(), 10),
    ("no limit: waiting by the target", ScalePolicy(limit=0, max=0), seen(waiting=20, replicas=0, ready=0), State(), 3),
    ("limit 1 to 100", ScalePolicy(target=0.7, limit=1, max=0), seen(waiting=100, replicas=0, ready=0), State(), 100),
    ("the maximum stands", ScalePolicy(limit=1, max=5), seen(waiting=100, replicas=0, ready=0), State(), 5),
    ("0 is no maximum", ScalePolicy(max=0), seen(stable=7000, panic=7000, replicas=1, ready=1), State(), 1000),
    ("the last one stays for idle", POLICY, seen(last_active=NOW - 29), State(), 1),
    ("idle: zero", POLICY, seen(last_active=NOW - 30, stable=0.4), State(), 0),
    ("idle: zero from many, in panic too", POLICY, seen(last_active=NOW - 30, replicas=9, ready=9), State(NOW - 31, 9), 0),
    ("idle: the minimum", ScalePolicy(min=2), seen(last_active=NOW - 500, replicas=5, ready=5), State(), 2),
    ("a long call is not idle", POLICY, seen(last_active=NOW - 500, in_flight=1, stable=1, panic=1), State(), 1),
    ("waiting is not idle", POLICY, seen(last_active=NOW - 500, waiting=1, replicas=0, ready=0), State(), 1),
    ("zero stays zero", POLICY, seen(last_active=NOW - 500, replicas=0, ready=0), State(), 0),
    ("the minimum is raised to", ScalePolicy(min=3), seen(replicas=0, ready=0, last_active=NOW - 500), State(), 3),
    ("a first start is not idle", POLICY, seen(ready=0, starting=True, last_active=NOW - 300), State(), 1),
    ("unless another has taken its place", ScalePolicy(live=False), seen(ready=0, starting=True, last_active=NOW - 300), State(), 0),
    ("but not for ever", POLICY, seen(ready=0, starting=True, last_active=NOW - FIRST_START), State(), 0),
    ("a first start can be poked higher", POLICY, seen(ready=0, starting=True, waiting=50), State(), 5),
    ("rps", ScalePolicy(metric="rps", target=100), seen(stable=350, panic=350, replicas=4, ready=4), State(), 4),
    ("rps: calls in flight hold by the limit", ScalePolicy(metric="rps", target=100, limit=10),
     seen(stable=100, panic=100, in_flight=35, replicas=5, ready=5), State(), 4),
    ("a shrinking minimum of ready wins over none", POLICY, seen(stable=0, panic=0, replicas=3, ready=0), State(), 1),
]  # fmt: skip


@pytest.mark.parametrize(("what", "policy", "observation", "state", "replicas"), ROWS, ids=[row[0] for row in ROWS])
def test_rows(what, policy, observation, state, replicas):
    decision = decide(policy, observation, state, NOW)
    assert (decision.replicas, bool(decision.reason)) == (replicas, True), decision


def test_a_surge_starts_panic_and_each_further_one_extends_it():
    first = decide(POLICY, seen(stable=2, panic=28, in_flight=28), State(), NOW)
    assert first.state == State(NOW, 4)
    calm = decide(POLICY, seen(stable=2, panic=2, in_flight=2, replicas=4, ready=4), first.state, NOW + 40)
    assert (calm.replicas, calm.state.panic_since) == (4, NOW)
    again = decide(POLICY, seen(stable=20, panic=70, in_flight=70, replicas=4, ready=4), calm.state, NOW + 50)
    assert again.state == State(NOW + 50, 10)
    held = decide(POLICY, seen(stable=7, panic=7, replicas=10, ready=10, last_active=NOW + 100), again.state, NOW + 100)
    assert (held.replicas, held.state.panic_since) == (10, NOW + 50)
    over = decide(POLICY, seen(stable=7, panic=7, replicas=10, ready=10, last_active=NOW + 110), held.state, NOW + 110)
    assert (over.replicas, over.state) == (5, State())


def test_a_poke_for_many_is_not_taken_back_by_the_next_tick():
    poked = decide(POLICY, seen(waiting=95, replicas=0, ready=0), State(), NOW)
    tick = decide(POLICY, seen(stable=1, panic=1, in_flight=1, replicas=10, ready=1), poked.state, NOW + 1)
    assert (poked.replicas, tick.replicas) == (10, 10)


def test_a_revision_first_seen_with_many_replicas_keeps_them_for_a_window():
    state = initial_state(12, NOW)
    observation = seen(stable=3, panic=3, in_flight=3, replicas=12, ready=12, last_active=NOW + 100)
    assert decide(POLICY, observation, state, NOW + 59).replicas == 12
    assert decide(POLICY, observation, state, NOW + 60).replicas == 6
    assert initial_state(1, NOW) == State()


def test_the_reason_says_why():
    assert decide(POLICY, seen(last_active=NOW - 45), State(), NOW).reason == "no calls for 45 s (idle is 30 s)"
    surge = decide(POLICY, seen(stable=2, panic=28), State(), NOW)
    assert surge.reason == "surge: 28 calls in flight on average over 6 s, 7 per instance"
    capped = decide(ScalePolicy(limit=1, max=5), seen(waiting=100, replicas=0, ready=0), State(), NOW)
    assert capped.reason == "100 calls wait for an instance (100 wanted); the maximum is 5"
    assert capped.capped


policies = st.builds(
    ScalePolicy,
    target=st.floats(0.1, 200),
    metric=st.sampled_from(["concurrency", "rps"]),
    min=st.integers(0, 5),
    max=st.sampled_from([0, 5, 20, 1000]),
    idle=st.floats(0, 300),
    stable=st.floats(6, 600),
    limit=st.integers(0, 100),
)
loads = st.floats(0, 5000)
observations = st.builds(
    Observation,
    stable=loads,
    panic=loads,
    in_flight=loads,
    waiting=st.integers(0, 5000),
    replicas=st.integers(0, 500),
    ready=st.integers(0, 500),
    last_active=st.floats(NOW - 1000, NOW),
    starting=st.booleans(),
)
states = st.one_of(st.just(State()), st.builds(State, st.floats(NOW - 700, NOW), st.integers(0, 500)))


@given(policies, observations, states)
def test_what_always_holds(policy, observation, state):
    decision = decide(policy, observation, state, NOW)
    top = policy.max or math.inf
    assert policy.min <= decision.replicas <= max(top, policy.min)
    if observation.waiting or observation.in_flight > 0:
        assert decision.replicas >= 1, "calls are there, so an instance must be"
    if decision.replicas == 0:
        assert NOW - observation.last_active >= policy.idle
    idle = not observation.waiting and observation.in_flight <= 0 and NOW - observation.last_active >= policy.idle
    if not idle:
        assert decision.replicas >= min(observation.ready // 2, top)
    if decision.state.panic_since is not None and not observation.starting:
        assert decision.replicas >= min(decision.state.panic_replicas, top)
    per = policy.target if policy.metric == "concurrency" else policy.limit
    if observation.in_flight > 0 and per:
        needed = math.ceil(observation.in_flight / per - 1e-9)
        assert decision.replicas >= min(needed, observation.replicas, top), "taken from calls in flight"
    assert decision.reason


@given(policies, st.floats(0.1, 2000), st.integers(0, 500))
def test_a_steady_load_comes_to_rest_at_what_it_needs(policy, load, ready):
    """Each step carried out at once: the replicas end at load over target, within the bounds, and stay there."""
    needed = max(math.ceil(load / policy.target - 1e-9), policy.min)
    rest = min(needed, policy.max) if policy.max else needed
    state, now = initial_state(ready, NOW), NOW
    seen_replicas = []
    for _ in range(24):
        observation = Observation(load, load, load, 0, ready, ready, now)
        ready, _, state, _ = decide(policy, observation, state, now)
        seen_replicas.append(ready)
        now += policy.stable
    if policy.metric == "concurrency":
        assert seen_replicas[-4:] == [rest] * 4, seen_replicas
    else:  # calls in flight may hold more than their rate asks for
        assert len(set(seen_replicas[-4:])) == 1
        assert seen_replicas[-1] >= rest
