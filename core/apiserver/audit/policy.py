"""The audit policy: which requests are written down, and how much of each.

`audit.k8s.io/v1 Policy` (https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/): the first rule that matches a request
decides. What such a policy can't say, as it is decided before the answer is known, is an annotation of it: `faaslite.dev/denied`, the level of
requests that were refused where no rule gives them a higher one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import yaml

from core.apiserver.authn.users import User
from core.apiserver.dispatch import RequestInfo
from core.errors import FaasliteError

__all__ = ["DEFAULT", "Level", "Policy", "PolicyError", "Rule", "capped", "read_policy"]

DENIED = "faaslite.dev/denied"
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_MAX_KNOWN = 4096


class PolicyError(FaasliteError):
    """The policy can't be used; the message says where and why in one line."""


class Level(IntEnum):
    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def text(self) -> str:
        return _NAMES[self]


_NAMES = {
    Level.NONE: "None",
    Level.METADATA: "Metadata",
    Level.REQUEST: "Request",
    Level.REQUEST_RESPONSE: "RequestResponse",
}
_LEVELS = {text: level for level, text in _NAMES.items()}

# Bodies that hold secrets themselves: never written, whatever a policy says.
_SEALED = frozenset((("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")))


@dataclass(frozen=True, slots=True)
class GroupResources:
    """Of one API group; no `resources` are all of them."""

    group: str
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def matches(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        mine = {info.full_resource, "*", f"{info.resource}/*"}
        if info.subresource:
            mine.add(f"*/{info.subresource}")
        return not mine.isdisjoint(self.resources)


@dataclass(frozen=True, slots=True)
class Rule:
    """An empty field matches everything."""

    level: Level
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    resources: tuple[GroupResources, ...] = ()
    paths: tuple[str, ...] = ()
    omit: frozenset[str] = frozenset()
    no_managed_fields: bool = False

    def matches(self, user: User, info: RequestInfo) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return (
                bool(info.resource)
                and (not self.namespaces or info.namespace in self.namespaces)
                and (not self.resources or any(each.matches(info) for each in self.resources))
            )
        if self.paths:
            return not info.resource and any(_path_matches(each, info.path) for each in self.paths)
        return True


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


_NOTHING = Rule(Level.NONE)


@dataclass(slots=True)
class Policy:
    """`rule` remembers what it found, as the same few kinds of requests come again and again."""

    rules: tuple[Rule, ...] = ()
    denied: Level = Level.NONE
    _named: bool = field(init=False)
    _known: dict[tuple[object, ...], Rule] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._named = any(each.names for rule in self.rules for each in rule.resources)

    @property
    def silent(self) -> bool:
        """Whether nothing is ever written."""
        return self.denied is Level.NONE and all(each.level is Level.NONE for each in self.rules)

    @property
    def early(self) -> bool:
        """Whether some requests are written as they arrive."""
        return any(each.level and "RequestReceived" not in each.omit for each in self.rules)

    def rule(self, user: User, info: RequestInfo) -> Rule:
        """The rule that decides."""
        at: tuple[object, ...]
        if info.resource:
            name = info.name if self._named else ""
            at = (user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace, name)
        else:
            at = (user.name, user.groups, info.verb, info.path)
        found = self._known.get(at)
        if found is None:
            found = next((each for each in self.rules if each.matches(user, info)), _NOTHING)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[at] = found
        return found


def capped(level: Level, info: RequestInfo) -> Level:
    """The level for that request: bodies of Secrets, of tokens and of reviews of tokens are never written."""
    if level > Level.METADATA and (info.group, info.full_resource) in _SEALED:
        return Level.METADATA
    return level


# Reading


def read_policy(text: str | bytes, where: str) -> Policy:
    """The policy of a YAML or JSON text; `where` names it in errors. Raises `PolicyError`."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _policy(document)
    except _Wrong as error:
        raise PolicyError(f"{where}: {error}") from None


class _Wrong(Exception):
    pass


def _policy(document: Any) -> Policy:
    _fields(document, "the policy", ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"))
    if (document.get("apiVersion"), document.get("kind")) != ("audit.k8s.io/v1", "Policy"):
        raise _Wrong("apiVersion: audit.k8s.io/v1 and kind: Policy are expected")
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise _Wrong("rules: at least one is needed")
    omit = _stages(document, "omitStages")
    plain = _boolean(document, "omitManagedFields", "", False)
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    denied = _level(annotations.get(DENIED, "None"), f"metadata.annotations[{DENIED}]")
    return Policy(tuple(_rule(each, f"rules[{number}]", omit, plain) for number, each in enumerate(rules)), denied)


def _rule(rule: Any, at: str, omit: frozenset[str], plain: bool) -> Rule:
    known = (
        "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages", "omitManagedFields",
    )  # fmt: skip
    _fields(rule, at, known)
    resources = rule.get("resources") or []
    if not isinstance(resources, list):
        raise _Wrong(f"{at}.resources: a list is expected")
    paths = _texts(rule, "nonResourceURLs", at)
    for each in paths:
        if each != "*" and (not each.startswith("/") or "*" in each[:-1]):
            raise _Wrong(f"{at}.nonResourceURLs: {each!r} must begin with / and may have * as its last character alone")
    namespaces = _texts(rule, "namespaces", at)
    if paths and (resources or namespaces):
        raise _Wrong(f"{at}: a rule is for resources or for nonResourceURLs, not for both")
    return Rule(
        _level(rule.get("level"), f"{at}.level"),
        frozenset(_texts(rule, "users", at)),
        frozenset(_texts(rule, "userGroups", at)),
        frozenset(_texts(rule, "verbs", at)),
        frozenset(namespaces),
        tuple(_resources(each, f"{at}.resources[{number}]") for number, each in enumerate(resources)),
        tuple(paths),
        omit | _stages(rule, f"{at}.omitStages"),
        _boolean(rule, "omitManagedFields", f"{at}.", plain),
    )


def _resources(value: Any, at: str) -> GroupResources:
    _fields(value, at, ("group", "resources", "resourceNames"))
    group = value.get("group") or ""
    if not isinstance(group, str) or "/" in group or group == "*":
        raise _Wrong(f"{at}.group: {group!r} is no API group: write it without its version, the core group as ''")
    resources, names = _texts(value, "resources", at), _texts(value, "resourceNames", at)
    if names and not resources:
        raise _Wrong(f"{at}.resourceNames: they need resources")
    return GroupResources(group, tuple(resources), tuple(names))


def _fields(value: Any, at: str, known: Collection[str]) -> None:
    if not isinstance(value, dict):
        raise _Wrong(f"{at}: an object is expected")
    for each in value:
        if each not in known:
            raise _Wrong(f"{at}: unknown field {each!r}; there are {', '.join(known)}")


def _texts(value: Mapping[str, Any], name: str, at: str) -> Sequence[str]:
    found = value.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _Wrong(f"{at}.{name}: a list of texts is expected")
    return found


def _level(text: object, at: str) -> Level:
    found = _LEVELS.get(text) if isinstance(text, str) else None
    if found is None:
        raise _Wrong(f"{at}: {text!r} is no level; there are {', '.join(_LEVELS)}")
    return found


def _stages(value: Mapping[str, Any], at: str) -> frozenset[str]:
    found = _texts(value, "omitStages", at.removesuffix(".omitStages") if "." in at else "the policy")
    for each in found:
        if each not in STAGES:
            raise _Wrong(f"{at}: {each!r} is no stage; there are {', '.join(STAGES)}")
    return frozenset(found)


def _boolean(value: Mapping[str, Any], name: str, at: str, default: bool) -> bool:
    found = value.get(name, default)
    if not isinstance(found, bool):
        raise _Wrong(f"{at}{name}: true or false is expected")
    return found


DEFAULT = """
# Who changed what, who was refused, who read Secrets, who went into containers; without the platform's own chatter.
apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: default, annotations: {faaslite.dev/denied: Metadata}}
omitStages: [RequestReceived]
rules:
- level: None
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: "", resources: [events]}
  - {group: events.k8s.io, resources: [events]}
- level: None
  userGroups: ["system:nodes"]
  resources:
  - {group: "", resources: [nodes/status, pods/status, secrets]}
  - {group: authentication.k8s.io}
- level: None
  users: ["system:kube-controller-manager"]
- level: None
  users: ["system:serviceaccount:faaslite-system:gateway", "system:serviceaccount:faaslite-system:jobs"]
  resources:
  - {group: authentication.k8s.io}
  - {group: faaslite.dev, resources: [functions/status]}
# What users do through the gateway and the call queue is seen by what those ask about them.
- level: Request
  verbs: [create]
  resources:
  - {group: authorization.k8s.io, resources: [subjectaccessreviews]}
- level: Metadata
  resources:
  - {group: "", resources: [secrets, pods/exec, pods/attach, pods/portforward, serviceaccounts/token]}
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
"""
"""What is written where no policy is given."""
