"""Which requests begin in a turn of the event loop: a few, and where more want to, clients in turn.

One event loop serves everybody, so whoever sends most would have most of it. A turn begins `AT_ONCE` requests as they come; those that
are left over wait in a queue of their client, and the queues take turns, `IN_TURN` requests in each turn of the loop: a request takes some
turns until it is answered, so short turns are what keeps others fast under a flood. A client that is alone in the crowd has `ALONE` requests
in each turn, since turns cost as well. Where there is no crowd a request begins at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

__all__ = ["ALONE", "AT_ONCE", "IN_TURN", "Starts"]

AT_ONCE = 8
IN_TURN = 1
ALONE = 4
Start = Callable[[], None]


class Starts:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, at_once: int = AT_ONCE, in_turn: int = IN_TURN, alone: int = ALONE
    ) -> None:
        self._loop = loop
        self._at_once = at_once
        self._in_turn = in_turn
        self._alone = alone
        self._begun = 0
        self._clients: OrderedDict[Hashable, deque[Start]] = OrderedDict()
        self._scheduled = False

    def begin(self, client: Callable[[], Hashable], start: Start) -> None:
        """Call `start` now or in a turn to come. `client` is asked only where there is a crowd."""
        if self._begun < self._at_once and not self._clients:
            self._begun += 1
            self._schedule()
            start()
            return
        self._clients.setdefault(client(), deque()).append(start)
        self._schedule()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._clients.values()))

    def turn(self) -> None:
        """A new turn of the loop: the first request of each client in turn."""
        self._scheduled = False
        self._begun = 0
        most = self._in_turn if len(self._clients) > 1 else max(self._in_turn, self._alone)
        while self._clients and self._begun < most:
            self._begun += 1
            client, queue = self._clients.popitem(last=False)
            start = queue.popleft()
            if queue:
                self._clients[client] = queue
            start()
        if self._begun:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.turn)
