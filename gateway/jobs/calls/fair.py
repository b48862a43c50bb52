"""Who gets the next slots: weighted max-min fairness between namespaces, and within each between its functions. Pure.

A slot goes to the namespace that has the fewest busy slots for its weight, and there to the function that has, for its own; so a backlog
of any length takes what others leave, and a call of a function that has none running never waits for one of a function that has.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

__all__ = ["EQUAL", "FunctionKey", "Weights", "divide", "interleave"]

T = TypeVar("T")
FunctionKey = tuple[str, str]
"""(namespace, function)"""


class Weights(NamedTuple):
    """Of namespaces among all, and of functions among those of their namespace; 1 where not given."""

    namespaces: Mapping[str, float]
    functions: Mapping[FunctionKey, float]


EQUAL = Weights({}, {})


def divide(
    waiting: Mapping[FunctionKey, int],
    busy: Mapping[FunctionKey, int],
    limit: int,
    per_function: int = 0,
    weights: Weights = EQUAL,
) -> dict[FunctionKey, int]:
    """How many of the calls that wait each function may begin now, `limit` in all.

    `per_function` bounds what a function has with what is busy already (0: no bound).
    """
    used: Counter[str] = Counter()
    for (namespace, _), count in busy.items():
        used[namespace] += count
    functions: dict[str, list[tuple[float, str, int, int]]] = {}
    for (namespace, function), count in waiting.items():
        now = busy.get((namespace, function), 0)
        room = min(count, per_function - now) if per_function else count
        if room > 0:
            share = now / weights.functions.get((namespace, function), 1.0)
            functions.setdefault(namespace, []).append((share, function, now, room))
    for each in functions.values():
        heapq.heapify(each)
    # Shares are counted anew from whole slots: sums of fractions would drift apart.
    namespaces = [(used[each] / weights.namespaces.get(each, 1.0), each) for each in functions]
    heapq.heapify(namespaces)
    given: Counter[FunctionKey] = Counter()
    while limit > 0 and namespaces:
        _, namespace = heapq.heappop(namespaces)
        queue = functions[namespace]
        _, function, now, room = heapq.heappop(queue)
        given[namespace, function] += 1
        used[namespace] += 1
        limit -= 1
        if room > 1:
            share = (now + 1) / weights.functions.get((namespace, function), 1.0)
            heapq.heappush(queue, (share, function, now + 1, room - 1))
        if queue:
            heapq.heappush(namespaces, (used[namespace] / weights.namespaces.get(namespace, 1.0), namespace))
    return dict(given)


def interleave(groups: Iterable[list[T]]) -> list[T]:
    """One of each in turn."""
    rows = [list(each) for each in groups]
    longest = max(map(len, rows), default=0)
    return [row[at] for at in range(longest) for row in rows if at < len(row)]
