"""May this user do this: the fixed table of `rules.py` for the platform's own components, `node.py` for nodes, and
RBAC (`rbac.py`, kept up to date by `policy.py`) for everybody.

It must not look at bodies; what a body says is for `core.apiserver.admission`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from core.apiserver.authn import MASTERS, User
from core.apiserver.authz.node import NodeAuthorizer, node_name
from core.apiserver.authz.rbac import Index
from core.apiserver.authz.rules import RULES
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden

__all__ = ["Authorizer", "Decision"]


class Decision(NamedTuple):
    """`reason` is by what it is allowed, or what there is to say about the refusal ("" for nothing)."""

    allowed: bool
    reason: str = ""


_MASTER = Decision(True, f'allowed by the group "{MASTERS}"')
_FIXED = Decision(True, "allowed by the platform's fixed policy")


class Authorizer:
    def __init__(self, nodes: NodeAuthorizer, index: Index) -> None:
        self._nodes = nodes
        self.index = index

    async def decide(self, user: User, info: RequestInfo) -> Decision:
        if MASTERS in user.groups:
            return _MASTER
        if not info.resource:
            fixed = _path_allowed(user.name, user.groups, info.verb, info.path)
        else:
            fixed = _resource_allowed(user.name, user.groups, info.verb, info.group, info.full_resource)
        if fixed:
            return _FIXED
        why = ""
        if (node := node_name(user)) and info.resource:
            allowed, why = await self._nodes.allowed(node, info)
            if allowed:
                return Decision(True, "allowed to the node that it concerns")
        reason = self.index.allows(user, info)
        return Decision(True, reason) if reason else Decision(False, why)

    async def check(self, user: User, info: RequestInfo) -> str:
        """By what it is allowed. Raises `Forbidden`, in Kubernetes' words."""
        found = await self.decide(user, info)
        if found.allowed:
            return found.reason
        why = _why(user, info)
        raise Forbidden(f"{why}: {found.reason}" if found.reason else why, _details(info))


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
