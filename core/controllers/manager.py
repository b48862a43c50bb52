"""All controllers of the core as one component. To add one: a file in this folder and a line in `CONTROLLERS`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from core.client.informer import Informers
from core.client.rest import Client
from core.clock import wall
from core.controllers.certificates import CertificateController
from core.controllers.clusterroleaggregation import ClusterRoleAggregation
from core.controllers.cronjob import CronJobController
from core.controllers.daemonset import DaemonSetController
from core.controllers.deployment import DeploymentController
from core.controllers.disruption import DisruptionController
from core.controllers.endpointslice import EndpointSliceController
from core.controllers.ephemeralvolumes import EphemeralVolumes
from core.controllers.garbagecollector import GarbageCollector
from core.controllers.horizontal import HorizontalController
from core.controllers.job import JobController
from core.controllers.legacyendpoints import EndpointsController
from core.controllers.namespace import NamespaceController
from core.controllers.namespacedefaults import NamespaceDefaults
from core.controllers.nodelifecycle import NodeLifecycleController
from core.controllers.persistentvolume import VolumeController
from core.controllers.podgc import PodGarbageCollector
from core.controllers.replicaset import ReplicaSetController
from core.controllers.replicationcontroller import ReplicationManager
from core.controllers.resourcequota import ResourceQuotaController
from core.controllers.signing import Authority
from core.controllers.statefulset import StatefulSetController
from core.controllers.storageprotection import StorageProtection
from core.controllers.tokencleaner import TokenCleaner
from core.controllers.tokensecrets import TokenSecrets

__all__ = ["CONTROLLERS", "Controller", "Controllers"]

log = logging.getLogger(__name__)


class Controller(Protocol):
    async def start(self) -> None:
        """Returns once its caches are filled and its workers run."""

    async def stop(self) -> None: ...


class Settings(Protocol):
    clock: Callable[[], float]
    ca: str
    authority: Callable[[], Authority] | None


Make = Callable[[Client, Informers, Settings], Controller]

CONTROLLERS: Mapping[str, Make] = {
    "namespace-defaults": lambda client, informers, its: NamespaceDefaults(client, informers, ca=its.ca),
    "daemonset": lambda client, informers, its: DaemonSetController(client, informers, clock=its.clock),
    "deployment": lambda client, informers, its: DeploymentController(client, informers, clock=its.clock),
    "cronjob": lambda client, informers, its: CronJobController(client, informers, clock=its.clock),
    "disruption": lambda client, informers, its: DisruptionController(client, informers, clock=its.clock),
    "horizontal": lambda client, informers, its: HorizontalController(client, informers, clock=its.clock),
    "job": lambda client, informers, its: JobController(client, informers, clock=its.clock),
    "replicaset": lambda client, informers, its: ReplicaSetController(client, informers, clock=its.clock),
    "replicationcontroller": lambda client, informers, its: ReplicationManager(client, informers, clock=its.clock),
    "endpointslice": lambda client, informers, its: EndpointSliceController(client, informers),
    "endpoints": lambda client, informers, its: EndpointsController(client, informers),
    "namespace": lambda client, informers, its: NamespaceController(client, informers),
    "garbagecollector": lambda client, informers, its: GarbageCollector(client, informers),
    "clusterrole-aggregation": lambda client, informers, its: ClusterRoleAggregation(client, informers),
    "resourcequota": lambda client, informers, its: ResourceQuotaController(client, informers),
    "statefulset": lambda client, informers, its: StatefulSetController(client, informers, clock=its.clock),
    "persistentvolume": lambda client, informers, its: VolumeController(client, informers, clock=its.clock),
    "storage-protection": lambda client, informers, its: StorageProtection(client, informers),
    "ephemeral-volumes": lambda client, informers, its: EphemeralVolumes(client, informers),
    "token-secrets": lambda client, informers, its: TokenSecrets(client, informers, ca=its.ca),
    "podgc": lambda client, informers, its: PodGarbageCollector(client, informers, clock=its.clock),
    "certificates": lambda client, informers, its: CertificateController(client, informers, its.authority, its.clock),
    "token-cleaner": lambda client, informers, its: TokenCleaner(client, informers, clock=its.clock),
    "nodelifecycle": lambda client, informers, its: NodeLifecycleController(client, informers, clock=its.clock),
}


class Controllers:
    """`ca` is the PEM text of the cluster's CA, for ConfigMap `kube-root-ca.crt`; `authority` is the CA that signs certificate requests
    (None: nobody does here); `clock` gives seconds since the epoch.

    The informers are the process' own: whoever made them starts and stops them, and starts them before or while this starts.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        clock: Callable[[], float] = wall,
        ca: str = "",
        authority: Callable[[], Authority] | None = None,
        controllers: Mapping[str, Make] = CONTROLLERS,
    ) -> None:
        self.clock = clock
        self.ca = ca
        self.authority = authority
        self._controllers = {name: make(client, informers, self) for name, make in controllers.items()}

    async def start(self) -> None:
        """Returns when every controller works. Where one can't start, those that did are stopped and the error is raised."""
        outcomes = await asyncio.gather(*(each.start() for each in self._controllers.values()), return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        if failed:
            await self.stop()
            raise failed[0]
        log.info("controllers run: %s", ", ".join(self._controllers))

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self._controllers.values()))
