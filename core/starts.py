"""Which requests begin in a turn of the event loop: a few, and where more want to, clients in turn.

One event loop serves everybody, so whoever sends most would have most of it. A turn begins `AT_ONCE` requests as they come; those that
are left over wait in a queue of their client, and the queues take turns, one request in each turn of the loop: a request takes some
turns until it is answered, so short turns are what keeps others fast under a flood. Besides, the requests of `NEWCOMERS` begin at once: of clients
of whom nothing waits, and nothing has begun in this turn. Where there is no crowd every request does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

__all__ = ["AT_ONCE", "NEWCOMERS", "Starts"]

AT_ONCE = 8
NEWCOMERS = 2
Start = Callable[[], None]


class Starts:
    def __init__(self, loop: asyncio.AbstractEventLoop, at_once: int = AT_ONCE) -> None:
        self._loop = loop
        self._at_once = at_once
        self._begun = 0
        self._clients: OrderedDict[Hashable, deque[Start]] = OrderedDict()
        self._had: set[Hashable] = set()
        """Who has had a request begun in this turn, where there is a crowd."""
        self._scheduled = False

    def begin(self, client: Callable[[], Hashable], start: Start) -> None:
        """Call `start` now or in a turn to come. `client` is asked only where there is a crowd."""
        if self._begun < self._at_once and not self._clients:
            self._begun += 1
            self._schedule()
            start()
            return
        who = client()
        if len(self._had) <= NEWCOMERS and who not in self._had and who not in self._clients:
            self._had.add(who)
            self._schedule()
            start()
            return
        self._clients.setdefault(who, deque()).append(start)
        self._schedule()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._clients.values()))

    def turn(self) -> None:
        """A new turn of the loop: the first request of the client whose turn it is."""
        self._scheduled = False
        self._begun = 0
        self._had.clear()
        if self._clients:
            self._begun = 1
            client, queue = self._clients.popitem(last=False)
            self._had.add(client)
            start = queue.popleft()
            if queue:
                self._clients[client] = queue
            start()
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.turn)
