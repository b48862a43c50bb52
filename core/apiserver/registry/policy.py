"""Rules of what bounds others: PodDisruptionBudgets, ResourceQuotas, LimitRanges, PriorityClasses, RuntimeClasses."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from core.api.quantity import parse
from core.apiserver.registry.names import label
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.registry.workloads import check_share
from core.apiserver.status import forbidden, immutable, invalid_value, not_supported, required

__all__ = [
    "SYSTEM_CLASSES", "BudgetStrategy", "LimitRangeStrategy", "PriorityClassStrategy", "QuotaStrategy", "RuntimeClassStrategy",
]  # fmt: skip

_USER_MAX = 1_000_000_000
_NOTE = "Used for system critical pods that must "
SYSTEM_CLASSES = {
    "system-cluster-critical": (
        2_000_000_000, f"{_NOTE}run in the cluster, but can be moved to another node if necessary.",
    ),
    "system-node-critical": (2_000_001_000, f"{_NOTE}not be moved from their current node."),
}  # fmt: skip
"""Name -> (value, description) of the classes that every cluster has."""


class BudgetStrategy(Strategy):
    generation = True
    unconditional_update = False

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        }  # fmt: skip

    def validate(self, document: Document) -> list[Cause]:
        spec = document.get("spec") or {}
        low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
        found = check_share(low, "spec.minAvailable") + check_share(high, "spec.maxUnavailable")
        if low is not None and high is not None:
            found.append(invalid_value("spec", "", "minAvailable and maxUnavailable cannot be both set"))
        known = ("AlwaysAllow", "IfHealthyBudget")
        if (policy := spec.get("unhealthyPodEvictionPolicy")) is not None and policy not in known:
            found.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, known))
        return found


def _amounts(amounts: dict[str, Any] | None, at: str) -> list[Cause]:
    found = []
    for key, amount in (amounts or {}).items():
        try:
            if parse(amount) < 0:
                found.append(invalid_value(f"{at}[{key}]", str(amount), "must be greater than or equal to 0"))
        except ValueError:
            found.append(
                invalid_value(
                    f"{at}[{key}]",
                    str(amount),
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                )
            )
    return found


_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")


_COMPUTE = ("cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory")
_COUNTS = (
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
)  # fmt: skip
_QUOTAS = frozenset(
    (
        *_COMPUTE,
        *_COUNTS,
        "ephemeral-storage",
        "limits.ephemeral-storage",
        "requests.ephemeral-storage",
        "requests.storage",
    )
)
"""What a quota may bound by a name without a domain."""


def _bounded(hard: dict[str, Any]) -> list[Cause]:
    """Resources that no quota knows, and counts that aren't whole."""
    found = []
    for key, amount in hard.items():
        at = f"spec.hard[{key}]"
        if "/" not in key and key not in _QUOTAS and not key.startswith(("hugepages-", "requests.hugepages-")):
            found.append(invalid_value(at, key, "must be a standard resource for quota"))
        elif key in _COUNTS and _number(amount) % 1:
            found.append(invalid_value(at, str(amount), "must be an integer"))
    return found


def _number(amount: Any) -> Decimal:
    try:
        return parse(amount)
    except ValueError:
        return Decimal(0)  # said by `_amounts`


def _scoped(scopes: list[str], hard: dict[str, Any], at: str) -> list[Cause]:
    """Scopes are of Pods: what else a quota bounds has none, and Pods of best effort are only counted."""
    return [
        invalid_value(at, scopes, "unsupported scope applied to resource")
        for scope in scopes
        if scope in _SCOPES
        for key in sorted(hard)
        if key in _QUOTAS and key not in (("pods",) if scope == "BestEffort" else ("pods", *_COMPUTE))
    ]


class QuotaStrategy(Strategy):
    returns_object = True

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {}

    def validate(self, document: Document) -> list[Cause]:
        spec = document.get("spec") or {}
        scopes = spec.get("scopes") or []
        found = [not_supported("spec.scopes", each, _SCOPES) for each in scopes if each not in _SCOPES]
        for one, other in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
            if one in scopes and other in scopes:
                found.append(invalid_value("spec.scopes", scopes, "conflicting scopes"))
        hard = spec.get("hard") or {}
        found += _scoped(scopes, hard, "spec.scopes")
        selected = [
            each.get("scopeName") or "" for each in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
        ]
        found += _scoped(selected, hard, "spec.scopeSelector.matchExpressions.scopeName")
        return found + _bounded(hard) + _amounts(hard, "spec.hard")

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        scopes = [sorted((each.get("spec") or {}).get("scopes") or []) for each in (new, old)]
        return [] if scopes[0] == scopes[1] else [invalid_value("spec.scopes", scopes[0], "field is immutable")]


class LimitRangeStrategy(Strategy):
    made_by_update = True

    def complete(self, document: Document) -> None:
        for limit in (document.get("spec") or {}).get("limits") or ():
            if limit.get("type") != "Container":
                continue
            default = {**(limit.get("max") or {}), **(limit.get("default") or {})}
            request = {**(limit.get("min") or {}), **default, **(limit.get("defaultRequest") or {})}
            if default:
                limit["default"] = default
            if request:
                limit["defaultRequest"] = request

    def validate(self, document: Document) -> list[Cause]:
        found: list[Cause] = []
        seen: set[str] = set()
        for index, limit in enumerate((document.get("spec") or {}).get("limits") or ()):
            at, kind = f"spec.limits[{index}]", limit.get("type") or ""
            if not kind:
                found.append(required(f"{at}.type"))
            elif kind in seen:
                found.append(
                    {"reason": "FieldValueDuplicate", "message": f'Duplicate value: "{kind}"', "field": f"{at}.type"}
                )
            seen.add(kind)
            wrong = [
                each
                for key in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
                for each in _amounts(limit.get(key), f"{at}.{key}")
            ]
            found += wrong or self._order(limit, at)
            if kind == "Pod":
                found += [
                    forbidden(f"{at}.{key}", "may not be specified when `type` is 'Pod'")
                    for key in ("default", "defaultRequest")
                    if limit.get(key)
                ]
        return found

    def _order(self, limit: Document, at: str) -> list[Cause]:
        found = []
        for low, high in (("min", "max"), ("min", "defaultRequest"), ("defaultRequest", "default"), ("default", "max")):
            for key, value in (limit.get(low) or {}).items():
                bound = (limit.get(high) or {}).get(key)
                if bound is not None and parse(value) > parse(bound):
                    words = {
                        "min": "min value",
                        "max": "max value",
                        "default": "default value",
                        "defaultRequest": "default request value",
                    }
                    found.append(
                        invalid_value(
                            f"{at}.{low}[{key}]", value, f"{words[low]} {value} is greater than {words[high]} {bound}"
                        )
                    )
        return found


class PriorityClassStrategy(Strategy):
    generation = True

    def complete(self, document: Document) -> None:
        document["preemptionPolicy"] = document.get("preemptionPolicy") or "PreemptLowerPriority"
        document.setdefault("value", 0)

    def validate(self, document: Document) -> list[Cause]:
        name, value, found = document["metadata"].get("name") or "", document["value"], []
        if name.startswith("system-"):
            if SYSTEM_CLASSES.get(name, (None,))[0] != value:
                why = "priority class names with 'system-' prefix are reserved for system use only. "
                why += f"error: {name} is not a known system priority class"
                found.append(forbidden("metadata.name", why))
        elif value > _USER_MAX:
            found.append(forbidden("value", f"maximum allowed value of a user defined priority is {_USER_MAX}"))
        known = ("Never", "PreemptLowerPriority")
        if document["preemptionPolicy"] not in known:
            found.append(not_supported("preemptionPolicy", document["preemptionPolicy"], known))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if new["value"] != old.get("value"):
            return [forbidden("value", "may not be changed in an update.")]
        if new["preemptionPolicy"] != old.get("preemptionPolicy"):
            return [immutable("preemptionPolicy", new["preemptionPolicy"])]
        return []


class RuntimeClassStrategy(Strategy):
    def validate(self, document: Document) -> list[Cause]:
        handler = document.get("handler") or ""
        if not handler:
            return [required("handler")]
        why = label(handler)
        return [invalid_value("handler", handler, why)] if why else []

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return [] if new.get("handler") == old.get("handler") else [immutable("handler", new.get("handler"))]
