"""Which flow a request is of: FlowSchemas matched against the user and what is asked, and levels' shares turned into seats. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.apiserver.authn import User
from core.apiserver.dispatch import RequestInfo
from core.apiserver.flow.queues import Limits

__all__ = ["FlowSchema", "limits", "parse"]

Document = dict[str, Any]
_ACCOUNT = "system:serviceaccount:"
_ANY = "*"


@dataclass(frozen=True, slots=True)
class FlowSchema:
    """A FlowSchema as it is asked; ordered by precedence, then name."""

    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    rules: Sequence[Document]

    def matches(self, user: User, info: RequestInfo) -> bool:
        return any(_rule_matches(each, user, info) for each in self.rules)

    def flow(self, user: User, info: RequestInfo) -> str:
        """What tells flows of this schema apart."""
        if self.distinguisher == "ByUser":
            return user.name
        return info.namespace if self.distinguisher == "ByNamespace" else ""


def parse(document: Document) -> FlowSchema:
    spec, metadata = document.get("spec") or {}, document["metadata"]
    return FlowSchema(
        metadata["name"],
        metadata.get("uid") or "",
        (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
        spec.get("matchingPrecedence") or 1000,
        (spec.get("distinguisherMethod") or {}).get("type") or "",
        tuple(spec.get("rules") or ()),
    )


def _rule_matches(rule: Document, user: User, info: RequestInfo) -> bool:
    if not any(_is_subject(each, user) for each in rule.get("subjects") or ()):
        return False
    if not info.resource:
        return any(_covers_path(each, info) for each in rule.get("nonResourceRules") or ())
    return any(_covers_resource(each, info) for each in rule.get("resourceRules") or ())


def _is_subject(subject: Document, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            name = (subject.get("user") or {}).get("name")
            return name in (_ANY, user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == _ANY or name in user.groups
        case "ServiceAccount":
            if not user.name.startswith(_ACCOUNT):
                return False
            account = subject.get("serviceAccount") or {}
            namespace, _, name = user.name.removeprefix(_ACCOUNT).partition(":")
            return account.get("namespace") == namespace and account.get("name") in (_ANY, name)
    return False


def _covers_path(rule: Document, info: RequestInfo) -> bool:
    return _has(rule.get("verbs"), info.verb) and any(
        each in (_ANY, info.path) or (each.endswith("/*") and info.path.startswith(each[:-1]))
        for each in rule.get("nonResourceURLs") or ()
    )


def _covers_resource(rule: Document, info: RequestInfo) -> bool:
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("resources"), info.full_resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _has(names: Iterable[str] | None, wanted: str) -> bool:
    return any(each in (_ANY, wanted) for each in names or ())


def limits(levels: Mapping[str, Document], total: int) -> dict[str, Limits]:
    """Name -> seats of each level: `total` divided by the shares, rounded up, as in Kubernetes.

    `levels` are the specs of PriorityLevelConfigurations. An exempt level may lend what its shares give it. One flow has half of the seats at most
    that its level can ever have.
    """
    parts = {name: spec.get("limited") or spec.get("exempt") or {} for name, spec in levels.items()}
    shares = {name: _number(each.get("nominalConcurrencyShares"), 30) for name, each in parts.items()}
    every = sum(shares.values()) or 1
    found: dict[str, Limits] = {}
    for name, part in parts.items():
        nominal = math.ceil(total * shares[name] / every)
        lendable = round(nominal * _number(part.get("lendablePercent"), 0) / 100)
        percent = part.get("borrowingLimitPercent")
        most = total if percent is None else nominal + round(nominal * percent / 100)
        queuing = ((part.get("limitResponse") or {}).get("queuing")) or {}
        length = queuing.get("queueLengthLimit") or 0
        found[name] = Limits(
            nominal,
            nominal - lendable,
            most,
            length * (queuing.get("handSize") or 1),
            length * (queuing.get("queues") or 1),
        )
    kept = sum(each.guaranteed for each in found.values())
    return {
        name: replace(each, flow_most=-(-max(each.nominal, min(each.most, total - kept + each.guaranteed)) // 2))
        for name, each in found.items()
    }


def _number(value: int | None, default: int) -> int:
    return default if value is None else value
