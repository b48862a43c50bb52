"""Rules of FlowSchemas and PriorityLevelConfigurations; what they do is in `core.apiserver.flow`."""

from __future__ import annotations

import math
from typing import Any

from core.apiserver.flow import bootstrap
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import forbidden, invalid_value, not_supported, required

__all__ = ["FlowSchemaStrategy", "PriorityLevelStrategy"]

_MAX_PRECEDENCE = 10_000
_MAX_ENTROPY_BITS = 60


class FlowSchemaStrategy(Strategy):
    generation = True

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = 1000

    def validate(self, document: Document) -> list[Cause]:
        spec, name = document["spec"], document["metadata"].get("name") or ""
        found = _fixed(name, spec, bootstrap.schemas())
        precedence = spec["matchingPrecedence"]
        if not 0 < precedence <= _MAX_PRECEDENCE:
            why = "must be a positive value" if precedence <= 0 else f"must not be greater than {_MAX_PRECEDENCE}"
            found.append(invalid_value("spec.matchingPrecedence", precedence, why))
        elif precedence == 1 and name != bootstrap.EXEMPT:
            why = "only the schema named 'exempt' may have matchingPrecedence 1"
            found.append(invalid_value("spec.matchingPrecedence", precedence, why))
        method = spec.get("distinguisherMethod")
        if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
            found.append(not_supported("spec.distinguisherMethod", method.get("type"), ("ByNamespace", "ByUser")))
        if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
            found.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
        for index, rule in enumerate(spec.get("rules") or ()):
            found += _rule(rule, f"spec.rules[{index}]")
        return found


def _rule(rule: Document, at: str) -> list[Cause]:
    found = []
    if not rule.get("subjects"):
        found.append(required(f"{at}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        found += _subject(subject, f"{at}.subjects[{index}]")
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        found.append(required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for index, each in enumerate(rule.get("resourceRules") or ()):
        here = f"{at}.resourceRules[{index}]"
        found += _names(each, "verbs", here, "verbs must contain at least one value")
        found += _names(each, "apiGroups", here, "resource rules must supply at least one api group")
        found += _names(each, "resources", here, "resource rules must supply at least one resource")
        if not each.get("namespaces") and not each.get("clusterScope"):
            found.append(
                required(f"{here}.namespaces", "resource rules that are not cluster scoped must supply at least one namespace")
            )  # fmt: skip
    for index, each in enumerate(rule.get("nonResourceRules") or ()):
        here = f"{at}.nonResourceRules[{index}]"
        found += _names(each, "verbs", here, "verbs must contain at least one value")
        found += _names(each, "nonResourceURLs", here, "nonResourceURLs must contain at least one value")
    return found


def _names(rule: Document, key: str, at: str, why: str) -> list[Cause]:
    names = rule.get(key) or ()
    if not names:
        return [required(f"{at}.{key}", why)]
    if len(names) > 1 and "*" in names:
        return [invalid_value(f"{at}.{key}", list(names), f"if '*' is present, must not specify other {_words(key)}")]
    return []


def _words(key: str) -> str:
    return {"apiGroups": "api groups", "nonResourceURLs": "non-resource URLs"}.get(key, key)


_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}


def _subject(subject: Document, at: str) -> list[Cause]:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        return [not_supported(f"{at}.kind", kind, ("Group", "ServiceAccount", "User"))]
    found = [
        forbidden(f"{at}.{key}", f"{key} is forbidden when subject kind is not '{other}'")
        for other, key in _SUBJECTS.items()
        if other != kind and subject.get(key) is not None
    ]
    key = _SUBJECTS[kind]
    named = subject.get(key)
    if named is None:
        return [*found, required(f"{at}.{key}", f"{key} is required when subject kind is '{kind}'")]
    wanted = ("namespace", "name") if kind == "ServiceAccount" else ("name",)
    return found + [required(f"{at}.{key}.{each}") for each in wanted if not named.get(each)]


class PriorityLevelStrategy(Strategy):
    generation = True

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        exempt, limited = spec.get("exempt"), spec.get("limited")
        if exempt is not None:
            _default(exempt, nominalConcurrencyShares=0, lendablePercent=0)
        if limited is not None:
            _default(limited, nominalConcurrencyShares=30, lendablePercent=0)
            queuing = (limited.get("limitResponse") or {}).get("queuing")
            if queuing is not None:
                for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                    queuing[key] = queuing.get(key) or value

    def validate(self, document: Document) -> list[Cause]:
        spec, name = document["spec"], document["metadata"].get("name") or ""
        kind, at = spec.get("type") or "", "spec"
        found = _fixed(name, spec, bootstrap.levels())
        if (name == bootstrap.EXEMPT) != (kind == "Exempt"):
            why = "type must be 'Exempt' if and only if `name` is 'exempt'"
            found.append(invalid_value(f"{at}.type", kind, why))
        if kind == "Exempt":
            if spec.get("limited") is not None:
                found.append(forbidden(f"{at}.limited", "must be nil if the type is not Limited"))
            found += _shares(spec.get("exempt") or {}, f"{at}.exempt")
        elif kind == "Limited":
            if spec.get("exempt") is not None:
                found.append(forbidden(f"{at}.exempt", "must be nil if the type is Limited"))
            if spec.get("limited") is None:
                found.append(required(f"{at}.limited", "must not be empty when type is Limited"))
            else:
                found += _limited(spec["limited"], f"{at}.limited")
        else:
            found.append(not_supported(f"{at}.type", kind, ("Exempt", "Limited")))
        return found


def _limited(limited: Document, at: str) -> list[Cause]:
    found = _shares(limited, at)
    most = limited.get("borrowingLimitPercent")
    if most is not None and most < 0:
        found.append(invalid_value(f"{at}.borrowingLimitPercent", most, "if specified, must be a non-negative integer"))
    response = limited.get("limitResponse") or {}
    queuing, kind, at = response.get("queuing"), response.get("type") or "", f"{at}.limitResponse"
    if kind == "Reject":
        if queuing is not None:
            found.append(forbidden(f"{at}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
    elif kind != "Queue":
        found.append(not_supported(f"{at}.type", kind, ("Queue", "Reject")))
    elif queuing is None:
        found.append(required(f"{at}.queuing", "must not be empty if limited.limitResponse.type is Limited"))
    else:
        found += _queuing(queuing, f"{at}.queuing")
    return found


def _queuing(queuing: Document, at: str) -> list[Cause]:
    found = [
        invalid_value(f"{at}.{key}", queuing[key], "must be positive")
        for key in ("queueLengthLimit", "queues", "handSize")
        if queuing[key] <= 0
    ]
    if found:
        return found
    queues, hand = queuing["queues"], queuing["handSize"]
    if hand > queues:
        return [invalid_value(f"{at}.handSize", hand, f"should not be greater than queues ({queues})")]
    bits = sum(math.log2(queues - each) for each in range(min(hand, _MAX_ENTROPY_BITS + 1)))
    if bits > _MAX_ENTROPY_BITS:
        why = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_MAX_ENTROPY_BITS}"
        return [invalid_value(f"{at}.handSize", hand, why)]
    return []


def _shares(part: Document, at: str) -> list[Cause]:
    found = []
    shares, percent = part.get("nominalConcurrencyShares") or 0, part.get("lendablePercent") or 0
    if shares < 0:
        found.append(invalid_value(f"{at}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if not 0 <= percent <= 100:
        found.append(invalid_value(f"{at}.lendablePercent", percent, "must be between 0 and 100, inclusive"))
    return found


def _default(part: Document, **values: Any) -> None:
    for key, value in values.items():
        if part.get(key) is None:
            part[key] = value


def _fixed(name: str, spec: Document, known: list[Document]) -> list[Cause]:
    """The mandatory objects are as they are."""
    if name not in bootstrap.MANDATORY:
        return []
    wanted = next(each["spec"] for each in known if each["metadata"]["name"] == name)
    return [] if spec == wanted else [invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value")]
