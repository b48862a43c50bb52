"""The table of kinds: one row per kind that the platform serves or speaks of.

A new built-in kind is a row here (and a strategy in `core/apiserver/registry/` where it has rules).
Kinds that come from CustomResourceDefinitions are `Kind` values too, made at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BUILT_IN", "CONFIG_MAP", "CUSTOM_RESOURCE_DEFINITION", "ENDPOINTS", "ENDPOINT_SLICE", "EVENT", "LEASE", "NAMESPACE", "NODE", "POD",
    "REPLICA_SET", "SECRET", "SELF_SUBJECT_ACCESS_REVIEW", "SELF_SUBJECT_REVIEW", "SERVICE", "SERVICE_ACCOUNT",
    "SUBJECT_ACCESS_REVIEW", "TOKEN_REVIEW", "Kind",
]  # fmt: skip

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource type: its names, its scope and what hangs below it.

    `group` is "" for the core group. `subresources` are path segments below an object (`status`, `scale` ...).
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    singular_name: str = ""
    list_name: str = ""

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name that error messages use: `pods`, `replicasets.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def list_kind(self) -> str:
        return self.list_name or f"{self.kind}List"

    @property
    def prefix(self) -> str:
        """The URL path of the kind's group and version: `/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of an object, or of a collection where `name` is empty.

        An empty `namespace` with a namespaced kind is the collection over all namespaces.
        """
        parts = [self.prefix]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


_REVIEW = ("create",)

NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, ("ns",), ("status", "finalize"),
                 verbs=("create", "delete", "get", "list", "patch", "update", "watch"))  # fmt: skip
NODE = Kind("", "v1", "Node", "nodes", False, ("no",), ("status", "proxy"))
POD = Kind("", "v1", "Pod", "pods", True, ("po",),
           ("attach", "binding", "eviction", "ephemeralcontainers", "exec", "log", "portforward", "proxy", "status"),
           ("all",))  # fmt: skip
SERVICE = Kind("", "v1", "Service", "services", True, ("svc",), ("proxy", "status"), ("all",))
ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", True, ("ep",), list_name="EndpointsList")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",))
SECRET = Kind("", "v1", "Secret", "secrets")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",), ("token",))
EVENT = Kind("", "v1", "Event", "events", True, ("ev",))
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), ("scale", "status"), ("all",))
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
CUSTOM_RESOURCE_DEFINITION = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
                                  False, ("crd", "crds"), ("status",), ("api-extensions",))  # fmt: skip
TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, verbs=_REVIEW)
SELF_SUBJECT_REVIEW = Kind(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, verbs=_REVIEW
)
SUBJECT_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False,
                             verbs=_REVIEW)  # fmt: skip
SELF_SUBJECT_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews",
                                  False, verbs=_REVIEW)  # fmt: skip

BUILT_IN: tuple[Kind, ...] = (
    NAMESPACE, NODE, POD, SERVICE, ENDPOINTS, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, EVENT,
    REPLICA_SET, ENDPOINT_SLICE, LEASE, CUSTOM_RESOURCE_DEFINITION,
    TOKEN_REVIEW, SELF_SUBJECT_REVIEW, SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW,
)  # fmt: skip
