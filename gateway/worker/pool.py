"""Keep-alive connections to one instance (or to `jobs`), and the calls that wait for one to be made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from gateway.worker.call import Call
from gateway.worker.settings import Settings
from gateway.worker.upstream import Outcomes, UpstreamConnection

__all__ = ["Connect", "Pool"]

Connect = Callable[[Callable[[], asyncio.Protocol]], Coroutine[Any, Any, Any]]
"""Makes one connection with a protocol of the factory: `loop.create_connection` with its address bound."""


class Pool:
    """Keep-alive connections to one address, the last used first, so that those not needed grow old and are closed."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connect: Connect, outcomes: Outcomes, settings: Settings
    ) -> None:
        self.outcomes = outcomes
        self.settings = settings
        self._loop = loop
        self._open = connect
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._pending: dict[Call, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._retired = False

    def send(self, call: Call) -> None:
        """Give `call` a connection, at once or when there is one."""
        idle = self._idle
        # A connection may be closing on the other side just now. What can't be sent twice goes on one that was in use a moment ago.
        if idle and (call.idempotent or idle[-1].idle_since > monotonic() - self.settings.reuse_unsafe):
            idle.pop().start(call)
            return
        call.pool = self
        self._pending[call] = None
        if len(self._pending) <= self._opening:
            return  # enough are on their way
        self._opening += 1
        task = self._loop.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def forget(self, call: Call) -> None:
        """`call` waits for a connection no longer."""
        self._pending.pop(call, None)

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """The connection is free: for a call that waits for one, or for later. `now` is of the monotonic clock."""
        if self._pending:
            call = next(iter(self._pending))
            del self._pending[call]
            connection.start(call)
        elif self._retired or len(self._idle) >= self.settings.pool_idle:
            connection.close()
        else:
            connection.idle_since = now
            self._idle.append(connection)

    def drop(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        self._all.discard(connection)
        self.unlist(connection)

    def unlist(self, connection: UpstreamConnection) -> None:
        """The connection is closing."""
        if connection in self._idle:
            self._idle.remove(connection)

    def reap(self, now: float) -> None:
        """Close what has been idle for too long."""
        limit = now - self.settings.pool_idle_timeout
        while self._idle and self._idle[0].idle_since < limit:
            self._idle.pop(0).close()

    def flush(self) -> None:
        """Close every idle connection: the other side is not what it was."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def retire(self) -> None:
        """No further calls: connections close when their calls have ended."""
        self._retired = True
        self.flush()

    @property
    def finished(self) -> bool:
        """Whether it was retired and has no connection left."""
        return self._retired and not self._all and not self._connecting

    async def close(self) -> None:
        """Break every connection, and wait until they are gone."""
        self.retire()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        closed = [connection.closed for connection in self._all]
        for connection in list(self._all):
            connection.abort()
        await asyncio.gather(*closed)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                _, connection = await self._open(lambda: UpstreamConnection(self, self._loop))
        except (OSError, TimeoutError) as error:
            self._opening -= 1
            pending, self._pending = self._pending, {}
            for call in pending:
                self.outcomes.refused(call, str(error) or "connecting timed out")
            return
        self._opening -= 1
        self._all.add(connection)
        if connection.closed.done():
            self.drop(connection)
        self.give_back(connection, monotonic())
