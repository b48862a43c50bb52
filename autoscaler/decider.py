"""How many replicas a revision should have. Pure: policy, observation, state and `now` in; a decision that can say why, out.

The algorithm is Knative's KPA (https://knative.dev/docs/serving/autoscaling/kpa-specific/): aim at `target` per instance by
the average of a stable window; where the panic window asks for twice what is ready, follow the larger of both averages
and don't shrink until a stable window has passed without such a surge; grow by at most 1000 times and shrink to no less than half
of what is ready in one decision. Three things differ, because the gateway is always in the path and in-flight counts are exact:
calls that wait for a first instance count at once, an instance isn't taken away from calls in flight, and a
revision without a call for `idle` seconds goes to its minimum whatever the averages still remember.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from faaslite.api.wire import ScalePolicy

__all__ = ["FIRST_START", "Decision", "Observation", "State", "decide", "initial_state"]

PANIC_THRESHOLD = 2.0
FIRST_START = 600.0
"""Seconds that a new revision is given to become ready for the first time before it counts as idle."""


class State(NamedTuple):
    """What a decision leaves to the next: when the panic was last fed (None: no panic), and the replicas it holds.

    `asked` are (time, replicas) within the scale-down delay, each fewer than the one before it: the first is the most that was asked for.
    """

    panic_since: float | None = None
    panic_replicas: int = 0
    asked: tuple[tuple[float, int], ...] = ()


class Observation(NamedTuple):
    """One revision at one moment.

    `stable` and `panic` are averages in the unit of the policy's metric, `in_flight` the calls in flight by the latest
    reports, `waiting` those without an instance now. `replicas` is `spec.replicas`, `ready` how many are ready.
    `last_active` is when it last had a call, or when it was first seen, whichever is later; `starting` says that no instance
    of it has been ready yet.
    """

    stable: float
    panic: float
    in_flight: float
    waiting: int
    replicas: int
    ready: int
    last_active: float
    starting: bool = False


class Decision(NamedTuple):
    """`capped` says that the policy's maximum stands against what the load asks for."""

    replicas: int
    reason: str
    state: State
    capped: bool = False


def initial_state(replicas: int, now: float) -> State:
    """The state of a revision that is first seen with `replicas`.

    More than one replica starts in panic: without a history the averages would ask for fewer than run.
    """
    return State(now, replicas) if replicas > 1 else State()


def decide(policy: ScalePolicy, seen: Observation, state: State, now: float) -> Decision:
    """What `spec.replicas` should be at `now`."""
    return _delayed(policy, seen, _decide(policy, seen, state, now), state, now)


def _decide(policy: ScalePolicy, seen: Observation, state: State, now: float) -> Decision:
    if (
        seen.starting
        and policy.live
        and seen.waiting == 0
        and seen.in_flight == 0
        and now - seen.last_active < FIRST_START
    ):
        return _bounded(policy, max(seen.replicas, policy.min), state, "waits for its first instance to become ready")
    if _idle(policy, seen, now):
        quiet = f"no calls for {now - seen.last_active:.0f} s (idle is {policy.idle:g} s)"
        return _bounded(policy, 0, State(), quiet)

    base = max(1, seen.ready)
    most = math.ceil(base * policy.up_rate)
    least = math.floor(base / policy.down_rate)
    by_waiting = _instances(seen.waiting, policy.limit or policy.target)
    by_stable = _instances(seen.stable, policy.target)
    by_panic = max(_instances(seen.panic, policy.target), by_waiting)
    state = _panic(policy, seen, state, by_panic / base >= PANIC_THRESHOLD, now)

    wanted, reason = by_stable, _average(policy, seen.stable, policy.stable)
    if state.panic_since is not None and by_panic >= wanted:
        wanted, reason = by_panic, f"surge: {_average(policy, seen.panic, policy.stable / 10)}"
    if by_waiting and by_waiting >= wanted:
        wanted, reason = by_waiting, f"{seen.waiting} calls wait for an instance"
    if not least <= wanted <= most:
        wanted = min(max(wanted, least), most)
        reason += f"; in one step no further than {wanted} from {seen.ready} ready"
    if state.panic_since is not None:
        if wanted < state.panic_replicas:
            held = now - state.panic_since
            wanted, reason = state.panic_replicas, f"holds {state.panic_replicas} since the surge {held:.0f} s ago"
        state = State(state.panic_since, wanted)
    busy = _busy(policy, seen)
    if wanted < busy:
        wanted, reason = busy, f"{seen.in_flight:g} calls are in flight"
    if wanted < 1:
        since = max(now - seen.last_active, 0.0)
        wanted, reason = 1, f"keeps the last instance for {policy.idle:g} s after the last call, {since:.0f} s ago"
    return _bounded(policy, wanted, state, reason)


def _delayed(policy: ScalePolicy, seen: Observation, found: Decision, before: State, now: float) -> Decision:
    """Not fewer than was asked for within the delay, as far as they exist."""
    if not policy.down_delay:
        return found
    kept = [each for each in before.asked if now - each[0] < policy.down_delay and each[1] > found.replicas]
    if not kept and found.replicas < seen.replicas and not before.asked:
        kept = [(now, seen.replicas)]  # the first time that fewer are asked for
    asked = (*kept, (now, found.replicas))
    state = found.state._replace(asked=asked)
    most = min(asked[0][1], seen.replicas)
    if found.replicas < most:
        ago = now - asked[0][0]
        reason = (
            f"{most} were asked for {ago:.0f} s ago, and instances go after {policy.down_delay:g} s ({found.reason})"
        )
        return Decision(most, reason, state, found.capped)
    return found._replace(state=state)


def _instances(load: float, per: float) -> int:
    """Averages of floats: a hair over a whole number of instances is that number."""
    return math.ceil(load / per - 1e-9) if load > 0 else 0


def _idle(policy: ScalePolicy, seen: Observation, now: float) -> bool:
    return seen.waiting == 0 and seen.in_flight <= 0 and now - seen.last_active >= policy.idle


def _panic(policy: ScalePolicy, seen: Observation, state: State, over: bool, now: float) -> State:
    if over:
        # A surge takes nothing away, least of all replicas that are still starting.
        return State(now, state.panic_replicas if state.panic_since is not None else seen.replicas)
    if state.panic_since is not None and now - state.panic_since >= policy.stable:
        return State()
    return state


def _busy(policy: ScalePolicy, seen: Observation) -> int:
    """The replicas that calls in flight hold: never more than there are."""
    if seen.in_flight <= 0:
        return 0
    per = policy.target if policy.metric == "concurrency" else float(policy.limit)
    return min(seen.replicas, _instances(seen.in_flight, per) if per else 1)


def _bounded(policy: ScalePolicy, wanted: int, state: State, reason: str) -> Decision:
    if wanted < policy.min:
        least = min(policy.min, policy.max) if policy.max else policy.min
        return Decision(least, f"{reason}; the minimum is {policy.min}", state)
    if policy.max and wanted > policy.max:
        return Decision(policy.max, f"{reason} ({wanted} wanted); the maximum is {policy.max}", state, True)
    return Decision(wanted, reason, state)


def _average(policy: ScalePolicy, value: float, seconds: float) -> str:
    unit = "calls a second" if policy.metric == "rps" else "calls in flight"
    return f"{value:.3g} {unit} on average over {seconds:g} s, {policy.target:g} per instance"
