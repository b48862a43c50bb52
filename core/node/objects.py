"""Secrets and ConfigMaps as a node knows them: each by its name, for as long as a Pod here refers to it.

A node may read nothing else (`core.apiserver.authz.node`), so there is one list and watch for each object, as the kubelet's
watching manager has it. What several Pods take is read once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from core.api import views
from core.api.kinds import CONFIG_MAP, SECRET
from core.client.informer import Informer, Informers

__all__ = ["ObjectCache", "Source"]

OnChange = Callable[[str, str, str], None]
"""(kind, namespace, name); kind is `secret` or `configMap`."""
Source = tuple[str, str]
"""(kind, name)."""
_Key = tuple[str, str, str]


class ObjectCache:
    """Implements `core.node.env.Objects`. `spawn` runs what needn't be waited for."""

    def __init__(
        self,
        informers: Informers,
        on_change: OnChange,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        self._informers = informers
        self._on_change = on_change
        self._spawn = spawn
        self._known: dict[_Key, Informer[Any]] = {}
        self._holders: dict[_Key, set[str]] = {}

    def hold(self, uid: str, namespace: str, sources: Iterable[Source]) -> list[Informer[Any]]:
        """Begin to read what a Pod takes and keep it until `release`; may be called again."""
        found = []
        for kind, name in sources:
            key = (kind, namespace, name)
            self._holders.setdefault(key, set()).add(uid)
            informer = self._known.get(key)
            if informer is None:
                informer = self._known[key] = self._watch(kind, namespace, name)
            found.append(informer)
        return found

    async def ready(self, uid: str, namespace: str, sources: Iterable[Source]) -> None:
        """`hold`, and return once those objects are known, or known not to be there."""
        waiting = [each for each in self.hold(uid, namespace, sources) if not each.synced]
        if waiting:
            await asyncio.gather(*(each.wait_synced() for each in waiting))

    def release(self, uid: str, namespace: str, sources: Iterable[Source]) -> None:
        """The Pod is gone: what nobody else holds is forgotten."""
        for kind, name in sources:
            key = (kind, namespace, name)
            holders = self._holders.get(key)
            if holders is None:
                continue
            holders.discard(uid)
            if not holders:
                del self._holders[key]
                self._spawn(self._let_go(key), f"forgetting {kind} {namespace}/{name}")

    async def _let_go(self, key: _Key) -> None:
        """A turn later, so that a Pod which comes as the last one goes finds what it takes."""
        if key not in self._holders:
            await self._informers.forget(self._known.pop(key))

    def secret(self, namespace: str, name: str) -> views.Secret | None:
        informer = self._known.get(("secret", namespace, name))
        return informer.get(f"{namespace}/{name}") if informer else None

    def config_map(self, namespace: str, name: str) -> views.ConfigMap | None:
        informer = self._known.get(("configMap", namespace, name))
        return informer.get(f"{namespace}/{name}") if informer else None

    def _watch(self, kind: str, namespace: str, name: str) -> Informer[Any]:
        fields = f"metadata.name={name}"
        informer: Informer[Any] = (
            self._informers.watch(SECRET, views.Secret, namespace=namespace, fields=fields)
            if kind == "secret"
            else self._informers.watch(CONFIG_MAP, views.ConfigMap, namespace=namespace, fields=fields)
        )
        informer.add_handler(lambda old, new: self._on_change(kind, namespace, name))
        return informer
