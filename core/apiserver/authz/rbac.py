"""Role-based access control: rules, and the index that decides by them.

Pure: roles and bindings are put in, decisions come out. After Kubernetes' RBAC authorizer
(https://kubernetes.io/docs/reference/access-authn-authz/rbac/): permissions are a union, nothing is ever denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.apiserver.authn import User
from core.apiserver.dispatch import RequestInfo

__all__ = ["Grant", "Index", "PolicyRule", "covers", "read_rules"]

_SERVICE_ACCOUNT = "system:serviceaccount:{}:{}"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule of a role; "*" stands for everything. A rule has resources or paths (`nonResourceURLs`)."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()

    def allows(self, info: RequestInfo) -> bool:
        if info.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not info.resource:
            return any(_path_matches(each, info.path) for each in self.paths)
        return (
            (info.group in self.groups or "*" in self.groups)
            and self._resource(info.resource, info.subresource)
            and (not self.names or info.name in self.names)
        )

    def _resource(self, resource: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def document(self) -> dict[str, list[str]]:
        """As in a role, and in the reply of a SelfSubjectRulesReview."""
        found = {"verbs": sorted(self.verbs)}
        for key, values in (("apiGroups", self.groups), ("resources", self.resources), ("resourceNames", self.names)):
            if values:
                found[key] = sorted(values)
        if self.paths:
            found["nonResourceURLs"] = list(self.paths)
        return found


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def read_rules(document: Mapping[str, Any]) -> tuple[PolicyRule, ...]:
    """The rules of a Role or ClusterRole document."""
    return tuple(
        PolicyRule(
            frozenset(each.get("verbs") or ()),
            frozenset(each.get("apiGroups") or ()),
            frozenset(each.get("resources") or ()),
            frozenset(each.get("resourceNames") or ()),
            tuple(each.get("nonResourceURLs") or ()),
        )
        for each in document.get("rules") or ()
    )


def covers(owned: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """What of `wanted` somebody who has `owned` doesn't have: empty where all of it is covered.

    A wanted rule is taken apart into single permissions, each of which one owned rule must cover whole.
    """
    return [part for rule in wanted for part in _parts(rule) if not any(_covers_one(each, part) for each in owned)]


def _parts(rule: PolicyRule) -> Iterator[PolicyRule]:
    for verb in sorted(rule.verbs):
        one = frozenset((verb,))
        for path in rule.paths:
            yield PolicyRule(one, paths=(path,))
        for group in sorted(rule.groups):
            for resource in sorted(rule.resources):
                base = (one, frozenset((group,)), frozenset((resource,)))
                if not rule.names:
                    yield PolicyRule(*base)
                for name in sorted(rule.names):
                    yield PolicyRule(*base, frozenset((name,)))


def _covers_one(owner: PolicyRule, part: PolicyRule) -> bool:
    if "*" not in owner.verbs and not part.verbs <= owner.verbs:
        return False
    if part.paths:
        return all(any(_path_matches(mine, path) for mine in owner.paths) for path in part.paths)
    if "*" not in owner.groups and not part.groups <= owner.groups:
        return False
    if not all(_covers_resource(owner.resources, each) for each in part.resources):
        return False
    return not owner.names or (bool(part.names) and part.names <= owner.names)


def _covers_resource(owned: frozenset[str], resource: str) -> bool:
    if "*" in owned or resource in owned:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in owned


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding as it is indexed: where it counts ("" is everywhere), what it gives, to whom."""

    namespace: str
    name: str
    role: tuple[str, str]
    """(namespace, name) of a Role, ("", name) of a ClusterRole."""
    subjects: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, namespace: str, document: Mapping[str, Any]) -> Grant:
        """From a RoleBinding (its namespace) or a ClusterRoleBinding (""); subjects that mean nobody are left out."""
        reference = document.get("roleRef") or {}
        where = namespace if reference.get("kind") == "Role" else ""
        subjects = tuple(filter(None, (_subject(each, namespace) for each in document.get("subjects") or ())))
        return cls(namespace, document["metadata"]["name"], (where, reference.get("name") or ""), subjects)


def _subject(subject: Mapping[str, Any], namespace: str) -> str:
    name = subject.get("name") or ""
    match subject.get("kind"):
        case "User":
            return f"u:{name}"
        case "Group":
            return f"g:{name}"
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return f"u:{_SERVICE_ACCOUNT.format(where, name)}" if where else ""
    return ""


class Index:
    """Roles and bindings by subject, so that a decision looks at the subject's own bindings only."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], tuple[PolicyRule, ...]] = {}
        self._grants: dict[tuple[str, str], Grant] = {}
        self._by_subject: dict[str, dict[str, set[Grant]]] = {}

    def put_role(self, namespace: str, name: str, rules: tuple[PolicyRule, ...]) -> None:
        """`namespace` is "" for a ClusterRole."""
        self._roles[namespace, name] = rules

    def drop_role(self, namespace: str, name: str) -> None:
        self._roles.pop((namespace, name), None)

    def role(self, namespace: str, name: str) -> tuple[PolicyRule, ...] | None:
        return self._roles.get((namespace, name))

    def put_binding(self, grant: Grant) -> None:
        self.drop_binding(grant.namespace, grant.name)
        self._grants[grant.namespace, grant.name] = grant
        for subject in grant.subjects:
            self._by_subject.setdefault(subject, {}).setdefault(grant.namespace, set()).add(grant)

    def drop_binding(self, namespace: str, name: str) -> None:
        old = self._grants.pop((namespace, name), None)
        for subject in old.subjects if old else ():
            places = self._by_subject[subject]
            places[namespace].discard(old)
            if not places[namespace]:
                del places[namespace]
            if not places:
                del self._by_subject[subject]

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """The bindings that count for the user in a namespace; "" for what isn't in one."""
        for subject in (f"u:{user.name}", *(f"g:{each}" for each in user.groups)):
            places = self._by_subject.get(subject)
            if places:
                yield from places.get("", ())
                if namespace:
                    yield from places.get(namespace, ())

    def rules(self, user: User, namespace: str) -> list[PolicyRule]:
        """All that the user may do there."""
        return [rule for grant in self.grants(user, namespace) for rule in self._roles.get(grant.role, ())]

    def allows(self, user: User, info: RequestInfo) -> str:
        """The reason why it is allowed, naming binding and role; "" where it isn't."""
        for grant in self.grants(user, info.namespace):
            for rule in self._roles.get(grant.role, ()):
                if rule.allows(info):
                    return _reason(grant)
        return ""


def _reason(grant: Grant) -> str:
    kind = "RoleBinding" if grant.namespace else "ClusterRoleBinding"
    name = f"{grant.name}/{grant.namespace}" if grant.namespace else grant.name
    role = "Role" if grant.role[0] else "ClusterRole"
    return f'RBAC: allowed by {kind} "{name}" of {role} "{grant.role[1]}"'
