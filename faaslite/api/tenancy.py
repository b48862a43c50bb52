"""What teams share a cluster by, as documents: the platform's roles, and what a team's namespace begins with."""

from __future__ import annotations

from typing import Any

from core.api.kinds import (
    CLUSTER_ROLE,
    LIMIT_RANGE,
    NAMESPACE,
    NETWORK_POLICY,
    RESOURCE_QUOTA,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Kind,
)
from core.api.meta import Document
from faaslite.api.names import FUNCTION, GROUP

__all__ = ["CI_ACCOUNT", "ROLES", "role_binding", "roles", "team_documents"]

CI_ACCOUNT = "ci"
ROLES = ("developer", "viewer", "ci")
"""What `faas token create --role` knows; the ClusterRole of each is `faaslite-ROLE`."""
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _role(name: str, rules: list[Document], **labels: str) -> Document:
    return {
        "apiVersion": CLUSTER_ROLE.api_version,
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "faaslite", **labels}},
        "rules": rules,
    }


def roles() -> list[Document]:
    """The platform's ClusterRoles. Functions join Kubernetes' own `view` and `edit` too."""
    seen = [
        _rule(GROUP, ["functions"], _READ),
        _rule("", ["configmaps", "events", "limitranges", "pods", "pods/log", "resourcequotas", "services"], _READ),
        _rule("apps", ["replicasets"], _READ),
    ]
    deployed = [_rule(GROUP, ["functions"], _WRITE), _rule(GROUP, ["functions/invoke"], ["create", "get"])]
    secrets = _rule("", ["secrets", "configmaps"], [*_READ, *_WRITE])
    return [
        _role("faaslite-viewer", seen),
        _role("faaslite-ci", [*seen, *deployed]),
        _role("faaslite-developer", [*seen, *deployed, secrets]),
        _role("faaslite-aggregate-to-view", seen[:1], **{f"{_RBAC}/aggregate-to-view": "true"}),
        _role("faaslite-aggregate-to-edit", deployed, **{f"{_RBAC}/aggregate-to-edit": "true"}),
    ]


def role_binding(namespace: str, role: str, account: str) -> Document:
    """Gives a ServiceAccount of the namespace one of `ROLES` there."""
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": "RoleBinding",
        "metadata": {"name": f"faaslite-{account}", "namespace": namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": f"faaslite-{role}"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def team_documents(
    name: str, *, cpu: str = "", memory: str = "", pods: int | None = None, functions: int | None = None
) -> list[tuple[Kind, Document]]:
    """A team's namespace in the order of creation. Without a bound there is no quota.

    With a quota on CPU or memory come defaults for containers that say nothing, or every Pod of the team would be refused. The
    NetworkPolicy lets in the gateway and the team itself; it is stored until the network enforces policies.
    """
    account: Document = {"metadata": {"name": CI_ACCOUNT, "namespace": name}}
    found = [
        (NAMESPACE, _namespace(name)),
        (NETWORK_POLICY, _network_policy(name)),
        (SERVICE_ACCOUNT, account),
        (ROLE_BINDING, role_binding(name, "ci", CI_ACCOUNT)),
    ]
    hard: dict[str, Any] = {}
    if cpu:
        hard["requests.cpu"] = cpu
    if memory:
        hard |= {"requests.memory": memory, "limits.memory": memory}
    if pods is not None:
        hard["pods"] = str(pods)
    if functions is not None:
        hard[f"count/{FUNCTION.resource}"] = str(functions)
    if cpu or memory:
        item = {
            "type": "Container",
            "default": {"memory": "128Mi"},
            "defaultRequest": {"cpu": "50m", "memory": "128Mi"},
        }
        found.append((LIMIT_RANGE, {"metadata": {"name": "team", "namespace": name}, "spec": {"limits": [item]}}))
    if hard:
        found.append((RESOURCE_QUOTA, {"metadata": {"name": "team", "namespace": name}, "spec": {"hard": hard}}))
    return found


def _namespace(name: str) -> Document:
    levels = {f"pod-security.kubernetes.io/{mode}": "baseline" for mode in ("enforce", "warn", "audit")}
    return {"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "faaslite", **levels}}}


def _network_policy(namespace: str) -> Document:
    own: Document = {"podSelector": {}}
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "faaslite-system"}}}
    return {
        "metadata": {"name": "team", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [own, system]}]},
    }
