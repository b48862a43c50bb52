"""Follows one prefix of the store, for indexes that a request asks: fed by events, and complete whenever it is asked.

It must not decide anything; whoever owns it says what is done with what comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.store.base import Compacted, Event, Store, StoreClosed, StoreError, Watch

__all__ = ["Mirror"]

log = logging.getLogger(__name__)

_RETRY = 0.5


class Mirror:
    """Calls `put(key, value)` and `drop(key)` for what lies under `prefix`, now and later, in the order of the store.

    Events are taken in at the next turn of the event loop, or by `catch_up`, after which nothing that this process has
    applied is missing: a caller that has just heard of a write is never ahead of it.
    """

    def __init__(
        self, store: Store, prefix: str, put: Callable[[str, bytes], None], drop: Callable[[str], None]
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._put, self._drop = put, drop
        self._known: set[str] = set()
        self._watch: Watch | None = None
        self._reading: asyncio.Task[None] | None = None
        self._scheduled = False

    async def start(self) -> None:
        """Returns once everything that is stored is taken in."""
        await self._read()

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    def catch_up(self) -> None:
        self._scheduled = False
        if self._watch is None:
            return
        try:
            batch = self._watch.take()
        except (StoreClosed, StopAsyncIteration):
            self._watch = None
        except StoreError as error:
            self._watch = None
            if not isinstance(error, Compacted):
                log.warning("the index of %s reads the store again: %s", self._prefix, error)
            self._reading = asyncio.get_running_loop().create_task(self._again(), name=f"mirror of {self._prefix}")
        else:
            for each in batch:
                self._apply(each)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.catch_up)

    async def _read(self) -> None:
        page = await self._store.list(self._prefix)
        keys = set()
        for entry in page.entries:
            keys.add(entry.key)
            self._put(entry.key, entry.value)
        for key in self._known - keys:
            self._drop(key)
        self._known = keys
        self._watch = self._store.watch(self._prefix, page.revision, applied=True)
        self._watch.notify(self._wake)

    async def _again(self) -> None:
        while True:
            try:
                await self._read()
            except StoreClosed:
                return
            except StoreError:
                log.exception("the index of %s can't follow the store", self._prefix)
                await asyncio.sleep(_RETRY)
            else:
                return

    def _apply(self, event: Event) -> None:
        if event.value is None:
            self._known.discard(event.key)
            self._drop(event.key)
        else:
            self._known.add(event.key)
            self._put(event.key, event.value)
