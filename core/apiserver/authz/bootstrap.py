"""The roles and bindings that every cluster has, as documents.

After Kubernetes' default roles (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings).
`admin`, `edit` and `view` are made from parts by labels, so that whoever adds a kind can add to them.
"""

from __future__ import annotations

from typing import Any

from core.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING
from core.apiserver.registry.generic import Registry
from core.errors import AlreadyExists

__all__ = ["AGGREGATE", "AUTO_UPDATE", "cluster_role_bindings", "cluster_roles", "ensure"]

Document = dict[str, Any]

AUTO_UPDATE = "rbac.authorization.kubernetes.io/autoupdate"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-{}"
BOOTSTRAPPERS = "system:bootstrappers"
"""The group of who joins with a bootstrap token."""
_ISSUER = ["/.well-known/openid-configuration", "/openid/v1/jwks"]
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_ALL = (*_READ, *_WRITE)

_WORKLOADS = (
    ("", ("pods", "replicationcontrollers", "replicationcontrollers/scale")),
    ("apps", ("daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale")),
    ("batch", ("cronjobs", "jobs")),
    ("autoscaling", ("horizontalpodautoscalers",)),
    ("policy", ("poddisruptionbudgets",)),
    ("networking.k8s.io", ("ingresses", "networkpolicies")),
    ("", ("configmaps", "endpoints", "events", "persistentvolumeclaims", "serviceaccounts", "services")),
)  # fmt: skip
_STATUS = (
    ("", ("persistentvolumeclaims/status", "pods/status", "replicationcontrollers/status", "services/status")),
    ("apps", ("daemonsets/status", "deployments/status", "replicasets/status", "statefulsets/status")),
    ("batch", ("cronjobs/status", "jobs/status")),
    ("", ("bindings", "limitranges", "namespaces", "namespaces/status", "pods/log", "resourcequotas", "resourcequotas/status")),
    ("apps", ("controllerrevisions",)),
    ("discovery.k8s.io", ("endpointslices",)),
)  # fmt: skip


def _rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> Document:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


def _role(name: str, rules: list[Document], *, into: tuple[str, ...] = ()) -> Document:
    labels = {**_LABELS, **{AGGREGATE.format(each): "true" for each in into}}
    metadata = {"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}}
    return {"apiVersion": CLUSTER_ROLE.api_version, "kind": "ClusterRole", "metadata": metadata, "rules": rules}


def _aggregated(name: str, *, into: tuple[str, ...] = ()) -> Document:
    selector = {"matchLabels": {AGGREGATE.format(name): "true"}}
    return {**_role(name, [], into=into), "aggregationRule": {"clusterRoleSelectors": [selector]}}


def cluster_roles() -> list[Document]:
    """Parts come before what is made of them."""
    viewed = [_rule(group, resources, _READ) for group, resources in (*_WORKLOADS, *_STATUS)]
    edited = [_rule(group, resources, _WRITE) for group, resources in _WORKLOADS]
    edited += [
        _rule("", ("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"), ("create", "get")),
        _rule("", ("pods/eviction",), ("create",)),
        _rule("", ("secrets",), _ALL),
        _rule("", ("serviceaccounts",), ("impersonate",)),
        _rule("", ("serviceaccounts/token",), ("create",)),
        _rule("coordination.k8s.io", ("leases",), _ALL),
    ]
    administered = [
        _rule("authorization.k8s.io", ("localsubjectaccessreviews",), ("create",)),
        _rule("rbac.authorization.k8s.io", ("roles", "rolebindings"), _ALL),
    ]
    self_reviews = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
    everything = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ]
    public = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
    return [
        _role("cluster-admin", everything),
        _role("system:aggregate-to-view", viewed, into=("view",)),
        _role("system:aggregate-to-edit", edited, into=("edit",)),
        _role("system:aggregate-to-admin", administered, into=("admin",)),
        _role(
            "system:aggregated-metrics-reader",
            [_rule("metrics.k8s.io", ("nodes", "pods"), _READ)],
            into=("view", "edit", "admin"),
        ),
        _aggregated("view", into=("edit",)),
        _aggregated("edit", into=("admin",)),
        _aggregated("admin"),
        _role(
            "system:basic-user",
            [
                _rule("authorization.k8s.io", self_reviews, ("create",)),
                _rule("authentication.k8s.io", ("selfsubjectreviews",), ("create",)),
            ],
        ),
        *_certificate_roles(),
        _role("system:service-account-issuer-discovery", [{"nonResourceURLs": _ISSUER, "verbs": ["get"]}]),
        _role("system:discovery", [{"nonResourceURLs": paths, "verbs": ["get"]}]),
        _role("system:public-info-viewer", [{"nonResourceURLs": public, "verbs": ["get"]}]),
        _role(
            "system:auth-delegator",
            [
                _rule("authentication.k8s.io", ("tokenreviews",), ("create",)),
                _rule("authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
            ],
        ),
    ]


def _certificate_roles() -> list[Document]:
    """Who may ask for certificates by which way, and who may approve them."""
    api = "certificates.k8s.io"
    requests = f"system:{api}:certificatesigningrequests"
    approver = [
        (
            name,
            [
                {
                    "apiGroups": [api],
                    "resources": ["signers"],
                    "verbs": ["approve"],
                    "resourceNames": [f"kubernetes.io/{name}"],
                }
            ],
        )
        for name in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving")
    ]
    return [
        _role("system:node-bootstrapper", [_rule(api, ("certificatesigningrequests",), ("create", *_READ))]),
        _role(f"{requests}:nodeclient", [_rule(api, ("certificatesigningrequests/nodeclient",), ("create",))]),
        _role(f"{requests}:selfnodeclient", [_rule(api, ("certificatesigningrequests/selfnodeclient",), ("create",))]),
        *(_role(f"system:{api}:{name}-approver", rules) for name, rules in approver),
    ]


def cluster_role_bindings() -> list[Document]:
    return [
        _binding("cluster-admin", "system:masters"),
        _binding("system:basic-user", "system:authenticated"),
        _binding("system:service-account-issuer-discovery", "system:serviceaccounts"),
        _binding("system:node-bootstrapper", BOOTSTRAPPERS),
        _binding("system:certificates.k8s.io:certificatesigningrequests:nodeclient", BOOTSTRAPPERS),
        _binding("system:discovery", "system:authenticated"),
        _binding("system:public-info-viewer", "system:authenticated", "system:unauthenticated"),
    ]


def _binding(role: str, *groups: str) -> Document:
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": CLUSTER_ROLE_BINDING.api_version,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role, "labels": dict(_LABELS), "annotations": {AUTO_UPDATE: "true"}},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": api, "kind": "Group", "name": each} for each in groups],
    }


async def ensure(registry: Registry, document: Document) -> None:
    """Create it, or add what this release has and the stored one lacks; never where its annotation `autoupdate` says false.

    What somebody added stays. Rules of aggregated roles are their controller's.
    """
    name = document["metadata"]["name"]
    try:
        await registry.create("", document)
        return
    except AlreadyExists:
        stored = registry.codec.document(await registry.get("", name))
    part = "subjects" if "subjects" in document else "rules"
    missing = [each for each in document.get(part) or () if each not in (stored.get(part) or ())]
    if not missing or (stored["metadata"].get("annotations") or {}).get(AUTO_UPDATE) == "false":
        return
    await registry.update("", name, lambda old: {**old, part: [*(old.get(part) or ()), *missing]})
