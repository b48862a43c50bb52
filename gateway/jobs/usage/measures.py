"""How usage is measured: from what gateways count, and from how long Pods live. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from core.api import quantity
from core.api.views import Pod
from core.clock import parse_time
from faaslite.api.names import LABEL_FUNCTION

__all__ = ["Lifetime", "counters", "grown", "lifetime", "lived"]

_SAMPLE = re.compile(r'(faaslite_function_[a-z_]+)\{function="([^"]*)",namespace="([^"]*)"(?:,code="([^"]*)")?\} (\S+)')
_NAMES = {
    "faaslite_function_invocations_total": "invocations",
    "faaslite_function_duration_seconds_sum": "run_seconds",
    "faaslite_function_cold_starts_total": "cold_starts",
    "faaslite_function_received_bytes_total": "received_bytes",
    "faaslite_function_sent_bytes_total": "sent_bytes",
}


def counters(text: str) -> dict[tuple[str, str, str], float]:
    """What a gateway worker's metrics say of functions: (namespace, function, what) -> its count since the worker began."""
    found: dict[tuple[str, str, str], float] = {}
    for metric, function, namespace, code, value in _SAMPLE.findall(text):
        if metric in _NAMES:
            what = _NAMES[metric]
            found[namespace, function, f"{what}.{code}" if code else what] = float(value)
    return found


def grown(before: Mapping[str, float], now: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str, str], float]:
    """What was counted since `before` (keys joined by `/`). A count that fell began anew: its function was made again."""
    found = {}
    for key, value in now.items():
        earlier = before.get("/".join(key), 0.0)
        found[key] = value - earlier if value >= earlier else value
    return {key: value for key, value in found.items() if value > 0}


class Lifetime(NamedTuple):
    """An instance: when it began, and ended (None: it lives), and the bytes of memory that are set aside for it."""

    namespace: str
    function: str
    began: float
    ended: float | None
    memory: float


def lifetime(pod: Pod, now: float, *, gone: bool = False) -> Lifetime | None:
    """None for a Pod that hasn't begun or is no instance. Memory is its containers' requests, or their limits where those are missing."""
    function = pod.metadata.labels.get(LABEL_FUNCTION, "")
    if not function or not pod.status.start_time:
        return None
    memory = 0.0
    for each in pod.spec.containers:
        wanted = each.resources.requests.get("memory", each.resources.limits.get("memory", 0))
        memory += float(quantity.parse(wanted))
    over = gone or pod.status.phase in ("Succeeded", "Failed")
    return Lifetime(pod.namespace, function, parse_time(pod.status.start_time), now if over else None, memory)


def lived(lifetimes: Iterable[Lifetime], since: float, until: float) -> dict[tuple[str, str, str], float]:
    """Instance-seconds, and byte-seconds of memory, between two times."""
    found: dict[tuple[str, str, str], float] = {}
    for each in lifetimes:
        seconds = min(until, each.ended if each.ended is not None else until) - max(since, each.began)
        if seconds <= 0:
            continue
        for what, amount in (("instance_seconds", seconds), ("memory_byte_seconds", seconds * each.memory)):
            key = (each.namespace, each.function, what)
            found[key] = found.get(key, 0.0) + amount
    return found
