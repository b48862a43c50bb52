"""May this user do this: the fixed table of `rules.py` for the platform's own components, `node.py` for what nodes write, and
RBAC (`rbac.py`, kept up to date by `policy.py`) for everybody.

It must not look at bodies; what a body says is for `core.apiserver.admission`.
"""

from __future__ import annotations

from functools import lru_cache

from core.apiserver.authn import MASTERS, User
from core.apiserver.authz.node import may_write, node_name
from core.apiserver.authz.rbac import Index
from core.apiserver.authz.rules import RULES
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden
from core.store.base import Store

__all__ = ["Authorizer"]


class Authorizer:
    def __init__(self, store: Store, index: Index) -> None:
        self._store = store
        self.index = index

    async def allowed(self, user: User, info: RequestInfo) -> str:
        """The reason why it is allowed, "" where it isn't."""
        if MASTERS in user.groups:
            return f'allowed by the group "{MASTERS}"'
        if not info.resource:
            fixed = _path_allowed(user.name, user.groups, info.verb, info.path)
        else:
            fixed = _resource_allowed(user.name, user.groups, info.verb, info.group, info.full_resource)
        if fixed:
            return "allowed by the platform's fixed policy"
        if node_name(user) and await may_write(self._store, user, info):
            return "allowed to the node that it concerns"
        return self.index.allows(user, info)

    async def check(self, user: User, info: RequestInfo) -> None:
        """Raises `Forbidden`, in Kubernetes' words."""
        if MASTERS in user.groups or await self.allowed(user, info):
            return
        raise Forbidden(_why(user, info), _details(info))


@lru_cache(maxsize=4096)
def _resource_allowed(name: str, groups: tuple[str, ...], verb: str, group: str, resource: str) -> bool:
    who = {name, *groups}
    return any(who.intersection(rule.subjects) and rule.covers_resource(verb, group, resource) for rule in RULES)


def _path_allowed(name: str, groups: tuple[str, ...], verb: str, path: str) -> bool:
    who = {name, *groups}
    return any(who.intersection(rule.subjects) and rule.covers_path(verb, path) for rule in RULES)


def _details(info: RequestInfo) -> dict[str, str]:
    found = {"name": info.name, "group": info.group, "kind": info.resource}
    return {key: value for key, value in found.items() if value}


def _why(user: User, info: RequestInfo) -> str:
    if not info.resource:
        return f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"'
    resource = f"{info.resource}.{info.group}" if info.group else info.resource
    named = f' "{info.name}"' if info.name else ""
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    return (
        f'{resource}{named} is forbidden: User "{user.name}" cannot {info.verb} resource "{info.full_resource}" '
        f'in API group "{info.group}" {where}'
    )
