"""Typed views: the fields of API objects that controllers, scheduler, node and gateway read.

A view is decoded from an object's JSON in microseconds and ignores every field that it doesn't name, so an object
must never be written back from a view; writers send patches or whole documents (`core.api.meta.Document`).
Add the field that you need to the view; don't make a second view of the same kind.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

__all__ = [
    "Condition", "ConfigMap", "Container", "ContainerPort", "ContainerState", "ContainerStatus", "Deployment", "EndpointSlice", "Endpoints",
    "EnvVar", "Event", "HorizontalPodAutoscaler", "Lease", "Metadata", "Namespace", "Node", "ObjectView", "OwnerReference", "PersistentVolume", "PersistentVolumeClaim", "Pod", "PodSpec", "PodTemplate", "Probe", "ReplicaSet", "ReplicationController", "Secret", "Service", "StorageClass", "Taint",
    "Toleration", "Volume",
]  # fmt: skip


class View(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """Base of all views: camelCase on the wire, defaults for what is absent."""


class OwnerReference(View):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(View):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    generate_name: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object, if one does."""
        return next((each for each in self.owner_references if each.controller), None)


class ObjectView(View):
    """What every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for an object of the cluster."""
        meta = self.metadata
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


class Condition(View):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_update_time: str | None = None


# Pods


class EnvVar(View):
    name: str = ""
    value: str = ""
    value_from: dict[str, Any] | None = None


class ContainerPort(View):
    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"
    host_port: int = 0


class VolumeMount(View):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class Probe(View):
    """A probe; times in seconds. Exactly one of the handlers is set."""

    http_get: dict[str, Any] | None = None
    tcp_socket: dict[str, Any] | None = None
    exec: dict[str, Any] | None = None
    grpc: dict[str, Any] | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Resources(View):
    limits: dict[str, str | int | float] = {}
    requests: dict[str, str | int | float] = {}


class Container(View):
    name: str = ""
    image: str = ""
    image_pull_policy: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    env_from: list[dict[str, Any]] = []
    ports: list[ContainerPort] = []
    volume_mounts: list[VolumeMount] = []
    resources: Resources = field(default_factory=Resources)
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: dict[str, Any] | None = None
    security_context: dict[str, Any] = {}
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    restart_policy: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""


class Volume(View):
    name: str = ""
    empty_dir: dict[str, Any] | None = None
    secret: dict[str, Any] | None = None
    config_map: dict[str, Any] | None = None
    host_path: dict[str, Any] | None = None
    projected: dict[str, Any] | None = None
    csi: dict[str, Any] | None = None
    downward_api: dict[str, Any] | None = field(default=None, name="downwardAPI")
    persistent_volume_claim: dict[str, Any] | None = None
    ephemeral: dict[str, Any] | None = None


class Toleration(View):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSpec(View):
    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] = []
    topology_spread_constraints: list[dict[str, Any]] = []
    scheduler_name: str = "default-scheduler"
    priority: int = 0
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    containers: list[Container] = []
    volumes: list[Volume] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    dns_policy: str = "ClusterFirst"
    enable_service_links: bool | None = None
    security_context: dict[str, Any] = {}
    overhead: dict[str, str | int | float] = {}
    readiness_gates: list[dict[str, Any]] = []
    scheduling_gates: list[dict[str, Any]] = []


class ContainerState(View):
    """One of three; each has the fields of `v1.ContainerState*`."""

    waiting: dict[str, Any] | None = None
    running: dict[str, Any] | None = None
    terminated: dict[str, Any] | None = None


class ContainerStatus(View):
    name: str = ""
    container_id: str = field(default="", name="containerID")
    image: str = ""
    image_id: str = field(default="", name="imageID")
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: ContainerState = field(default_factory=ContainerState)
    last_state: ContainerState = field(default_factory=ContainerState)


class PodStatus(View):
    phase: str = ""
    reason: str = ""
    message: str = ""
    nominated_node_name: str = ""
    pod_ip: str = field(default="", name="podIP")
    host_ip: str = field(default="", name="hostIP")
    start_time: str | None = None
    conditions: list[Condition] = []
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []


class Pod(ObjectView):
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def ready(self) -> bool:
        """Whether the condition Ready holds."""
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)

    @property
    def terminal(self) -> bool:
        """Whether the Pod has ended for good."""
        return self.status.phase in ("Succeeded", "Failed")


class PodTemplate(View):
    metadata: Metadata = field(default_factory=Metadata)
    spec: PodSpec = field(default_factory=PodSpec)


# Workloads


class ReplicaSetSpec(View):
    replicas: int = 1
    min_ready_seconds: int = 0
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}


class ReplicaSetStatus(View):
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0
    conditions: list[Condition] = []


class ReplicaSet(ObjectView):
    """`spec.template` stays a document: it is copied into Pods whole."""

    spec: ReplicaSetSpec = field(default_factory=ReplicaSetSpec)
    status: ReplicaSetStatus = field(default_factory=ReplicaSetStatus)


class ReplicationControllerSpec(ReplicaSetSpec):
    """`selector` is labels on the wire, and `matchLabels` of a label selector here."""

    def __post_init__(self) -> None:
        if self.selector:
            self.selector = {"matchLabels": self.selector}


class ReplicationController(ReplicaSet):
    """A ReplicaSet of older days, and read as one."""

    spec: ReplicationControllerSpec = field(default_factory=ReplicationControllerSpec)


class DeploymentSpec(View):
    replicas: int = 1
    min_ready_seconds: int = 0
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}
    strategy: dict[str, Any] = {}
    paused: bool = False
    progress_deadline_seconds: int | None = None
    revision_history_limit: int | None = None


class DeploymentStatus(View):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    collision_count: int | None = None
    conditions: list[Condition] = []


class Deployment(ObjectView):
    """`spec.template` stays a document: it is copied into ReplicaSets whole."""

    spec: DeploymentSpec = field(default_factory=DeploymentSpec)
    status: DeploymentStatus = field(default_factory=DeploymentStatus)


class JobSpec(View):
    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    active_deadline_seconds: int | None = None
    completion_mode: str = "NonIndexed"
    suspend: bool = False
    ttl_seconds_after_finished: int | None = None
    pod_failure_policy: dict[str, Any] | None = None
    pod_replacement_policy: str = "TerminatingOrFailed"
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    success_policy: dict[str, Any] | None = None
    managed_by: str | None = None
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}


class JobStatus(View):
    active: int = 0
    ready: int | None = None
    succeeded: int = 0
    failed: int = 0
    terminating: int | None = None
    start_time: str | None = None
    completion_time: str | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: dict[str, Any] | None = None
    conditions: list[Condition] = []


class Job(ObjectView):
    spec: JobSpec = field(default_factory=JobSpec)
    status: JobStatus = field(default_factory=JobStatus)

    @property
    def finished(self) -> str:
        """`Complete`, `Failed`, or "" while it runs."""
        ends = ("Complete", "Failed")
        return next((each.type for each in self.status.conditions if each.type in ends and each.status == "True"), "")


class CronJobSpec(View):
    schedule: str = ""
    time_zone: str | None = None
    suspend: bool = False
    concurrency_policy: str = "Allow"
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int = 3
    failed_jobs_history_limit: int = 1
    job_template: dict[str, Any] = {}


class CronJobStatus(View):
    active: list[dict[str, Any]] = []
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(ObjectView):
    spec: CronJobSpec = field(default_factory=CronJobSpec)
    status: CronJobStatus = field(default_factory=CronJobStatus)


class StatefulSetSpec(View):
    replicas: int = 1
    min_ready_seconds: int = 0
    service_name: str = ""
    pod_management_policy: str = "OrderedReady"
    revision_history_limit: int | None = None
    ordinals: dict[str, Any] = {}
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}
    update_strategy: dict[str, Any] = {}
    volume_claim_templates: list[dict[str, Any]] = []
    persistent_volume_claim_retention_policy: dict[str, str] = {}


class StatefulSetStatus(View):
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None


class StatefulSet(ObjectView):
    spec: StatefulSetSpec = field(default_factory=StatefulSetSpec)
    status: StatefulSetStatus = field(default_factory=StatefulSetStatus)


class DaemonSetSpec(View):
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}
    update_strategy: dict[str, Any] = {}


class DaemonSetStatus(View):
    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    updated_number_scheduled: int = 0


class DaemonSet(ObjectView):
    spec: DaemonSetSpec = field(default_factory=DaemonSetSpec)
    status: DaemonSetStatus = field(default_factory=DaemonSetStatus)


class ControllerRevision(ObjectView):
    """`data` is the patch that leads back to this revision."""

    revision: int = 0
    data: dict[str, Any] = {}


class DisruptionBudgetSpec(View):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: dict[str, Any] | None = None


class DisruptionBudgetStatus(View):
    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    disrupted_pods: dict[str, str] = {}
    conditions: list[Condition] = []


class DisruptionBudget(ObjectView):
    spec: DisruptionBudgetSpec = field(default_factory=DisruptionBudgetSpec)
    status: DisruptionBudgetStatus = field(default_factory=DisruptionBudgetStatus)


class HorizontalPodAutoscalerSpec(View):
    """Of version 2; `metrics` and `behavior` have its fields."""

    scale_target_ref: dict[str, str] = {}
    min_replicas: int = 1
    max_replicas: int = 0
    metrics: list[dict[str, Any]] = []
    behavior: dict[str, Any] | None = None


class HorizontalPodAutoscaler(ObjectView):
    """`status` stays a document: it is written anew as a whole."""

    spec: HorizontalPodAutoscalerSpec = field(default_factory=HorizontalPodAutoscalerSpec)
    status: dict[str, Any] = {}


# Network


class ServicePort(View):
    name: str = ""
    port: int = 0
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None
    node_port: int = 0


class ServiceSpec(View):
    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    cluster_ip: str = field(default="", name="clusterIP")
    publish_not_ready_addresses: bool = False


class Service(ObjectView):
    spec: ServiceSpec = field(default_factory=ServiceSpec)


# Configuration


class Secret(ObjectView):
    """`data` is base64, as it stands on the wire."""

    type: str = ""
    data: dict[str, str] = {}


class ConfigMap(ObjectView):
    """`data` is text, `binary_data` is base64."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class EndpointSlice(ObjectView):
    """`endpoints` and `ports` have the fields of `discovery.k8s.io/v1`."""

    address_type: str = ""
    endpoints: list[dict[str, Any]] = []
    ports: list[dict[str, Any]] = []


class Endpoints(ObjectView):
    """`subsets` have the fields of core/v1."""

    subsets: list[dict[str, Any]] = []


# Storage


class PersistentVolumeSpec(View):
    capacity: dict[str, str | int | float] = {}
    access_modes: list[str] = []
    claim_ref: dict[str, Any] | None = None
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    node_affinity: dict[str, Any] | None = None
    host_path: dict[str, Any] | None = None
    local: dict[str, Any] | None = None
    csi: dict[str, Any] | None = None


class PersistentVolumeStatus(View):
    phase: str = ""


class PersistentVolume(ObjectView):
    spec: PersistentVolumeSpec = field(default_factory=PersistentVolumeSpec)
    status: PersistentVolumeStatus = field(default_factory=PersistentVolumeStatus)


class PersistentVolumeClaimSpec(View):
    access_modes: list[str] = []
    selector: dict[str, Any] | None = None
    resources: Resources = field(default_factory=Resources)
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"


class PersistentVolumeClaimStatus(View):
    phase: str = ""
    access_modes: list[str] = []
    capacity: dict[str, str | int | float] = {}


class PersistentVolumeClaim(ObjectView):
    spec: PersistentVolumeClaimSpec = field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = field(default_factory=PersistentVolumeClaimStatus)


class StorageClass(ObjectView):
    provisioner: str = ""
    reclaim_policy: str = "Delete"
    mount_options: list[str] = []
    allow_volume_expansion: bool = False
    volume_binding_mode: str = "Immediate"


# Cluster


class Taint(View):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(View):
    pod_cidr: str = field(default="", name="podCIDR")
    provider_id: str = field(default="", name="providerID")
    unschedulable: bool = False
    taints: list[Taint] = []


class NodeAddress(View):
    type: str = ""
    address: str = ""


class NodeStatus(View):
    capacity: dict[str, str | int | float] = {}
    allocatable: dict[str, str | int | float] = {}
    conditions: list[Condition] = []
    addresses: list[NodeAddress] = []
    daemon_endpoints: dict[str, Any] = {}
    node_info: dict[str, Any] = {}
    images: list[dict[str, Any]] = []


class Node(ObjectView):
    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


class NamespaceSpec(View):
    finalizers: list[str] = []


class NamespaceStatus(View):
    phase: str = "Active"


class Namespace(ObjectView):
    spec: NamespaceSpec = field(default_factory=NamespaceSpec)
    status: NamespaceStatus = field(default_factory=NamespaceStatus)


class LeaseSpec(View):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(ObjectView):
    spec: LeaseSpec = field(default_factory=LeaseSpec)


class Event(ObjectView):
    involved_object: dict[str, Any] = {}
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
