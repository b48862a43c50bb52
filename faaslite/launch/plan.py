"""Which processes a cluster is made of, and what runs in each: the composition root.

A new component is a line here. Everything is imported before the supervisor forks, so that children share it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from functools import partial

from autoscaler.scaler import Autoscaler
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.streams.log import KubeletConnector
from core.client.informer import Informers
from core.client.rest import Client
from core.collector import Collector
from core.controllers.manager import Controllers
from core.scheduler.scheduler import Scheduler
from core.serving import AsgiServer
from core.store.factory import open_store
from faaslite.controllers.function import FunctionController
from faaslite.launch.auditing import audit
from faaslite.launch.bootstrap import Bootstrap, Closing
from faaslite.launch.child import Component, run_components
from faaslite.launch.cluster import Cluster
from faaslite.launch.encryption import Encryption
from faaslite.launch.identity import oidc
from faaslite.launch.node import node_process, sandboxer_process
from faaslite.launch.packages import PackageFetcher, package_routes
from faaslite.launch.process import ProcessSpec
from faaslite.launch.tracing import exporter, gateway_exporter
from gateway.jobs.app import Jobs
from gateway.worker.settings import Settings as WorkerSettings
from gateway.worker.worker import Worker

__all__ = ["processes"]

_SWITCH_INTERVAL = 0.0002
"""Seconds: with the default of 5 ms a busy event loop starves the threads that write databases."""


_COLLECTOR_THRESHOLDS = (50_000, 50, 1000)


def processes(cluster: Cluster) -> list[ProcessSpec]:
    """In the order of starting; stopped in reverse."""
    table = [
        ProcessSpec("core", partial(_core, cluster), grace=15.0),
        ProcessSpec("jobs", partial(_jobs, cluster), after=["core"]),
    ]
    for name in cluster.nodes:
        if cluster.runtime == "process":
            table.append(sandboxer_process(cluster, name))
        table.append(node_process(cluster, name))
    for number in range(1, len(cluster.gateway_listeners) + 1):
        main = partial(_gateway, cluster, number)
        table.append(ProcessSpec(f"gateway-{number}", main, after=["core"], grace=30.0))
    return table


def _core(cluster: Cluster, report: int) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL)

    async def build() -> Sequence[Component]:
        url = cluster.settings.store or f"sqlite://{cluster.home.state}"
        encryption = Encryption(open_store(url), cluster.home.encryption_keys)
        store = encryption.store
        packages = PackageFetcher(cluster.home.jobs_socket, cluster.pki.token(f"node/{cluster.nodes[0]}"))
        auditing = audit(cluster.home, cluster.settings)
        users = cluster.pki.users(cluster.nodes)
        api = ApiServer(
            store,
            tokens={token: User(each["user"], tuple(each["groups"])) for token, each in users.items()},
            kubelet=KubeletConnector(cluster.pki.client_context("apiserver-kubelet-client")),
            advertise=cluster.api_listeners[0].getsockname()[:2],
            signing_key=cluster.pki.signing_key(),
            audit=auditing,
            oidc=oidc(cluster.settings),
            routes=package_routes(packages),
        )
        client = Client(api.local(User("system:kube-controller-manager", ("system:masters",))))
        informers = Informers(client)
        return [
            Closing(store),
            Closing(packages),
            encryption,
            auditing,
            api,
            Bootstrap(client, _public(cluster)),
            informers,
            Controllers(client, informers, ca=cluster.pki.ca_file.read_text(), authority=cluster.pki.authority),
            Scheduler(client, informers),
            FunctionController(client, informers, url=cluster.settings.gateway_url, inner_url=cluster.inner_url),
            Autoscaler(client, informers, cluster.home.autoscaler_socket),
            AsgiServer(
                api,
                cluster.api_listeners[0],
                cluster.pki.server_context("apiserver", ask_client=True),
                client_of=api.client_of,
            ),
            *(AsgiServer(api, each, client_of=api.client_of) for each in cluster.api_listeners[1:]),
            Collector(lambda: api.crowded),
        ]

    run_components(build, report)


def _public(cluster: Cluster) -> dict[str, str]:
    """What anybody may know."""
    ca = cluster.pki.ca_file.read_text()
    return {"ca.crt": ca, "gateway": cluster.settings.gateway_url, "builds": cluster.builds}


def _jobs(cluster: Cluster, report: int) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL)
    # What start-up made stays; calls come and go without cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)

    async def build() -> Sequence[Component]:
        exporting = exporter()
        client = cluster.client("jobs")
        informers = Informers(client)
        jobs = Jobs(
            client,
            informers,
            socket_path=cluster.home.jobs_socket,
            data_dir=cluster.home.path,
            gateway_url=cluster.settings.gateway_url,
            redis=cluster.settings.redis,
            autoscaler=cluster.home.autoscaler_socket,
            tracing=exporting.tracing if exporting else None,
        )
        return [Closing(client), *([exporting] if exporting else []), informers, jobs]

    run_components(build, report)


def _gateway(cluster: Cluster, number: int, report: int) -> None:
    own = []
    for listeners in (cluster.gateway_listeners, cluster.bridge_listeners):
        for position, each in enumerate(listeners, 1):
            if position == number:
                own.append(each)
            else:
                each.close()

    async def build() -> Sequence[Component]:
        exporting = gateway_exporter()
        client = cluster.client("gateway")
        worker = Worker(
            client,
            own,
            cluster.home.autoscaler_socket,
            cluster.home.jobs_socket,
            WorkerSettings(domain=cluster.settings.domain),
            f"gateway-{number}",
            control=cluster.home.run / f"gateway-{number}.sock",
            tls=cluster.gateway_tls(),
            hints=cluster.home.run,
            recorder=exporting.tracing if exporting else None,
        )
        return [Closing(client), *([exporting] if exporting else []), worker]

    run_components(build, report)
