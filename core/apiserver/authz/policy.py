"""Keeps the RBAC index equal to the roles and bindings in the store."""

from __future__ import annotations

from typing import Any

from core.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, Kind
from core.apiserver.authz.rbac import Grant, Index, read_rules
from core.apiserver.follow import Following
from core.store.base import Store

__all__ = ["Policy"]

_ROLES, _BINDINGS = (ROLE, CLUSTER_ROLE), (ROLE_BINDING, CLUSTER_ROLE_BINDING)


class Policy:
    """`index` is complete from `start` on, and follows the store as `Following` says."""

    def __init__(self, store: Store) -> None:
        self.index = Index()
        self._following = Following(store, (*_ROLES, *_BINDINGS), self._put, self._drop)

    async def start(self) -> None:
        await self._following.start()

    async def stop(self) -> None:
        await self._following.stop()

    def _put(self, kind: Kind, key: str, document: dict[str, Any]) -> None:
        namespace, name = _names(kind, key)
        if kind in _ROLES:
            self.index.put_role(namespace, name, read_rules(document))
        else:
            self.index.put_binding(Grant.of(namespace, document))

    def _drop(self, kind: Kind, key: str) -> None:
        drop = self.index.drop_role if kind in _ROLES else self.index.drop_binding
        drop(*_names(kind, key))


def _names(kind: Kind, key: str) -> tuple[str, str]:
    """(namespace, name); names of roles may hold colons, never slashes."""
    parts = key.removeprefix(f"/{kind.resource}/").split("/")
    return (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
