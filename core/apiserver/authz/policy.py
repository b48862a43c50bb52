"""Keeps the RBAC index equal to the roles and bindings in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec

from core.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, Kind
from core.apiserver.authz.rbac import Grant, Index, read_rules
from core.store.base import Compacted, Event, Store, StoreClosed, StoreError

__all__ = ["Policy"]

log = logging.getLogger(__name__)

_RETRY = 0.5
_KINDS = (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)


class Policy:
    """`index` is complete from `start` on.

    It sees writes as they are applied, a turn of the loop later: a reply over HTTP, which waits for durability, is never
    ahead of it; a caller in the same process may be by that turn.
    """

    def __init__(self, store: Store) -> None:
        self.index = Index()
        self._store = store
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for kind in _KINDS:
            known: set[str] = set()
            since = await self._load(kind, known)
            self._tasks.append(asyncio.create_task(self._follow(kind, since, known), name=f"policy: {kind.plural}"))

    async def stop(self) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _load(self, kind: Kind, known: set[str]) -> int:
        """Take in what is stored; what is `known` and no longer there is dropped. The listing's revision."""
        page = await self._store.list(_prefix(kind))
        for entry in page.entries:
            self._put(kind, entry.key, entry.value)
        for key in known - {entry.key for entry in page.entries}:
            self._drop(kind, key)
        known.clear()
        known.update(entry.key for entry in page.entries)
        return page.revision

    async def _follow(self, kind: Kind, since: int, known: set[str]) -> None:
        while True:
            try:
                watch = self._store.watch(_prefix(kind), since, applied=True)
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
                log.exception("the policy can't follow the store")
                await asyncio.sleep(_RETRY)

    def _apply(self, kind: Kind, event: Event, known: set[str]) -> None:
        if event.value is None:
            known.discard(event.key)
            self._drop(kind, event.key)
        else:
            known.add(event.key)
            self._put(kind, event.key, event.value)

    def _put(self, kind: Kind, key: str, value: bytes) -> None:
        document: dict[str, Any] = msgspec.json.decode(value)
        namespace, name = _names(kind, key)
        if kind in (ROLE, CLUSTER_ROLE):
            self.index.put_role(namespace, name, read_rules(document))
        else:
            self.index.put_binding(Grant.of(namespace, document))

    def _drop(self, kind: Kind, key: str) -> None:
        drop: Callable[[str, str], None] = (
            self.index.drop_role if kind in (ROLE, CLUSTER_ROLE) else self.index.drop_binding
        )
        drop(*_names(kind, key))


def _prefix(kind: Kind) -> str:
    return f"/{kind.resource}/"


def _names(kind: Kind, key: str) -> tuple[str, str]:
    """(namespace, name); names of roles may hold colons, never slashes."""
    parts = key.removeprefix(_prefix(kind)).split("/")
    return (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
