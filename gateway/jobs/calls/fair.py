"""Who gets the next slots: weighted max-min fairness between namespaces, and within each between its functions. Pure.

A slot goes to the namespace that has the fewest busy slots for its weight, and there to the function that has; so a backlog
of any length takes what others leave, and a call of a function that has none running never waits for one of a function that has.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = ["FunctionKey", "divide", "interleave"]

T = TypeVar("T")
FunctionKey = tuple[str, str]
"""(namespace, function)"""


def divide(
    waiting: Mapping[FunctionKey, int],
    busy: Mapping[FunctionKey, int],
    limit: int,
    per_function: int = 0,
    weights: Mapping[str, float] | None = None,
) -> dict[FunctionKey, int]:
    """How many of the calls that wait each function may begin now, `limit` in all.

    `per_function` bounds what a function has with what is busy already (0: no bound); `weights` are of namespaces, 1 where not given.
    """
    weights = weights or {}
    used: Counter[str] = Counter()
    for (namespace, _), count in busy.items():
        used[namespace] += count
    functions: dict[str, list[tuple[int, str, int]]] = {}
    for (namespace, function), count in waiting.items():
        now = busy.get((namespace, function), 0)
        room = min(count, per_function - now) if per_function else count
        if room > 0:
            functions.setdefault(namespace, []).append((now, function, room))
    for each in functions.values():
        heapq.heapify(each)
    namespaces = [(used[each] / weights.get(each, 1.0), each) for each in functions]
    heapq.heapify(namespaces)
    given: Counter[FunctionKey] = Counter()
    while limit > 0 and namespaces:
        share, namespace = heapq.heappop(namespaces)
        queue = functions[namespace]
        now, function, room = heapq.heappop(queue)
        given[namespace, function] += 1
        limit -= 1
        if room > 1:
            heapq.heappush(queue, (now + 1, function, room - 1))
        if queue:
            heapq.heappush(namespaces, (share + 1 / weights.get(namespace, 1.0), namespace))
    return dict(given)


def interleave(groups: Iterable[list[T]]) -> list[T]:
    """One of each in turn."""
    rows = [list(each) for each in groups]
    longest = max(map(len, rows), default=0)
    return [row[at] for at in range(longest) for row in rows if at < len(row)]
