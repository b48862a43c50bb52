"""The API server, from the request to the store:

    authenticate -> authorise -> decode, check, admit -> registry (strategy) -> store -> durable -> reply

`edge` is the way in by HTTP (ASGI), `local` the one for the server's own process; both go through `answer`. Resources go
through the dispatcher (`dispatch`, `resources`), everything else is Starlette's (`system`). This module puts the parts together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from starlette.routing import Route

from core.api.kinds import BUILT_IN, CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Kind
from core.apiserver.admission import Admission
from core.apiserver.apiservices import ApiServices
from core.apiserver.audit import SILENT, Audit, Trail
from core.apiserver.authn import Authenticator, User
from core.apiserver.authn.bootstrap import BootstrapTokens
from core.apiserver.authn.oidc import Oidc
from core.apiserver.authn.tokens import ServiceAccountTokens, new_key
from core.apiserver.authz import Authorizer
from core.apiserver.authz.bootstrap import cluster_role_bindings, cluster_roles, ensure
from core.apiserver.authz.node import NodeAuthorizer
from core.apiserver.authz.policy import Policy
from core.apiserver.builtin import build_registries
from core.apiserver.cache import Cache
from core.apiserver.customs import CustomKinds
from core.apiserver.deadlines import Deadlines
from core.apiserver.debug import Debug
from core.apiserver.documents import custom_shape
from core.apiserver.edge import Edge
from core.apiserver.firsts import create_firsts
from core.apiserver.flow.clients import Clients
from core.apiserver.flow.control import TOTAL_SEATS, FlowControl
from core.apiserver.flow.firsts import ensure_objects
from core.apiserver.flow.metrics import FlowMetrics
from core.apiserver.housekeeping import Housekeeping
from core.apiserver.http import Receive, Scope, Send
from core.apiserver.issuer import issuer_routes
from core.apiserver.local import LocalTransport
from core.apiserver.metrics import Metrics
from core.apiserver.proxying import Proxies
from core.apiserver.request import ApiRequest
from core.apiserver.resources import Answer, Resources
from core.apiserver.reviews import Reviews
from core.apiserver.schema import load
from core.apiserver.served import Served
from core.apiserver.status import from_store
from core.apiserver.streams.connect import PodConnections
from core.apiserver.streams.log import KubeletConnector, PodLogs
from core.apiserver.subresources import SERVED, Subresources
from core.apiserver.system import build_system, in_process
from core.apiserver.usage import Measured
from core.apiserver.webhooks.chain import Webhooks
from core.clock import wall
from core.store.base import Store, StoreError

__all__ = ["ApiServer"]

log = logging.getLogger(__name__)


class ApiServer:
    """An ASGI application over a store. `tokens`: bearer token -> user. `kubelet` reaches node agents, for logs, `exec` and the like; `advertise` is the
    address and port that the Service `kubernetes` leads to; `signing_key` (PEM) signs the tokens of ServiceAccounts: without one they
    end with the process. `seats`: how many requests run at once, but for those that are exempt. `audit` (nothing is written without one) is
    started and stopped by its owner.

    `oidc` takes the ID tokens of an identity provider. `routes` are served beside what is no resource, to whom the policy lets. The server doesn't close the store; it closes `kubelet` and `oidc`.
    """

    def __init__(
        self,
        store: Store,
        *,
        tokens: Mapping[str, User],
        kinds: Sequence[Kind] = BUILT_IN,
        kubelet: KubeletConnector | None = None,
        service_cidr: str = "127.32.0.0/16",
        advertise: tuple[str, int] | None = None,
        signing_key: bytes = b"",
        seats: int = TOTAL_SEATS,
        audit: Audit | None = None,
        oidc: Oidc | None = None,
        routes: Sequence[Route] = (),
        clock: Callable[[], float] = wall,
    ) -> None:
        self._store = store
        self._service_cidr = service_cidr
        self._advertise = advertise
        self._kubelet = kubelet
        self._oidc = oidc
        self._ready = False
        cache, schemas, served = Cache(), load(), Served()
        self._served = served
        self._customs = CustomKinds(store, cache, served, custom_shape, clock)
        kinds = [replace(each, subresources=tuple(sub for sub in each.subresources if sub in SERVED)) for each in kinds]
        for registry in build_registries(kinds, store, cache, schemas, service_cidr, self._customs, clock):
            served.add(registry)
        accounts = ServiceAccountTokens(store, signing_key or new_key(), clock)
        self._authenticator = Authenticator(tokens, accounts, BootstrapTokens(store, clock), oidc)
        self._policy = Policy(store)
        self._nodes = NodeAuthorizer(store)
        self._authorizer = Authorizer(self._nodes, self._policy.index)
        self._webhooks = Webhooks(store, served, cache)
        admission = Admission(store, self._policy.index, self._webhooks)
        self._proxies = Proxies(served, kubelet)
        self.resources = Resources(
            store,
            served,
            admission,
            Reviews(self._authenticator, self._authorizer),
            schemas,
            Subresources(
                served,
                admission,
                schemas,
                PodLogs(served, kubelet),
                PodConnections(served, kubelet),
                self._proxies,
                accounts,
                clock,
            ),
            self._authorizer,
            Measured(served, kubelet),
        )
        self._metrics = Metrics(lambda: self.resources.watching, lambda: store.revision)
        self._flow = FlowControl(store, served, seats=seats)
        self._system = build_system(
            served,
            {"ping": _ping, "store": self._check_store, "started": self._check_started},
            self._metrics,
            [*issuer_routes(accounts, advertise), *Debug(self._flow.seats).routes(), *routes],
        )
        self._housekeeping = Housekeeping(store, served, clock)
        self._api_services = ApiServices(served)
        served.changed = self._api_services.poke
        self._metrics.collect(FlowMetrics(self._flow.seats))
        self._deadlines, clients = Deadlines(), Clients()
        self.client_of = clients.of
        self._edge = Edge(
            self._authenticator, self._authorizer, self._flow, self._deadlines, clients, audit or Audit.off(), self._metrics, served, store,
            self.resources, self._system, self.answer,
        )  # fmt: skip

    async def start(self) -> None:
        """Load what is stored, create what every cluster has, and serve."""
        await self._customs.load()
        await self._policy.start()
        await self._nodes.start()
        for kind in self._served.kinds():
            registry = self._served.of(kind)
            if registry.strategy.tracks_stored:
                for entry in (await self._store.list(registry.prefix())).entries:
                    registry.strategy.stored(registry.codec.document(entry))
        await create_firsts(self._served, self._service_cidr, self._advertise)
        await self._ensure_roles()
        await self._api_services.start()
        await ensure_objects(self._served)
        await self._flow.start()
        await self._webhooks.start()
        await self._housekeeping.start()
        self._ready = True

    async def _ensure_roles(self) -> None:
        """The default roles and bindings, as this release has them, where nobody took them out of its hands."""
        for kind, documents in ((CLUSTER_ROLE, cluster_roles()), (CLUSTER_ROLE_BINDING, cluster_role_bindings())):
            registry = self._served.find(kind.group, kind.version, kind.plural)
            if registry is not None:
                for document in documents:
                    await ensure(registry, document)

    async def stop(self) -> None:
        """End watches and the server's own tasks. Requests that run may end by themselves."""
        self._ready = False
        self.resources.stop()
        await self._housekeeping.stop()
        await self._api_services.stop()
        await self._policy.stop()
        await self._flow.stop()
        await self._webhooks.stop()
        self._deadlines.stop()
        await self._nodes.stop()
        await self._customs.stop()
        await self._proxies.close()
        if self._kubelet is not None:
            await self._kubelet.close()
        if self._oidc is not None:
            await self._oidc.close()

    @property
    def crowded(self) -> bool:
        """Requests wait for their turn."""
        return any(self._flow.seats.waiting())

    @property
    def audit(self) -> Audit:
        """Where requests leave their trail."""
        return self._edge.audit

    @audit.setter
    def audit(self, audit: Audit) -> None:
        self._edge.audit = audit

    def local(self, user: User) -> LocalTransport:
        """A transport for a component of this process, which acts as `user`."""
        return LocalTransport(self, user)

    async def answer(self, request: ApiRequest, *, applied: bool, trail: Trail = SILENT) -> Answer:
        """Authorise and do what is asked. `applied`: for the server's own process, which needn't wait for durability. Raises `ApiError`."""
        info = request.info
        trail.allowed(await self._authorizer.check(request.user, info))
        try:
            if not info.resource:
                return await in_process(self._system, request)
            return await self.resources.handle(request, applied=applied)
        except StoreError as error:
            raise from_store(error) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    async def _check_store(self) -> str:
        try:
            await self._store.get("/health")
        except StoreError as error:
            return str(error)
        return ""

    async def _check_started(self) -> str:
        return "" if self._ready else "not started"


async def _ping() -> str:
    return ""
