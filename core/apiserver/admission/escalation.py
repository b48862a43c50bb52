"""Nobody gives what they don't have: roles and bindings may hold no more than their writer may do.

After https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping: the
verbs `escalate` (on roles) and `bind` (on the role that is referred to) lift the check.
"""

from __future__ import annotations

from typing import Any

from core.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, Kind
from core.apiserver.authn import User
from core.apiserver.authz.rbac import Index, PolicyRule, covers, read_rules
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden

__all__ = ["GRANTING", "check_escalation"]

GRANTING = frozenset(each.resource for each in (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING))

_RBAC = "rbac.authorization.k8s.io"


def check_escalation(
    index: Index, user: User, kind: Kind, namespace: str, document: dict[str, Any], old: dict[str, Any] | None
) -> None:
    """`kind`'s resource is one of `GRANTING`, `document` is what a create, update or patch would store, `old` what is stored. Raises `Forbidden`."""
    name = document["metadata"].get("name") or ""
    if kind.resource in (ROLE.resource, CLUSTER_ROLE.resource):
        if old is not None and old.get("rules") == document.get("rules"):
            return
        verb, resource, target, wanted = "escalate", kind.plural, name, read_rules(document)
    else:
        reference = document.get("roleRef") or {}
        same = old is not None and all(old.get(key) == document.get(key) for key in ("roleRef", "subjects"))
        if same:
            return
        verb, target = "bind", reference.get("name") or ""
        resource = "roles" if reference.get("kind") == "Role" else "clusterroles"
        found = index.role(namespace if resource == "roles" else "", target)
        wanted = found or ()
        if found is None and not _may(index, user, verb, resource, namespace, target):
            raise _refusal(user, kind, name, f'{resource}.{_RBAC} "{target}" not found')
    if _may(index, user, verb, resource, namespace, target):
        return
    missing = covers(index.rules(user, namespace), wanted)
    if missing:
        shown = ", ".join(_shown(each) for each in missing[:10])
        raise _refusal(
            user, kind, name,
            f'user "{user.name}" (groups={list(user.groups)}) is attempting to grant RBAC permissions not currently held: {shown}',
        )  # fmt: skip


def _may(index: Index, user: User, verb: str, resource: str, namespace: str, name: str) -> bool:
    return bool(index.allows(user, RequestInfo(verb, "", _RBAC, "v1", resource, namespace, name)))


def _refusal(user: User, kind: Kind, name: str, why: str) -> Forbidden:
    return Forbidden(
        f'{kind.resource} "{name}" is forbidden: {why}', {"name": name, "group": _RBAC, "kind": kind.plural}
    )


def _shown(rule: PolicyRule) -> str:
    parts = [f"{key}:{values}" for key, values in rule.document().items()]
    return "{" + ", ".join(parts) + "}"
