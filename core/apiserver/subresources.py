"""What hangs below objects and isn't the object: scale, binding, eviction, log, exec, token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from core.api.kinds import POD_DISRUPTION_BUDGET, Kind
from core.api.meta import disruption_target
from core.apiserver import body
from core.apiserver.admission import Admission, Attributes
from core.apiserver.authn.tokens import AUDIENCE, BOUND_KINDS, ServiceAccountTokens
from core.apiserver.documents import parse_document
from core.apiserver.evictions import budget_of, needs_budget, spent
from core.apiserver.patch import apply_patch
from core.apiserver.proxying import Proxies
from core.apiserver.registry.deletion import delete_options
from core.apiserver.registry.generic import Registry
from core.apiserver.registry.pods import bind
from core.apiserver.request import ApiRequest, Proxied, Reply, TextStream, WriteOptions, write_options
from core.apiserver.scale import SCALE, read_scale, with_replicas
from core.apiserver.schema import Schemas
from core.apiserver.served import Served
from core.apiserver.status import conflict, invalid, invalid_value, method_not_allowed, no_resource, required
from core.apiserver.streams.connect import PodConnections, Tunnel
from core.apiserver.streams.log import PodLogs
from core.apiserver.streams.options import connect_options, options_query
from core.clock import timestamp
from core.errors import BadRequest

__all__ = ["SERVED", "Subresources"]

Document = dict[str, Any]

SERVED = (
    "approval", "attach", "binding", "ephemeralcontainers", "eviction", "exec", "finalize", "log", "portforward", "proxy", "resize",
    "scale", "status", "token",
)  # fmt: skip
"""The subresources that this server has; discovery names no others."""

_BINDING = Kind("", "v1", "Binding", "bindings")
_EVICTION = Kind("policy", "v1", "Eviction", "evictions")
_TOKEN = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")
_BUDGETS = (POD_DISRUPTION_BUDGET.group, POD_DISRUPTION_BUDGET.version, POD_DISRUPTION_BUDGET.plural)
_MIN_TOKEN_SECONDS = 600
_encode = msgspec.json.encode
_SUCCESS = _encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


class Subresources:
    def __init__(
        self,
        served: Served,
        admission: Admission,
        schemas: Schemas,
        logs: PodLogs,
        connections: PodConnections,
        proxies: Proxies,
        accounts: ServiceAccountTokens,
        clock: Callable[[], float],
    ) -> None:
        self._served = served
        self._accounts = accounts
        self._admission = admission
        self._schemas = schemas
        self._logs = logs
        self._connections = connections
        self._proxies = proxies
        self._clock = clock

    async def handle(self, request: ApiRequest, registry: Registry) -> Reply | TextStream | Tunnel | Proxied:
        verb = request.info.verb
        match request.info.subresource, verb:
            case "scale", "get":
                entry = await registry.get(request.info.namespace, request.info.name)
                scale = read_scale(registry.kind, registry.codec.document(entry), registry.scale)
                return Reply(_encode(scale), entry.revision)
            case "scale", "update" | "patch":
                return await self._scale(request, registry)
            case "binding", "create":
                return await self._bind(request, registry)
            case "eviction", "create":
                return await self._evict(request, registry)
            case "log", "get":
                return await self._logs.open(registry, request)
            case "token", "create":
                return await self._token(request, registry)
            case "proxy", _:
                await self._connecting(request, registry)
                return await self._proxies.open(registry, request)
            case "exec" | "attach" | "portforward", "get" | "create":
                await self._connecting(request, registry)
                return await self._connections.open(registry, request)
            case "scale" | "binding" | "eviction" | "log" | "finalize" | "token" | "exec" | "attach" | "portforward", _:
                raise method_not_allowed()
        raise no_resource()

    async def _scale(self, request: ApiRequest, registry: Registry) -> Reply:
        info, options = request.info, write_options(request.query, "UpdateOptions")
        patch = request.body if info.verb == "patch" else b""
        whole = None if patch else self._checked(SCALE, parse_document(request, SCALE, options), options)

        def change(old: Document) -> Document:
            wanted = whole
            if wanted is None:
                current = read_scale(registry.kind, old, registry.scale)
                wanted = self._checked(
                    SCALE, apply_patch(SCALE, current, patch, request.content_type, self._schemas), options
                )
            if (wanted.get("metadata") or {}).get("name", info.name) != info.name:
                raise BadRequest(
                    f"the name of the object ({wanted['metadata']['name']}) does not match the name on the URL ({info.name})"
                )
            return with_replicas(old, wanted, registry.scale)

        # A document of the present always names its version: only what the client itself says can be out of date.
        said = bool(whole and (whole.get("metadata") or {}).get("resourceVersion")) or b'"resourceVersion"' in patch
        written = await registry.update(
            info.namespace,
            info.name,
            change,
            subresource="scale",
            dry_run=options.dry_run,
            pinned=said,
            manager=request.manager,
            asking=self._admission.webhooks.asking_scale(request, registry),
        )
        document = registry.codec.document(written.entry)
        return Reply(_encode(read_scale(registry.kind, document, registry.scale)), written.entry.revision)

    def _checked(self, kind: Kind, document: Document, options: WriteOptions) -> Document:
        return self._schemas.validate(kind, document, strict=options.strict)[0]

    async def bind_named(self, request: ApiRequest, pods: Registry) -> Reply:
        """A Binding that is created by itself names its Pod."""
        found = parse_document(request, _BINDING, write_options(request.query))
        metadata = found.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name:
            raise invalid(_BINDING, "", [required("metadata.name", "name or generateName is required")])
        request.info = request.info._replace(resource="pods", name=name, subresource="binding")
        return await self._bind(request, pods)

    async def _bind(self, request: ApiRequest, registry: Registry) -> Reply:
        info, options = request.info, write_options(request.query)
        binding = self._checked(_BINDING, parse_document(request, _BINDING, options), options)
        await self._admission.admit(Attributes(request.user, info, registry.kind, binding))
        await self._asked(request, registry, binding)
        uid = (binding.get("metadata") or {}).get("uid")

        def change(pod: Document) -> Document:
            if uid and uid != pod["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}"
                raise conflict(registry.kind, info.name, why, "binding")
            return bind(pod, binding, self._clock())

        written = await registry.update(
            info.namespace, info.name, change, subresource="binding", dry_run=options.dry_run, pinned=False
        )
        return Reply(_SUCCESS, written.entry.revision, 201)

    async def _asked(self, request: ApiRequest, registry: Registry, document: Document) -> None:
        """Webhooks may refuse what is created below an object."""
        asking = self._admission.webhooks.asking(request, registry, "CREATE")
        if asking is not None:
            await asking.mutate(document, None)
            await asking.validate(document, None)

    async def _connecting(self, request: ApiRequest, registry: Registry) -> None:
        """Webhooks may refuse a connection, and change what it asks for; of a proxied request they see the path, and nothing that they change is heeded."""
        asking = self._admission.webhooks.asking(request, registry, "CONNECT")
        if asking is None:
            return
        upgrade, path = request.upgrade, ""
        if request.raw is not None:
            path = "/".join(
                ["", *request.raw.path.decode("latin-1").split("/")[8 if registry.kind.namespaced else 6 :]]
            )
        query = parse_qsl(upgrade.query, keep_blank_values=True) if upgrade else list(request.query.items())
        options = connect_options(registry.kind.kind, request.info.subresource, query, path)
        wanted = await asking.mutate(options, None)
        await asking.validate(wanted, None)
        if wanted is not None and wanted != options and upgrade is not None and not path:
            changed = options_query(wanted)
            request.upgrade = upgrade._replace(query=urlencode(changed))
            request.query = dict(changed)

    async def _evict(self, request: ApiRequest, registry: Registry) -> Reply:
        info = request.info
        document, _ = body.parse(request.body, request.content_type)
        if type(document) is not dict:
            raise BadRequest("the object provided is unrecognized (must be of type Eviction): it isn't an object")
        eviction = self._checked(_EVICTION, document, write_options({}))
        options = delete_options(eviction.get("deleteOptions") or {}, request.query)
        await self._asked(request, registry, eviction)
        pod = registry.codec.document(await registry.get(info.namespace, info.name))
        if needs_budget(pod):
            await self._spend(pod, options.dry_run)
        # A write more would break what a resourceVersion is asked for.
        going = pod["metadata"].get("deletionTimestamp") or options.dry_run or options.resource_version
        if not going and options.uid in ("", pod["metadata"]["uid"]):
            await registry.update(info.namespace, info.name, self._evicted, subresource="status", pinned=False)
        written = await registry.delete(info.namespace, info.name, options)
        return Reply(_SUCCESS, written.entry.revision, 201)

    def _evicted(self, pod: Document) -> Document:
        status = pod.get("status") or {}
        said = disruption_target("EvictionByEvictionAPI", "Eviction API: evicting", self._clock())
        others = [each for each in status.get("conditions") or () if each.get("type") != said["type"]]
        return {**pod, "status": {**status, "conditions": [*others, said]}}

    async def _spend(self, pod: Document, dry_run: bool) -> None:
        """Take the eviction from the Pod's budget, if it has one. Raises `TooManyRequests` where nothing is left of it."""
        budgets = self._served.find(*_BUDGETS)
        if budgets is None:
            return
        namespace = pod["metadata"]["namespace"]
        page = await budgets.store.list(budgets.prefix(namespace))
        budget = budget_of(pod, (budgets.cache.document(each) for each in page.entries))
        if budget is None:
            return

        def change(current: Document) -> Document:
            status = spent(current, pod, self._clock())
            return current if status is None else {**current, "status": status}

        name = budget["metadata"]["name"]
        await budgets.update(namespace, name, change, subresource="status", dry_run=dry_run, pinned=False)

    async def _token(self, request: ApiRequest, registry: Registry) -> Reply:
        info = request.info
        options = write_options(request.query)
        asked = self._checked(_TOKEN, parse_document(request, _TOKEN, options), options)
        account = registry.codec.document(await registry.get(info.namespace, info.name))
        spec = asked.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        causes = []
        if seconds < _MIN_TOKEN_SECONDS:
            why = "may not specify a duration less than 10 minutes"
            causes.append(invalid_value("spec.expirationSeconds", seconds, why))
        elif seconds > 2**32:
            causes.append(
                invalid_value("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
            )
        if causes:
            raise invalid(_TOKEN, info.name, causes)
        await self._admission.admit(Attributes(request.user, info, registry.kind, asked))
        bound = await self._bound(info.namespace, spec.get("boundObjectRef"))
        audiences = spec.get("audiences") or [AUDIENCE]
        uid = account["metadata"]["uid"]
        token, end = self._accounts.issue(info.namespace, info.name, uid, seconds, audiences, bound)
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": info.name, "namespace": info.namespace, "creationTimestamp": timestamp(self._clock())},
            "spec": {
                **spec,
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": timestamp(end)},
        }
        return Reply(_encode(answer), code=201)

    async def _bound(self, namespace: str, reference: Document | None) -> Document | None:
        """What a token is bound to, as a claim. Raises `NotFound`, `Conflict`, `BadRequest`."""
        if not reference:
            return None
        kind = reference.get("kind") or ""
        registry = self._served.find("", "v1", BOUND_KINDS.get(kind, ""))
        if registry is None:
            raise BadRequest(
                f"cannot bind token for serviceaccount to object with kind {kind}, only {', '.join(BOUND_KINDS)}"
            )
        name = reference.get("name") or ""
        metadata = registry.codec.document(await registry.get(namespace if registry.kind.namespaced else "", name))[
            "metadata"
        ]
        if reference.get("uid") and reference["uid"] != metadata["uid"]:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. The object might have been deleted and then recreated"
            raise conflict(registry.kind, name, why)
        return {kind.lower(): {"name": name, "uid": metadata["uid"]}}
