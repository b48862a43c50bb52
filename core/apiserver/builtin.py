"""The built-in kinds and their strategies: one row per kind that has rules of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from core.api import kinds as table
from core.api.kinds import Kind
from core.apiserver.cache import Cache
from core.apiserver.customs import CustomKinds
from core.apiserver.documents import built_in_shape
from core.apiserver.registry.access import BindingStrategy, CertificateRequestStrategy, RoleStrategy
from core.apiserver.registry.addresses import AddressPool, PortPool
from core.apiserver.registry.autoscaling import HPA_V1, AutoscalerStrategy
from core.apiserver.registry.batch import CronJobStrategy, JobStrategy
from core.apiserver.registry.cluster import (
    EndpointSliceStrategy,
    EndpointsStrategy,
    EventStrategy,
    LeaseStrategy,
    NodeStrategy,
    ServiceAccountStrategy,
)
from core.apiserver.registry.config import ConfigMapStrategy, SecretStrategy
from core.apiserver.registry.conversion import Conversion
from core.apiserver.registry.crds import DefinitionStrategy
from core.apiserver.registry.events import EVENTS_V1, EventV1Strategy
from core.apiserver.registry.extensions import ApiServiceStrategy, WebhookStrategy
from core.apiserver.registry.flowcontrol import FlowSchemaStrategy, PriorityLevelStrategy
from core.apiserver.registry.generic import Registry
from core.apiserver.registry.namespaces import NamespaceStrategy
from core.apiserver.registry.networking import IngressClassStrategy, IngressStrategy, NetworkPolicyStrategy
from core.apiserver.registry.pods import PodStrategy
from core.apiserver.registry.policy import (
    BudgetStrategy,
    LimitRangeStrategy,
    PriorityClassStrategy,
    QuotaStrategy,
    RuntimeClassStrategy,
)
from core.apiserver.registry.replicasets import ReplicaSetStrategy
from core.apiserver.registry.services import ServiceStrategy
from core.apiserver.registry.storage import (
    ClaimStrategy,
    CsiDriverStrategy,
    CsiNodeStrategy,
    StorageClassStrategy,
    VolumeAttachmentStrategy,
    VolumeStrategy,
)
from core.apiserver.registry.strategy import Strategy
from core.apiserver.registry.workloads import (
    ControllerRevisionStrategy,
    DaemonSetStrategy,
    DeploymentStrategy,
    PodTemplateStrategy,
    ReplicationControllerStrategy,
    StatefulSetStrategy,
)
from core.apiserver.schema import Schemas
from core.store.base import Store

__all__ = ["build_registries"]

_Make = Callable[[Kind], Strategy]


_CONVERSIONS: Mapping[Kind, Conversion] = {
    table.HORIZONTAL_POD_AUTOSCALER_V1: HPA_V1,
    table.EVENT_V1: EVENTS_V1,
}
"""The kinds that show what is stored as another one."""

_STRATEGIES: Mapping[str, _Make] = {
    table.CERTIFICATE_SIGNING_REQUEST.resource: CertificateRequestStrategy,
    table.CLUSTER_ROLE.resource: RoleStrategy,
    table.ROLE.resource: RoleStrategy,
    table.CLUSTER_ROLE_BINDING.resource: BindingStrategy,
    table.ROLE_BINDING.resource: BindingStrategy,
    table.HORIZONTAL_POD_AUTOSCALER.resource: AutoscalerStrategy,
    table.JOB.resource: JobStrategy,
    table.CRON_JOB.resource: CronJobStrategy,
    table.EVENT_V1.resource: EventV1Strategy,
    table.API_SERVICE.resource: ApiServiceStrategy,
    table.MUTATING_WEBHOOK_CONFIGURATION.resource: WebhookStrategy,
    table.VALIDATING_WEBHOOK_CONFIGURATION.resource: WebhookStrategy,
    table.INGRESS.resource: IngressStrategy,
    table.INGRESS_CLASS.resource: IngressClassStrategy,
    table.NETWORK_POLICY.resource: NetworkPolicyStrategy,
    table.POD_DISRUPTION_BUDGET.resource: BudgetStrategy,
    table.RESOURCE_QUOTA.resource: QuotaStrategy,
    table.LIMIT_RANGE.resource: LimitRangeStrategy,
    table.FLOW_SCHEMA.resource: FlowSchemaStrategy,
    table.PRIORITY_LEVEL_CONFIGURATION.resource: PriorityLevelStrategy,
    table.PRIORITY_CLASS.resource: PriorityClassStrategy,
    table.RUNTIME_CLASS.resource: RuntimeClassStrategy,
    table.PERSISTENT_VOLUME.resource: VolumeStrategy,
    table.PERSISTENT_VOLUME_CLAIM.resource: ClaimStrategy,
    table.STORAGE_CLASS.resource: StorageClassStrategy,
    table.CSI_DRIVER.resource: CsiDriverStrategy,
    table.CSI_NODE.resource: CsiNodeStrategy,
    table.VOLUME_ATTACHMENT.resource: VolumeAttachmentStrategy,
    table.DEPLOYMENT.resource: DeploymentStrategy,
    table.STATEFUL_SET.resource: StatefulSetStrategy,
    table.DAEMON_SET.resource: DaemonSetStrategy,
    table.REPLICATION_CONTROLLER.resource: ReplicationControllerStrategy,
    table.CONTROLLER_REVISION.resource: ControllerRevisionStrategy,
    table.POD_TEMPLATE.resource: PodTemplateStrategy,
}


def _strategies(pool: AddressPool, customs: CustomKinds) -> Mapping[str, _Make]:
    ports = PortPool()
    return {
        **_STRATEGIES,
        table.POD.resource: PodStrategy,
        table.SERVICE.resource: lambda kind: ServiceStrategy(kind, pool, ports),
        table.REPLICA_SET.resource: ReplicaSetStrategy,
        table.NODE.resource: NodeStrategy,
        table.NAMESPACE.resource: NamespaceStrategy,
        table.SECRET.resource: SecretStrategy,
        table.CONFIG_MAP.resource: ConfigMapStrategy,
        table.SERVICE_ACCOUNT.resource: ServiceAccountStrategy,
        table.LEASE.resource: LeaseStrategy,
        table.EVENT.resource: EventStrategy,
        table.ENDPOINTS.resource: EndpointsStrategy,
        table.ENDPOINT_SLICE.resource: EndpointSliceStrategy,
        table.CUSTOM_RESOURCE_DEFINITION.resource: lambda kind: DefinitionStrategy(
            kind, customs.define, customs.undefine
        ),
    }


def build_registries(
    kinds: Iterable[Kind],
    store: Store,
    cache: Cache,
    schemas: Schemas,
    service_cidr: str,
    customs: CustomKinds,
    clock: Callable[[], float],
) -> list[Registry]:
    """A registry for each kind; a kind without a row has the rules that all objects have."""
    makers = _strategies(AddressPool(service_cidr), customs)
    return [
        Registry(
            kind,
            makers.get(kind.resource, Strategy)(kind),
            store,
            cache,
            built_in_shape(schemas, kind),
            conversion=_CONVERSIONS.get(kind),
            clock=clock,
        )
        for kind in kinds
    ]
