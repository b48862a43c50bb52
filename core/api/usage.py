"""What an object uses of a ResourceQuota: pure, for admission and for the quota controller.

After https://kubernetes.io/docs/concepts/policy/resource-quotas/ and pkg/quota/v1/evaluator/core of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from core.api.kinds import Kind
from core.api.quantity import canonical, parse

__all__ = ["COMPUTE", "format_usage", "in_scope", "missing_compute", "pod_resources", "total", "usage_of"]

Document = Mapping[str, Any]
Usage = dict[str, Decimal]

COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTED = frozenset(
    ("configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services")
)
_ZERO = Decimal(0)


def usage_of(kind: Kind, document: Document) -> Usage:
    """By the names that `spec.hard` has: `pods`, `requests.cpu`, `count/deployments.apps` ...; {} for a Pod that has ended."""
    if (
        not kind.group
        and kind.plural == "pods"
        and (document.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    ):
        return {}
    found: Usage = {f"count/{kind.resource}": Decimal(1)}
    if kind.group:
        return found
    if kind.plural in _COUNTED:
        found[kind.plural] = Decimal(1)
    if kind.plural == "pods":
        _add_pod(found, document)
    elif kind.plural == "services":
        _add_service(found, document.get("spec") or {})
    elif kind.plural == "persistentvolumeclaims":
        _add_claim(found, document.get("spec") or {})
    return found


def pod_resources(spec: Document) -> tuple[Usage, Usage]:
    """(requests, limits) of a whole Pod: its containers together or its largest init container, whichever is more, and overhead."""
    return _effective(spec, "requests"), _effective(spec, "limits")


def _effective(spec: Document, which: str) -> Usage:
    together: Usage = {}
    for container in spec.get("containers") or ():
        _add(together, _amounts(container, which))
    running: Usage = {}
    largest: Usage = {}
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container, which)
        if container.get("restartPolicy") == "Always":
            _add(together, amounts)
            _add(running, amounts)
            amounts = dict(running)
        else:
            _add(amounts, running)
        for name, amount in amounts.items():
            largest[name] = max(largest.get(name, _ZERO), amount)
    found = {name: max(together.get(name, _ZERO), largest.get(name, _ZERO)) for name in {*together, *largest}}
    _add(found, {name: parse(amount) for name, amount in (spec.get("overhead") or {}).items()})
    return found


def _said(container: Document, which: str) -> Document:
    """Requests that aren't said are the limits, as the API server's defaults have it."""
    resources = container.get("resources") or {}
    said: Document = resources.get(which) or {}
    return {**(resources.get("limits") or {}), **said} if which == "requests" else said


def _amounts(container: Document, which: str) -> Usage:
    return {name: parse(amount) for name, amount in _said(container, which).items()}


def _add(into: Usage, more: Usage) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, _ZERO) + amount


def _add_pod(found: Usage, pod: Document) -> None:
    requests, limits = pod_resources(pod.get("spec") or {})
    for name, amount in requests.items():
        found[f"requests.{name}"] = amount
        if name in COMPUTE:
            found[name] = amount
    for name, amount in limits.items():
        found[f"limits.{name}"] = amount


def _add_service(found: Usage, spec: Document) -> None:
    type_, ports = spec.get("type"), len(spec.get("ports") or ())
    if type_ == "LoadBalancer":
        found["services.loadbalancers"] = Decimal(1)
    if type_ == "NodePort" or (type_ == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False):
        found["services.nodeports"] = Decimal(ports)


def _add_claim(found: Usage, spec: Document) -> None:
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        return
    found["requests.storage"] = parse(storage)
    if name := spec.get("storageClassName"):
        prefix = f"{name}.storageclass.storage.k8s.io"
        found[f"{prefix}/requests.storage"] = parse(storage)
        found[f"{prefix}/persistentvolumeclaims"] = Decimal(1)


def missing_compute(spec: Document, hard: Iterable[str]) -> dict[str, list[str]]:
    """What a quota limits and a container doesn't say: name of the resource -> containers. Such a Pod is refused."""
    found: dict[str, list[str]] = {}
    for name in hard:
        which, _, resource = name.rpartition(".")
        if resource not in COMPUTE or which not in ("", "requests", "limits"):
            continue
        lacking = [
            each.get("name", "")
            for each in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
            if resource not in _said(each, which or "requests")
        ]
        if lacking:
            found[name] = lacking
    return found


def in_scope(quota_spec: Document, kind: Kind, document: Document) -> bool:
    """Whether the quota's scopes take the object in. Scopes select Pods; a quota with scopes counts nothing else."""
    scopes = [{"scopeName": each, "operator": "Exists"} for each in quota_spec.get("scopes") or ()]
    scopes += (quota_spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not scopes:
        return True
    if kind.group or kind.plural != "pods":
        return False
    return all(_scope_holds(each, document.get("spec") or {}) for each in scopes)


def _scope_holds(scope: Document, spec: Document) -> bool:
    match scope.get("scopeName"):
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _best_effort(spec)
        case "NotBestEffort":
            return not _best_effort(spec)
        case "PriorityClass":
            return _class_matches(scope.get("operator"), spec.get("priorityClassName") or "", scope.get("values") or ())
    return False


def _best_effort(spec: Document) -> bool:
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return not any(_amounts(each, which) for each in containers for which in ("requests", "limits"))


def _class_matches(operator: Any, name: str, values: Sequence[str]) -> bool:
    match operator:
        case "In":
            return name in values
        case "NotIn":
            return name not in values
        case "DoesNotExist":
            return not name
    return bool(name)


def total(usages: Iterable[Usage], names: Iterable[str]) -> Usage:
    """The sum of what is named; a name that nothing uses is 0."""
    found = dict.fromkeys(names, _ZERO)
    for usage in usages:
        for name in found:
            found[name] += usage.get(name, _ZERO)
    return found


def format_usage(name: str, amount: Decimal) -> str:
    """As a quota shows it: memory and storage in binary units where they come out even."""
    text = f"{amount.normalize():f}"
    if name.endswith(("memory", "storage")) and amount == amount.to_integral_value() and amount and amount % 1024 == 0:
        return canonical(f"{int(amount) // 1024}Ki")
    return canonical(text)
