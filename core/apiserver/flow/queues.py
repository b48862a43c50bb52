"""Seats and queues of the priority levels. Pure: the time is an argument, and whoever may start is returned.

A request takes `width` seats of its level. A level has its share of all seats; what another level may lend and doesn't use now, it
may take as well, request by request. Who finds no seat waits in the queue of its flow, and among flows start-time fair queueing
decides (Goyal, Vin, Cheng 1996): a flow's virtual time grows by the seat-seconds that its requests really took, so the next seat
goes to the flow that had least. A flow that was away starts at the present virtual time: idleness is not saved up.

Kubernetes deals flows by shuffle sharding onto a fixed number of queues, so that many servers with many thousand flows keep small
tables. Here a flow has a queue for as long as it has requests, which is as many queues as there are waiting flows and lets no two flows
collide; `queues`, `handSize` and `queueLengthLimit` bound what waits as they do there: `handSize * queueLengthLimit` of one flow, `queues *
queueLengthLimit` of a level. Where a level is full, the longest queue gives up its newest request to a flow with a shorter one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

__all__ = ["Level", "Limits", "Seats", "Ticket"]

_GUESS = 0.005
"""Seconds that a request is thought to take until it is known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a level, in seats. `guaranteed` are those that it never lends; `most` is what it may have with what it borrows.

    `per_flow` and `waiting` bound its queues; 0 means that nothing waits. `flow_most` are the seats of one flow (0: as many as there are): requests
    that wait for the disk hold theirs, and whoever comes then is to find one all the same.
    """

    nominal: int
    guaranteed: int
    most: int
    per_flow: int = 0
    waiting: int = 0
    flow_most: int = 0


class Ticket:
    """A request: it `runs`, it waits in its flow's queue (`wake` is called when that ends), or it has `gone`."""

    __slots__ = ("arrived", "flow", "gone", "level", "runs", "started", "wake", "width")

    def __init__(self, level: Level, flow: _Flow, width: int, now: float) -> None:
        self.level = level
        self.flow = flow
        self.width = width
        self.arrived = now
        self.started = 0.0
        self.runs = False
        self.gone = False
        self.wake: Callable[[], None] | None = None


class _Flow:
    __slots__ = ("in_use", "key", "running", "virtual", "waiting")

    def __init__(self, key: Hashable, virtual: float) -> None:
        self.key = key
        self.virtual = virtual
        self.running = self.in_use = 0
        self.waiting: deque[Ticket] = deque()


class Level:
    """A priority level. `in_use` seats are taken; the counters only grow."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.in_use = 0
        self.running = 0
        self.waiting = 0
        self.dispatched = 0
        self.rejected = 0
        self.timed_out = 0
        self.flows: dict[Hashable, _Flow] = {}
        self._virtual = 0.0

    def flow(self, key: Hashable) -> _Flow:
        found = self.flows.get(key)
        if found is None:
            found = self.flows[key] = _Flow(key, self._virtual)
        return found

    def begin(self, ticket: Ticket, now: float) -> None:
        flow = ticket.flow
        self._virtual = max(self._virtual, flow.virtual)
        flow.virtual += ticket.width * _GUESS
        flow.running += 1
        flow.in_use += ticket.width
        ticket.runs, ticket.started = True, now
        self.in_use += ticket.width
        self.running += 1
        self.dispatched += 1

    def end(self, ticket: Ticket, now: float) -> None:
        flow = ticket.flow
        flow.virtual += ticket.width * (now - ticket.started - _GUESS)
        flow.running -= 1
        flow.in_use -= ticket.width
        ticket.runs, ticket.gone = False, True
        self.in_use -= ticket.width
        self.running -= 1
        self._forget(flow)

    def push(self, ticket: Ticket) -> None:
        ticket.flow.waiting.append(ticket)
        self.waiting += 1

    def remove(self, ticket: Ticket) -> None:
        """Out of its queue, for whatever reason."""
        ticket.flow.waiting.remove(ticket)
        ticket.gone = True
        self.waiting -= 1
        self._forget(ticket.flow)

    def head(self) -> Ticket | None:
        """Whose turn it is, of the flows that may have a seat more."""
        waiting = [each for each in self.flows.values() if each.waiting and self.allows(each, each.waiting[0].width)]
        return min(waiting, key=lambda each: each.virtual).waiting[0] if waiting else None

    def allows(self, flow: _Flow, width: int) -> bool:
        """So many seats more aren't too many for one flow."""
        most = self.limits.flow_most
        return not most or not flow.in_use or flow.in_use + width <= most

    def longest(self) -> _Flow | None:
        waiting = [each for each in self.flows.values() if each.waiting]
        return max(waiting, key=lambda each: len(each.waiting)) if waiting else None

    def _forget(self, flow: _Flow) -> None:
        if not flow.running and not flow.waiting and self.flows.get(flow.key) is flow:
            del self.flows[flow.key]


class Seats:
    """All levels, and the `total` of seats that they share."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.levels: dict[str, Level] = {}

    def configure(self, limits: dict[str, Limits]) -> None:
        """Levels that are no longer named go when their last request has gone; until then nothing new may enter them."""
        for name, each in limits.items():
            if name in self.levels:
                self.levels[name].limits = each
            else:
                self.levels[name] = Level(name, each)
        for name in [each for each in self.levels if each not in limits]:
            level = self.levels[name]
            if not level.running and not level.waiting:
                del self.levels[name]

    def offer(self, name: str, key: Hashable, width: int, now: float) -> tuple[Ticket, Ticket | None]:
        """A request of flow `key` comes to a level: its ticket runs, waits, or has gone (refused).

        The second is a waiting ticket that had to go for it.
        """
        level = self.levels[name]
        width = min(width, max(level.limits.nominal, 1))
        ticket = Ticket(level, level.flow(key), width, now)
        if (
            level.allows(ticket.flow, width)
            and self._fits(level, width)
            and (not level.waiting or self._is_next(level, ticket))
        ):
            level.begin(ticket, now)
            return ticket, None
        if len(ticket.flow.waiting) < level.limits.per_flow:
            if level.waiting < level.limits.waiting:
                level.push(ticket)
                return ticket, None
            longest = level.longest()
            if longest is not None and len(longest.waiting) > len(ticket.flow.waiting) + 1:
                victim = longest.waiting[-1]
                level.remove(victim)
                level.rejected += 1
                level.push(ticket)
                return ticket, victim
        level.rejected += 1
        ticket.gone = True
        level._forget(ticket.flow)
        return ticket, None

    def finish(self, ticket: Ticket, now: float) -> None:
        """A request is over, or gives up waiting."""
        if ticket.runs:
            ticket.level.end(ticket, now)
        elif not ticket.gone:
            ticket.level.remove(ticket)

    def start(self, now: float, most: int) -> list[Ticket]:
        """Whoever has a seat now, one after the other; no more than `most` of a level."""
        started: list[Ticket] = []
        for level in self.levels.values():
            for _ in range(most):
                ticket = level.head() if level.waiting else None
                if ticket is None or not self._fits(level, ticket.width):
                    break
                ticket.flow.waiting.popleft()
                level.waiting -= 1
                level.begin(ticket, now)
                started.append(ticket)
        return started

    def expire(self, before: float) -> list[Ticket]:
        """Take out those that have waited since `before` or longer."""
        late = [
            ticket
            for level in self.levels.values()
            for flow in level.flows.values()
            for ticket in flow.waiting
            if ticket.arrived <= before
        ]
        for ticket in late:
            ticket.level.remove(ticket)
            ticket.level.timed_out += 1
            ticket.level.rejected += 1
        return late

    def waiting(self) -> Iterable[Level]:
        return (each for each in self.levels.values() if each.waiting)

    def _is_next(self, level: Level, ticket: Ticket) -> bool:
        """Of all who wait for the level and may begin, nobody comes before a new request."""
        if ticket.flow.waiting:
            return False
        head = level.head()
        return head is None or ticket.flow.virtual <= head.flow.virtual

    def _fits(self, level: Level, width: int) -> bool:
        limits, wanted = level.limits, level.in_use + width
        if wanted <= limits.nominal or not level.in_use:
            return True
        if wanted > limits.most:
            return False
        others = sum(max(each.in_use, each.limits.guaranteed) for each in self.levels.values() if each is not level)
        return wanted + others <= self.total
