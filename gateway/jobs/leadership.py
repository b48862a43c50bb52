"""Runs parts of the process only while it holds the cluster's Lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from core.client.leader import LeaderElector
from core.client.rest import Client

__all__ = ["Leadership", "Part"]

log = logging.getLogger(__name__)

TROUBLE = 1.0


class Part(Protocol):
    """May be started and stopped any number of times; `stop` is harmless where it isn't started."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Leadership:
    """Starts `parts`, in their order, when `identity` wins the Lease `namespace/name`, and stops them when it is lost."""

    def __init__(self, client: Client, name: str, namespace: str, identity: str, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._lost = asyncio.Event()
        self._elector = LeaderElector(
            client, name, namespace, identity, on_started=lambda _: self._lost.clear(), on_stopped=self._lost.set
        )
        self._task: asyncio.Task[None] | None = None
        self.leading = False
        """Whether the parts run."""

    async def start(self) -> None:
        """Doesn't wait for the Lease."""
        await self._elector.start()
        self._task = asyncio.create_task(self._follow(), name="leadership")

    async def stop(self) -> None:
        """The parts first, then the Lease is released."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._elector.stop()

    async def _follow(self) -> None:
        while True:
            await self._elector.wait_leading()
            try:
                for part in self._parts:
                    await part.start()
                self.leading = True
                await self._lost.wait()
            except Exception:
                log.exception("could not begin to execute calls")
                await asyncio.sleep(TROUBLE)
            finally:
                self.leading = False
                for part in reversed(self._parts):
                    await part.stop()
