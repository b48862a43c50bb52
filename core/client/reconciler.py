"""Runs a reconcile function over the keys of a work queue, several keys at a time and never one key twice at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.client.workqueue import QueueClosed, WorkQueue
from core.errors import ApiError, Conflict
from core.lull import LULL

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)


class Reconciler:
    """Workers that call `reconcile(key)` for each key of `queue`.

    What it returns is the seconds after which it wants to see the key again, or None. What it raises is logged once per
    failure and retried with the queue's back-off; a `Conflict` means that somebody else wrote first and is only retried. A `late` one
    waits for a lull before each key (`core.lull`).
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[str], Awaitable[float | None]],
        *,
        queue: WorkQueue | None = None,
        workers: int = 1,
        late: bool = False,
    ) -> None:
        self.name = name
        self.queue = queue if queue is not None else WorkQueue()
        self._reconcile = reconcile
        self._workers = workers
        self._late = late
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work(), name=f"{self.name}-{n}") for n in range(self._workers)]

    async def stop(self, grace: float = 5.0) -> None:
        """Take no further key, let what runs end within `grace` seconds, cancel the rest."""
        self.queue.close()
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            if grace > 0:
                log.warning("%s: cancelled a reconcile that didn't end in %.1f s", self.name, grace)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_one(self, key: str) -> None:
        """One reconcile of one key, with what follows from its outcome for the queue."""
        try:
            again = await self._reconcile(key)
        except Conflict as error:
            log.debug("%s: %s: retrying: %s", self.name, key, error.message)
            self.queue.retry(key)
        except ApiError as error:
            delay = self.queue.retry(key)
            log.warning("%s: %s: %s (%s), again in %.3f s", self.name, key, error.message, error.status_reason, delay)
        except Exception:
            delay = self.queue.retry(key)
            log.exception("%s: %s failed, again in %.3f s", self.name, key, delay)
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add_after(key, again)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueClosed:
                return
            try:
                if self._late:
                    await LULL.wait()
                await self.run_one(key)
            finally:
                self.queue.done(key)
            # In the API server's own process neither the queue nor a request may ever wait: let others have the loop.
            await asyncio.sleep(0)
