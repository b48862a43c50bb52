"""The FlowSchemas and PriorityLevelConfigurations that every cluster has.

They are Kubernetes' (its reference: "API Priority and Fairness", default configuration), and one more for the platform's own service accounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["AUTO_UPDATE", "CATCH_ALL", "EXEMPT", "MANDATORY", "levels", "schemas"]

Document = dict[str, Any]

AUTO_UPDATE = "apf.kubernetes.io/autoupdate-spec"
EXEMPT, CATCH_ALL = "exempt", "catch-all"
MANDATORY = (EXEMPT, CATCH_ALL)
"""Of both kinds: their specs can't be changed."""

_EVERYONE = ("system:unauthenticated", "system:authenticated")
_ANYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
_ANY_PATH = {"verbs": ["*"], "nonResourceURLs": ["*"]}
_BY_USER, _BY_NAMESPACE = "ByUser", "ByNamespace"


def levels() -> list[Document]:
    """The priority levels."""
    exempt = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    catch_all = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    return [
        _object(EXEMPT, exempt),
        _object(CATCH_ALL, {"type": "Limited", "limited": catch_all}),
        _level("system", 30, 33, 64),
        _level("node-high", 40, 25, 64),
        _level("leader-election", 10, 0, 16, hand=4),
        _level("workload-high", 40, 50, 128),
        _level("workload-low", 100, 90, 128),
        _level("global-default", 20, 50, 128),
    ]


def schemas() -> list[Document]:
    """The flow schemas."""
    manager, scheduler = _users("system:kube-controller-manager"), _users("system:kube-scheduler")
    leases: Document = {
        "verbs": ["get", "create", "update"],
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
    }
    endpoints: Document = {
        "verbs": ["get", "create", "update"],
        "apiGroups": [""],
        "resources": ["endpoints"],
        "namespaces": ["*"],
    }
    beats: list[Document] = [
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": True, "namespaces": ["*"]},
        {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]},
    ]  # fmt: skip
    probes: Document = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}
    everything: dict[str, list[Document]] = {"resources": [_ANYTHING], "paths": [_ANY_PATH]}
    return [
        _schema(EXEMPT, EXEMPT, 1, "", _groups("system:masters"), **everything),
        _schema("probes", EXEMPT, 2, "", _groups(*_EVERYONE), paths=[probes]),
        _schema("system-leader-election", "leader-election", 100, _BY_USER, manager + scheduler,
                resources=[{**leases, "namespaces": ["kube-system"]}]),
        _schema("endpoint-controller", "workload-high", 150, _BY_USER,
                manager + _accounts("kube-system", "endpoint-controller", "endpointslicemirroring-controller"),
                resources=[endpoints]),
        _schema("workload-leader-election", "leader-election", 200, _BY_USER,
                _accounts("kube-system", "*") + _accounts("faaslite-system", "*"),
                resources=[{**leases, "namespaces": ["*"]}]),
        _schema("system-node-high", "node-high", 400, _BY_USER, _groups("system:nodes"), resources=beats),
        _schema("system-nodes", "system", 500, _BY_USER, _groups("system:nodes"), **everything),
        _schema("kube-controller-manager", "workload-high", 800, _BY_NAMESPACE, manager, **everything),
        _schema("kube-scheduler", "workload-high", 800, _BY_NAMESPACE, scheduler, **everything),
        _schema("kube-system-service-accounts", "workload-high", 900, _BY_NAMESPACE, _accounts("kube-system", "*"), **everything),
        _schema("faaslite-system-service-accounts", "workload-high", 900, _BY_USER, _accounts("faaslite-system", "*"), **everything),
        _schema("service-accounts", "workload-low", 9000, _BY_USER, _groups("system:serviceaccounts"), **everything),
        _schema("global-default", "global-default", 9900, _BY_USER, _groups(*_EVERYONE), **everything),
        _schema(CATCH_ALL, CATCH_ALL, 10000, _BY_USER, _groups(*_EVERYONE), **everything),
    ]  # fmt: skip


def _object(name: str, spec: Document) -> Document:
    return {"metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec}


def _level(name: str, shares: int, lendable: int, queues: int, hand: int = 6) -> Document:
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": 50}
    limited = {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": {"type": "Queue", "queuing": queuing},
    }  # fmt: skip
    return _object(name, {"type": "Limited", "limited": limited})


def _schema(
    name: str,
    level: str,
    precedence: int,
    distinguisher: str,
    subjects: Sequence[Document],
    *,
    resources: Sequence[Document] = (),
    paths: Sequence[Document] = (),
) -> Document:
    rule: Document = {"subjects": list(subjects)}
    if resources:
        rule["resourceRules"] = list(resources)
    if paths:
        rule["nonResourceRules"] = list(paths)
    spec: Document = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    }
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return _object(name, spec)


def _users(*names: str) -> list[Document]:
    return [{"kind": "User", "user": {"name": each}} for each in names]


def _groups(*names: str) -> list[Document]:
    return [{"kind": "Group", "group": {"name": each}} for each in names]


def _accounts(namespace: str, *names: str) -> list[Document]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": each}} for each in names]
