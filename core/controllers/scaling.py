"""From what metrics ask for to what a HorizontalPodAutoscaler does: stabilisation, rates, bounds, conditions. Pure.

After k8s.io/kubernetes/pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.api.meta import Document, set_condition
from core.api.views import HorizontalPodAutoscaler, Pod
from core.clock import timestamp
from core.controllers.proposals import TOLERANCE, MetricError, Proposal, Tolerances, propose

__all__ = ["Decision", "History", "World", "decide", "new_status"]

STABILIZATION = 300.0
"""Seconds for which the highest of the recommendations is kept to before replicas are taken away."""
_LONGEST = 3600.0
"""Recommendations and changes are kept for so many seconds: no window is longer."""
_DEFAULT_METRICS: Sequence[Document] = (
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
)
"""The API server sets them; an object of an earlier release may lack them."""
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_TOO_FAST = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"
_LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"


@dataclass(frozen=True, slots=True)
class History:
    """(seconds since the epoch, replicas) of what was recommended, and by how many replicas it was scaled."""

    recommended: tuple[tuple[float, int], ...] = ()
    ups: tuple[tuple[float, int], ...] = ()
    downs: tuple[tuple[float, int], ...] = ()

    def recommend(self, replicas: int, now: float) -> History:
        return replace(self, recommended=_recent((*self.recommended, (now, replicas)), now))

    def scaled(self, before: int, after: int, now: float) -> History:
        if after > before:
            return replace(self, ups=_recent((*self.ups, (now, after - before)), now))
        return replace(self, downs=_recent((*self.downs, (now, before - after)), now))


def _recent(found: tuple[tuple[float, int], ...], now: float) -> tuple[tuple[float, int], ...]:
    return tuple(each for each in found if each[0] > now - _LONGEST)


@dataclass(frozen=True, slots=True)
class World:
    """What a decision is made from. `replicas` is what the target asks for, `selector` "" where it has none."""

    replicas: int
    selector: str
    pods: Sequence[Pod]
    metrics: Sequence[Document]
    rivals: Sequence[str] = ()
    """Other autoscalers, as `namespace/name`, whose targets have some of these Pods."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`replicas` is None where the target stays as it is. `events` are (type, reason, message)."""

    replicas: int | None
    reason: str
    conditions: list[Document]
    metrics: list[Document] | None
    history: History
    desired: int | None
    """None: `status.desiredReplicas` stays."""
    events: list[tuple[str, str, str]] = field(default_factory=list)


def decide(found: HorizontalPodAutoscaler, world: World, history: History, now: float) -> Decision:
    """What to do with the target; `now` is seconds since the epoch."""
    current, low, high = world.replicas, found.spec.min_replicas, found.spec.max_replicas
    if not history.recommended:
        history = history.recommend(current, now)
    conditions: list[Document] = list(found.status.get("conditions") or ())

    def say(kind: str, status: bool, reason: str, message: str) -> None:
        nonlocal conditions
        conditions = set_condition(conditions, kind, str(status), reason, message, now)

    say("AbleToScale", True, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
    if current == 0 and low != 0:
        text = "scaling is disabled since the replica count of the target is zero"
        say("ScalingActive", False, "ScalingDisabled", text)
        return Decision(None, "", conditions, found.status.get("currentMetrics"), history, current)
    if current > high or current < low:
        reason = (
            f"Current number of replicas {'above Spec.MaxReplicas' if current > high else 'below Spec.MinReplicas'}"
        )
        bound = high if current > high else low
        return Decision(bound, reason, conditions, found.status.get("currentMetrics"), history, bound)
    wanted, name, statuses, failures = _wanted(found, world, now)
    events = [("Warning", each.reason, str(each)) for each in failures]
    if failures and (wanted is None or wanted < current):
        first = failures[0]
        text = str(first)
        if first.reason not in ("InvalidSelector", "AmbiguousSelector"):
            prefix = "the HPA was unable to compute the replica count: "
            of = len(statuses)
            summary = f"invalid metrics ({len(failures)} invalid out of {of}), first error is: {text}"
            events.append(("Warning", "FailedComputeMetricsReplicas", summary))
            text = prefix + text
        say("ScalingActive", False, first.reason, text)
        return Decision(None, "", conditions, statuses, history, None, events)
    assert wanted is not None  # a metric that neither fails nor asks for anything there isn't
    say(
        "ScalingActive",
        True,
        "ValidMetricFound",
        f"the HPA was able to successfully calculate a replica count from {name}",
    )
    asked = wanted
    stable, why = _stabilized(found, current, wanted, history, now)
    history = history.recommend(wanted, now)
    if why is not None:
        say("AbleToScale", True, *why)
    else:
        say("AbleToScale", True, "ReadyForNewScale", "recommended size matches current size")
    limited, because = _limited(found, current, stable, history, now)
    say("ScalingLimited", limited != stable, *because)
    if limited == current:
        return Decision(None, "", conditions, statuses, history, current, events)
    reason = f"{name} above target" if asked > current else "All metrics below target"
    return Decision(limited, reason, conditions, statuses, history, limited, events)


def _wanted(
    found: HorizontalPodAutoscaler, world: World, now: float
) -> tuple[int | None, str, list[Document], list[MetricError]]:
    """(the most that any metric asks for, that metric's name, currentMetrics, what failed)."""
    metrics = found.spec.metrics or _DEFAULT_METRICS
    statuses: list[Document] = [{"type": ""} for _ in metrics]
    if not world.selector:
        return None, "", statuses, [MetricError("InvalidSelector", "the HPA target's scale is missing a selector")]
    if world.rivals:
        names = " ".join(sorted((found.key, *world.rivals)))
        text = f"pods by selector {world.selector} are controlled by multiple HPAs: [{names}]"
        return None, "", statuses, [MetricError("AmbiguousSelector", text)]
    best: Proposal | None = None
    failures = []
    for index, each in enumerate(metrics):
        try:
            proposal = propose(each, world.replicas, world.pods, world.metrics, now, _tolerances(found))
        except MetricError as error:
            failures.append(error)
            continue
        statuses[index] = proposal.status
        if best is None or proposal.replicas > best.replicas:
            best = proposal
    return (best.replicas, best.name, statuses, failures) if best is not None else (None, "", statuses, failures)


def _rules(found: HorizontalPodAutoscaler, direction: str) -> dict[str, Any]:
    return (found.spec.behavior or {}).get(direction) or {}


def _tolerances(found: HorizontalPodAutoscaler) -> Tolerances:
    up, down = (float(_rules(found, each).get("tolerance") or TOLERANCE) for each in ("scaleUp", "scaleDown"))
    return Tolerances(down, up)


def _window(rules: dict[str, Any], default: float) -> float:
    seconds = rules.get("stabilizationWindowSeconds")
    return default if seconds is None else float(seconds)


def _stabilized(
    found: HorizontalPodAutoscaler, current: int, wanted: int, history: History, now: float
) -> tuple[int, tuple[str, str] | None]:
    """Within what was recommended lately; why, where that makes a difference."""
    if found.spec.behavior is None:
        highest = max([wanted, *(count for at, count in history.recommended if at > now - STABILIZATION)])
        return highest, ("ScaleDownStabilized", _HIGHER) if highest != wanted else None
    up, down = _window(_rules(found, "scaleUp"), 0.0), _window(_rules(found, "scaleDown"), STABILIZATION)
    lowest = min([wanted, *(count for at, count in history.recommended if at > now - up)])
    highest = max([wanted, *(count for at, count in history.recommended if at > now - down)])
    stable = min(max(current, lowest), highest)
    if stable == wanted:
        return stable, None
    return stable, ("ScaleUpStabilized", _LOWER) if wanted >= current else ("ScaleDownStabilized", _HIGHER)


def _limited(
    found: HorizontalPodAutoscaler, current: int, wanted: int, history: History, now: float
) -> tuple[int, tuple[str, str]]:
    """Within rate and bounds, and which of them it is that holds it up."""
    low, high = found.spec.min_replicas, found.spec.max_replicas
    if found.spec.behavior is None:
        fastest = max(2 * current, 4)
        if wanted < low:
            return low, _TOO_FEW
        top, why = (fastest, _TOO_FAST) if high > fastest else (high, _TOO_MANY)
        return (top, why) if wanted > top else (wanted, _WITHIN)
    if wanted > current:
        rate = max(_rate(_rules(found, "scaleUp"), current, history, now, 1), current)
        top, why = (rate, _TOO_FAST) if high > rate else (high, _TOO_MANY)
        if wanted > top:
            return top, why
    elif wanted < current:
        rate = min(_rate(_rules(found, "scaleDown"), current, history, now, -1), current)
        bottom, why = (rate, _TOO_FAST_DOWN) if low < rate else (low, _TOO_FEW)
        if wanted < bottom:
            return bottom, why
    return wanted, _WITHIN


def _rate(rules: dict[str, Any], current: int, history: History, now: float, sign: int) -> int:
    """How far the policies let the target go, up (`sign` 1) or down (-1), from where it was when their periods began."""
    select = rules.get("selectPolicy") or "Max"
    policies = rules.get("policies") or ()
    if select == "Disabled" or not policies:
        return current
    farthest: Callable[[list[int]], int] = max if (select == "Max") == (sign > 0) else min
    return farthest([_reach(each, current, history, now, sign) for each in policies])


def _reach(policy: Document, current: int, history: History, now: float, sign: int) -> int:
    since, value = now - float(policy["periodSeconds"]), int(policy["value"])
    added = sum(count for at, count in history.ups if at > since)
    taken = sum(count for at, count in history.downs if at > since)
    start = current - added + taken
    if policy["type"] == "Pods":
        return start + sign * value
    moved = start * (100 + sign * value) / 100
    return math.ceil(moved) if sign > 0 else int(moved)


def new_status(
    found: HorizontalPodAutoscaler,
    decision: Decision,
    conditions: list[Document],
    current: int,
    now: float,
    *,
    scaled: bool,
) -> Document:
    """The whole status. `current` is how many replicas the target asked for; `scaled`: what is asked for was written just now.

    A desired count that couldn't be written stays what it was.
    """
    old = found.status
    failed = decision.replicas is not None and not scaled
    desired = old.get("desiredReplicas", 0) if decision.desired is None or failed else decision.desired
    status: Document = {
        "currentReplicas": current,
        "desiredReplicas": desired,
        "currentMetrics": decision.metrics,
        "conditions": conditions,
    }
    since = timestamp(now) if scaled else old.get("lastScaleTime")
    if since is not None:
        status["lastScaleTime"] = since
    return status
