"""Keeps what a part of the server makes of stored objects equal to the store: a listing, then every write in order.

Writes are seen as they are applied, a turn of the loop later: a reply over HTTP, which waits for durability, is never ahead of
it; a caller in the same process may be by that turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.store.base import Compacted, Event, Store, StoreClosed, StoreError

__all__ = ["Following"]

log = logging.getLogger(__name__)

_RETRY = 0.5
Put = Callable[[Kind, str, dict[str, Any]], None]
Drop = Callable[[Kind, str], None]


class Following:
    """Calls `put` (kind, key, document) and `drop` (kind, key) for the objects of `kinds`; `start` returns when what is stored was put.

    Keys are unique within a kind. The callbacks must not block.
    """

    def __init__(self, store: Store, kinds: Sequence[Kind], put: Put, drop: Drop) -> None:
        self._store = store
        self._kinds = kinds
        self._put = put
        self._drop = drop
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for kind in self._kinds:
            known: set[str] = set()
            since = await self._load(kind, known)
            self._tasks.append(asyncio.create_task(self._follow(kind, since, known), name=f"follow: {kind.plural}"))

    async def stop(self) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _load(self, kind: Kind, known: set[str]) -> int:
        """Take in what is stored; what is `known` and no longer there is dropped. The listing's revision."""
        page = await self._store.list(f"/{kind.resource}/")
        for entry in page.entries:
            self._put(kind, entry.key, msgspec.json.decode(entry.value))
        present = {entry.key for entry in page.entries}
        for key in known - present:
            self._drop(kind, key)
        known.clear()
        known.update(present)
        return page.revision

    async def _follow(self, kind: Kind, since: int, known: set[str]) -> None:
        while True:
            try:
                watch = self._store.watch(f"/{kind.resource}/", since, applied=True)
                async with aclosing(watch) as batches:
                    async for batch in batches:
                        for event in batch:
                            self._apply(kind, event, known)
                            since = event.revision
            except StoreClosed:
                return
            except Compacted:
                since = await self._load(kind, known)
            except StoreError:
                log.exception("%s can't be followed in the store", kind.plural)
                await asyncio.sleep(_RETRY)

    def _apply(self, kind: Kind, event: Event, known: set[str]) -> None:
        if event.value is None:
            known.discard(event.key)
            self._drop(kind, event.key)
        else:
            known.add(event.key)
            self._put(kind, event.key, msgspec.json.decode(event.value))
