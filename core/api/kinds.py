"""The table of kinds: one row per kind that the platform serves or speaks of.

A new built-in kind is a row here (and a strategy in `core/apiserver/registry/` where it has rules).
Kinds that come from CustomResourceDefinitions are `Kind` values too, made at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = [
    "API_SERVICE", "BINDING", "BUILT_IN", "CERTIFICATE_SIGNING_REQUEST", "CLUSTER_ROLE", "CLUSTER_ROLE_BINDING",
    "COMPONENT_STATUS", "CONFIG_MAP", "CONTROLLER_REVISION", "CRON_JOB", "CSI_DRIVER", "CSI_NODE", "CSI_STORAGE_CAPACITY",
    "CUSTOM_RESOURCE_DEFINITION", "DAEMON_SET", "DEPLOYMENT", "ENDPOINTS", "ENDPOINT_SLICE", "EVENT", "EVENT_V1", "FLOW_SCHEMA",
    "HORIZONTAL_POD_AUTOSCALER", "HORIZONTAL_POD_AUTOSCALER_V1", "INGRESS", "INGRESS_CLASS", "JOB", "LEASE", "LIMIT_RANGE",
    "LOCAL_SUBJECT_ACCESS_REVIEW", "MUTATING_WEBHOOK_CONFIGURATION", "NAMESPACE", "NETWORK_POLICY", "NODE", "NODE_METRICS",
    "PERSISTENT_VOLUME", "PERSISTENT_VOLUME_CLAIM", "POD", "POD_DISRUPTION_BUDGET", "POD_METRICS", "POD_TEMPLATE", "PRIORITY_CLASS",
    "PRIORITY_LEVEL_CONFIGURATION", "REPLICATION_CONTROLLER", "REPLICA_SET", "RESOURCE_QUOTA", "ROLE", "ROLE_BINDING", "RUNTIME_CLASS", "SECRET",
    "SELF_SUBJECT_ACCESS_REVIEW", "SELF_SUBJECT_REVIEW", "SELF_SUBJECT_RULES_REVIEW", "SERVICE", "SERVICE_ACCOUNT",
    "STATEFUL_SET", "STORAGE_CLASS", "SUBJECT_ACCESS_REVIEW", "TOKEN_REVIEW",
    "VALIDATING_WEBHOOK_CONFIGURATION", "VOLUME_ATTACHMENT", "Kind",
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
    singular_name: str | None = ""
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
        """ "" where `singular_name` is None."""
        return self.kind.lower() if self.singular_name == "" else self.singular_name or ""

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
_ALL = ("all",)
_EXTENSIONS = ("api-extensions",)
_STATUS = ("status",)
_SCALED = ("scale", "status")

# core

BINDING = Kind("", "v1", "Binding", "bindings", verbs=_REVIEW)
COMPONENT_STATUS = Kind("", "v1", "ComponentStatus", "componentstatuses", False, ("cs",), verbs=("get", "list"))
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",))
ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", True, ("ep",), list_name="EndpointsList")
EVENT = Kind("", "v1", "Event", "events", True, ("ev",))
LIMIT_RANGE = Kind("", "v1", "LimitRange", "limitranges", True, ("limits",))
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, ("ns",), ("status", "finalize"),
                 verbs=("create", "delete", "get", "list", "patch", "update", "watch"))  # fmt: skip
NODE = Kind("", "v1", "Node", "nodes", False, ("no",), ("status", "proxy"))
PERSISTENT_VOLUME = Kind("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), _STATUS)
PERSISTENT_VOLUME_CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), _STATUS)
POD = Kind("", "v1", "Pod", "pods", True, ("po",),
           ("attach", "binding", "eviction", "ephemeralcontainers", "exec", "log", "portforward", "proxy", "resize", "status"),
           _ALL)  # fmt: skip
POD_TEMPLATE = Kind("", "v1", "PodTemplate", "podtemplates")
REPLICATION_CONTROLLER = Kind("", "v1", "ReplicationController", "replicationcontrollers", True, ("rc",), _SCALED, _ALL)
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",), _STATUS)
SECRET = Kind("", "v1", "Secret", "secrets")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",), ("token",))
SERVICE = Kind("", "v1", "Service", "services", True, ("svc",), ("proxy", "status"), _ALL)

# apps, batch, autoscaling, policy

CONTROLLER_REVISION = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")
DAEMON_SET = Kind("apps", "v1", "DaemonSet", "daemonsets", True, ("ds",), _STATUS, _ALL)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",), _SCALED, _ALL)
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), _SCALED, _ALL)
STATEFUL_SET = Kind("apps", "v1", "StatefulSet", "statefulsets", True, ("sts",), _SCALED, _ALL)
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs", True, ("cj",), _STATUS, _ALL)
JOB = Kind("batch", "v1", "Job", "jobs", True, (), _STATUS, _ALL)
HORIZONTAL_POD_AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True,
                                 ("hpa",), _STATUS, _ALL)  # fmt: skip
HORIZONTAL_POD_AUTOSCALER_V1 = replace(HORIZONTAL_POD_AUTOSCALER, version="v1")
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",), _STATUS)

# network

ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
INGRESS = Kind("networking.k8s.io", "v1", "Ingress", "ingresses", True, ("ing",), _STATUS)
INGRESS_CLASS = Kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", False)
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",))

# storage

CSI_DRIVER = Kind("storage.k8s.io", "v1", "CSIDriver", "csidrivers", False)
CSI_NODE = Kind("storage.k8s.io", "v1", "CSINode", "csinodes", False)
CSI_STORAGE_CAPACITY = Kind("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, ("sc",))
VOLUME_ATTACHMENT = Kind("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", False, (), _STATUS)

# access

CERTIFICATE_SIGNING_REQUEST = Kind("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests",
                                   False, ("csr",), ("approval", "status"))  # fmt: skip
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, verbs=_REVIEW)
SELF_SUBJECT_REVIEW = Kind(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, verbs=_REVIEW
)
LOCAL_SUBJECT_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews",
                                   verbs=_REVIEW)  # fmt: skip
SUBJECT_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False,
                             verbs=_REVIEW)  # fmt: skip
SELF_SUBJECT_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews",
                                  False, verbs=_REVIEW)  # fmt: skip
SELF_SUBJECT_RULES_REVIEW = Kind("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews",
                                 False, verbs=_REVIEW)  # fmt: skip

# the rest

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
EVENT_V1 = Kind("events.k8s.io", "v1", "Event", "events", True, ("ev",))
FLOW_SCHEMA = Kind("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", False, (), _STATUS)
PRIORITY_LEVEL_CONFIGURATION = Kind("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration",
                                    "prioritylevelconfigurations", False, (), _STATUS)  # fmt: skip
PRIORITY_CLASS = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",))
RUNTIME_CLASS = Kind("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False)
API_SERVICE = Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", False, (), _STATUS, _EXTENSIONS)
CUSTOM_RESOURCE_DEFINITION = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
                                  False, ("crd", "crds"), _STATUS, _EXTENSIONS)  # fmt: skip
MUTATING_WEBHOOK_CONFIGURATION = Kind("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration",
                                      "mutatingwebhookconfigurations", False, (), (), _EXTENSIONS)  # fmt: skip
VALIDATING_WEBHOOK_CONFIGURATION = Kind("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration",
                                        "validatingwebhookconfigurations", False, (), (), _EXTENSIONS)  # fmt: skip

# what is measured

NODE_METRICS = Kind(
    "metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, verbs=("get", "list"), singular_name=None
)
POD_METRICS = Kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", verbs=("get", "list"), singular_name=None)

BUILT_IN: tuple[Kind, ...] = (
    BINDING, COMPONENT_STATUS, CONFIG_MAP, ENDPOINTS, EVENT, LIMIT_RANGE, NAMESPACE, NODE, PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME,
    POD, POD_TEMPLATE, REPLICATION_CONTROLLER, RESOURCE_QUOTA, SECRET, SERVICE_ACCOUNT, SERVICE,
    API_SERVICE,
    CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET,
    EVENT_V1,
    SELF_SUBJECT_REVIEW, TOKEN_REVIEW,
    LOCAL_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_RULES_REVIEW, SUBJECT_ACCESS_REVIEW,
    HORIZONTAL_POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER_V1,
    CRON_JOB, JOB,
    CERTIFICATE_SIGNING_REQUEST,
    INGRESS_CLASS, INGRESS, NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    CLUSTER_ROLE_BINDING, CLUSTER_ROLE, ROLE_BINDING, ROLE,
    CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, STORAGE_CLASS, VOLUME_ATTACHMENT,
    MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION,
    CUSTOM_RESOURCE_DEFINITION,
    FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION,
    PRIORITY_CLASS, LEASE, RUNTIME_CLASS, ENDPOINT_SLICE,
    NODE_METRICS, POD_METRICS,
)  # fmt: skip
"""In the order of discovery, which is that of `kubectl get all`."""
