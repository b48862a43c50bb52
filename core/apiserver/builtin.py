"""The built-in kinds and their strategies: one row per kind that has rules of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from core.api import kinds as table
from core.api.kinds import Kind
from core.apiserver.cache import Cache
from core.apiserver.customs import CustomKinds
from core.apiserver.documents import built_in_shape
from core.apiserver.registry.addresses import AddressPool
from core.apiserver.registry.cluster import (
    EndpointSliceStrategy,
    EndpointsStrategy,
    EventStrategy,
    LeaseStrategy,
    NodeStrategy,
    ServiceAccountStrategy,
)
from core.apiserver.registry.config import ConfigMapStrategy, SecretStrategy
from core.apiserver.registry.crds import DefinitionStrategy
from core.apiserver.registry.generic import Registry
from core.apiserver.registry.namespaces import NamespaceStrategy
from core.apiserver.registry.pods import PodStrategy
from core.apiserver.registry.replicasets import ReplicaSetStrategy
from core.apiserver.registry.services import ServiceStrategy
from core.apiserver.registry.strategy import Strategy
from core.apiserver.schema import Schemas
from core.store.base import Store

__all__ = ["build_registries"]

_Make = Callable[[Kind], Strategy]


def _strategies(pool: AddressPool, customs: CustomKinds) -> Mapping[str, _Make]:
    return {
        table.POD.resource: PodStrategy,
        table.SERVICE.resource: lambda kind: ServiceStrategy(kind, pool),
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
            kind, makers.get(kind.resource, Strategy)(kind), store, cache, built_in_shape(schemas, kind), clock=clock
        )
        for kind in kinds
    ]
