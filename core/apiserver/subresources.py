"""What hangs below objects and isn't the object: scale, binding, eviction, log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver import body
from core.apiserver.admission import Admission, Attributes
from core.apiserver.documents import parse_document
from core.apiserver.patch import apply_patch
from core.apiserver.registry.deletion import delete_options
from core.apiserver.registry.generic import Registry
from core.apiserver.registry.pods import bind
from core.apiserver.request import ApiRequest, Reply, TextStream, WriteOptions, write_options
from core.apiserver.scale import SCALE, read_scale, with_replicas
from core.apiserver.schema import Schemas
from core.apiserver.status import conflict, method_not_allowed, no_resource
from core.apiserver.streams.log import PodLogs
from core.errors import BadRequest

__all__ = ["SERVED", "Subresources"]

Document = dict[str, Any]

SERVED = ("binding", "eviction", "finalize", "log", "scale", "status")
"""The subresources that this server has; discovery names no others."""

_BINDING = Kind("", "v1", "Binding", "bindings")
_EVICTION = Kind("policy", "v1", "Eviction", "evictions")
_encode = msgspec.json.encode
_SUCCESS = _encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


class Subresources:
    def __init__(self, admission: Admission, schemas: Schemas, logs: PodLogs, clock: Callable[[], float]) -> None:
        self._admission = admission
        self._schemas = schemas
        self._logs = logs
        self._clock = clock

    async def handle(self, request: ApiRequest, registry: Registry) -> Reply | TextStream:
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
            case "scale" | "binding" | "eviction" | "log" | "finalize", _:
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
            info.namespace, info.name, change, subresource="scale", dry_run=options.dry_run, pinned=said, manager=request.manager
        )
        document = registry.codec.document(written.entry)
        return Reply(_encode(read_scale(registry.kind, document, registry.scale)), written.entry.revision)

    def _checked(self, kind: Kind, document: Document, options: WriteOptions) -> Document:
        return self._schemas.validate(kind, document, strict=options.strict)[0]

    async def _bind(self, request: ApiRequest, registry: Registry) -> Reply:
        info, options = request.info, write_options(request.query)
        binding = self._checked(_BINDING, parse_document(request, _BINDING, options), options)
        await self._admission.admit(Attributes(request.user, info, registry.kind, binding))
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

    async def _evict(self, request: ApiRequest, registry: Registry) -> Reply:
        info = request.info
        document, _ = body.parse(request.body, request.content_type)
        if type(document) is not dict:
            raise BadRequest("the object provided is unrecognized (must be of type Eviction): it isn't an object")
        eviction = self._checked(_EVICTION, document, write_options({}))
        options = delete_options(eviction.get("deleteOptions") or {}, request.query)
        written = await registry.delete(info.namespace, info.name, options)
        return Reply(_SUCCESS, written.entry.revision, 201)
