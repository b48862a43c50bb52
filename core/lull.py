"""What only tells of a Pod waits while somebody waits for the Pod: events, endpoints and statuses of summaries come in the next lull.

All parts of a process share one event loop, so what one of them does, another waits for. Whoever begins something that a caller waits for says
so (`disturb`); whoever has work that nobody waits for asks first (`wait`). Nothing is held up for longer than `at_most`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core import clock as clocks

__all__ = ["LULL", "Lull"]

SECONDS = 0.03
"""How long a cold start has use for the processor, about."""
AT_MOST = 0.25


class Lull:
    """`seconds` after the last disturbance there is a lull. `clock` is monotonic."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")

    def disturb(self) -> None:
        self._until = self._clock() + self._seconds

    def since(self) -> float:
        """Seconds since the last disturbance; infinite before the first."""
        return self._clock() - self._until + self._seconds

    def left(self, began: float, at_most: float = AT_MOST) -> float:
        """Seconds that one who waits since `began` has yet to wait, 0 where it may go on."""
        now = self._clock()
        return max(0.0, min(self._until, began + at_most) - now)

    async def wait(self, at_most: float = AT_MOST) -> None:
        """Until there is a lull, `at_most` so many seconds; where there is one already, without giving up the loop."""
        began = self._clock()
        while left := self.left(began, at_most):  # noqa: ASYNC110 - time itself is what is waited for
            await asyncio.sleep(left)


LULL = Lull()
"""The process's own."""
