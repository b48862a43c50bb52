"""What each verb does with a resource: decode, admit, ask the registry, answer in the form that was asked for."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from core.api.kinds import BINDING, COMPONENT_STATUS, POD, Kind
from core.apiserver import body
from core.apiserver.admission import Admission, Attributes
from core.apiserver.applies import APPLY_PATCH, Applies
from core.apiserver.authz import Authorizer
from core.apiserver.cache import encode
from core.apiserver.documents import looks_twice, parse_document, parse_options, reshaped, shaped
from core.apiserver.forms import ListMeta, negotiate, render_list, render_object
from core.apiserver.patch import JSON_PATCH, MERGE_PATCH, apply_patch, doubtful, unfit
from core.apiserver.patch_merge import merge_given
from core.apiserver.registry.deletion import delete_options
from core.apiserver.registry.generic import Registry, Written
from core.apiserver.registry.listing import list_options, list_page, resource_version
from core.apiserver.request import (
    ApiRequest,
    Proxied,
    Reply,
    TextStream,
    WatchStream,
    WriteOptions,
    boolean,
    number,
    write_options,
)
from core.apiserver.reviews import VIRTUAL, Reviews
from core.apiserver.rows import KeptRows
from core.apiserver.schema import Schemas
from core.apiserver.served import Served
from core.apiserver.status import (
    forbidden,
    invalid,
    method_not_allowed,
    no_resource,
    not_found,
    success,
    too_large_version,
)
from core.apiserver.streams.connect import Tunnel
from core.apiserver.subresources import Subresources
from core.apiserver.usage import MEASURED, Measured
from core.apiserver.watch import Watcher, WatchOptions
from core.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from core.store.base import Entry, Store

__all__ = ["Answer", "Resources"]

Answer = Reply | WatchStream | TextStream | Tunnel | Proxied
Document = dict[str, object]
_Verb = Callable[[ApiRequest, Registry], Awaitable[Answer]]

_LIST_OPTIONS = Kind("meta.k8s.io", "v1", "ListOptions", "")
_UNUSUAL = frozenset((each.group, each.plural) for each in (*VIRTUAL, *MEASURED, BINDING, COMPONENT_STATUS))
"""Kinds of which nothing is stored: a request for any other needs one look for all of them."""
_encode = msgspec.json.encode


class Resources:
    """`applied` requests (those of the server's own process) watch writes as they are applied, others when they are durable."""

    def __init__(
        self,
        store: Store,
        served: Served,
        admission: Admission,
        reviews: Reviews,
        schemas: Schemas,
        subresources: Subresources,
        authorizer: Authorizer,
        measured: Measured,
    ) -> None:
        self._store = store
        self._measured = measured
        self._served = served
        self._admission = admission
        self._reviews = reviews
        self._schemas = schemas
        self._subresources = subresources
        self._authorizer = authorizer
        self._apply = Applies(admission, authorizer)
        self._rows = KeptRows()
        self._watchers: set[Watcher] = set()
        self._verbs: dict[str, _Verb] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    @property
    def watching(self) -> int:
        """How many watches run."""
        return len(self._watchers)

    @contextmanager
    def running(self, watcher: Watcher) -> Iterator[None]:
        """Around the reading of a watch, so that `stop` can end it."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def stop(self) -> None:
        """End every watch."""
        for each in tuple(self._watchers):
            each.stop()

    async def handle(self, request: ApiRequest, *, applied: bool) -> Answer:
        info = request.info
        registry = self._served.find(info.group, info.version, info.resource)
        if registry is None:
            raise no_resource()
        kind = registry.kind
        if (info.group, info.resource) in _UNUSUAL:
            if kind in VIRTUAL:
                return await self._review(request, kind)
            if kind == BINDING and info.verb == "create" and not info.name:
                return await self._subresources.bind_named(request, self._served.of(POD))
            if kind == COMPONENT_STATUS:
                return self._components(request, registry)
            if kind in MEASURED and not info.subresource:
                return await self._measured.answer(request, registry)
        if info.namespace and not kind.namespaced and info.resource != "namespaces":
            raise no_resource()
        if info.subresource:
            return await self._below(request, registry)
        if info.verb not in kind.verbs or (
            kind.namespaced and not info.namespace and info.verb not in ("list", "watch")
        ):
            raise method_not_allowed()
        if not info.name and info.verb in ("update", "patch"):
            raise method_not_allowed()
        if info.verb == "watch":
            return self._watch(request, registry, applied)
        return await self._verbs[info.verb](request, registry)

    # Reading

    def _object(
        self, request: ApiRequest, registry: Registry, entry: Entry, code: int = 200, revision: int = -1
    ) -> Reply:
        form = negotiate(request.accept, request.query.get("includeObject", ""), many=False)
        rendered = render_object(registry.codec, entry, form, registry.columns)
        return Reply(rendered, entry.revision if revision < 0 else revision, code)

    def _written(self, request: ApiRequest, registry: Registry, written: Written, code: int = 200) -> Reply:
        return self._object(request, registry, written.entry, code, 0 if written.soft else written.entry.revision)

    async def _get(self, request: ApiRequest, registry: Registry) -> Answer:
        version = resource_version(request.query.get("resourceVersion", ""))
        if version > self._store.revision:
            raise too_large_version(version, self._store.revision)
        entry = await registry.get(_namespace(request, registry), request.info.name)
        return self._object(request, registry, entry)

    async def _list(self, request: ApiRequest, registry: Registry) -> Answer:
        query, namespace = request.query, request.info.namespace
        form = negotiate(request.accept, query.get("includeObject", ""), many=True)
        options = list_options(query, registry.prefix(namespace))
        selection = registry.selection(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        entries, meta = await list_page(registry, namespace, selection, options)
        return Reply(render_list(registry.codec, entries, meta, form, registry.columns, self._rows), meta.revision)

    def _watch(self, request: ApiRequest, registry: Registry, applied: bool) -> WatchStream:
        query, fields = request.query, request.query.get("fieldSelector", "")
        form = negotiate(request.accept, query.get("includeObject", ""))
        if request.info.name:
            fields = ",".join(filter(None, (f"metadata.name={request.info.name}", fields)))
        selection = registry.selection(query.get("labelSelector", ""), fields)
        since, initial = resource_version(query.get("resourceVersion", "")), boolean(query, "sendInitialEvents")
        match = query.get("resourceVersionMatch", "")
        causes = []
        if "sendInitialEvents" in query and match != "NotOlderThan":
            causes.append(
                forbidden(
                    "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                )
            )
        if match and "sendInitialEvents" not in query:
            causes.append(
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if causes:
            raise invalid(_LIST_OPTIONS, "", causes)
        if since > self._store.revision:
            raise too_large_version(since, self._store.revision)
        seconds = number(query, "timeoutSeconds")
        options = WatchOptions(
            -1 if since <= 0 else since,
            initial,
            boolean(query, "allowWatchBookmarks"),
            # Spread, so that the watches of a restart don't end together.
            float(seconds) if seconds else random.uniform(1800, 3600),  # noqa: S311
            applied,
        )
        watcher = Watcher(self._store, registry.prefix(request.info.namespace), selection, options)
        return WatchStream(watcher, form, registry)

    # Writing

    async def _create(self, request: ApiRequest, registry: Registry) -> Answer:
        kind, info = registry.kind, request.info
        if info.name:
            raise method_not_allowed()
        if (kind.group, kind.plural) in self._served.terminating:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        options = write_options(request.query)
        document = shaped(request, registry, parse_document(request, kind, options, shaped_next=True), options)
        return await self._made(request, registry, document, options)

    async def _made(
        self, request: ApiRequest, registry: Registry, document: dict[str, Any], options: WriteOptions
    ) -> Answer:
        """The answer to a creation of `document`."""
        kind, info = registry.kind, request.info
        asking = self._admission.webhooks.asking(request, registry, "CREATE")
        unsaid = registry.strategy.unsaid(document) if request.user_agent is not None else ()
        await self._admission.admit(Attributes(request.user, info, kind, document, asking))
        # What the server's own components make has no managers until somebody applies to it: see docs/decisions/.
        manager = "" if request.user_agent is None else request.manager
        review = self._admission.review(request.user, kind, info)
        written = await registry.create(
            info.namespace,
            document,
            dry_run=options.dry_run,
            manager=manager,
            unsaid=unsaid,
            review=review,
            asking=asking,
        )
        return self._written(request, registry, written, 201)

    async def _update(self, request: ApiRequest, registry: Registry) -> Answer:
        info, options = request.info, write_options(request.query, "UpdateOptions")
        document = shaped(request, registry, parse_document(request, registry.kind, options, shaped_next=True), options)
        try:
            written = await registry.update(
                _namespace(request, registry),
                info.name,
                lambda old: document,
                subresource=info.subresource,
                dry_run=options.dry_run,
                manager=request.manager,
                review=await self._admission.reviewing(request.user, registry.kind, info),
                asking=self._admission.webhooks.asking(request, registry, "UPDATE"),
            )
        except NotFound:
            metadata = document.get("metadata") or {}
            known = metadata.get("uid") or metadata.get("resourceVersion")
            if known or info.subresource or not registry.strategy.made_by_update:
                raise
            return await self._put(request, registry, document, options)
        return self._written(request, registry, written)

    async def _put(
        self, request: ApiRequest, registry: Registry, document: dict[str, Any], options: WriteOptions
    ) -> Answer:
        """An update of what there isn't (and not of what isn't there any more), of a kind whose objects are made so, too."""
        metadata, name = document.setdefault("metadata", {}), request.info.name
        if metadata.setdefault("name", name) != name:
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        request.info = request.info._replace(verb="create")
        await self._authorizer.check(request.user, request.info)
        return await self._made(request, registry, document, options)

    async def _patch(self, request: ApiRequest, registry: Registry) -> Answer:
        if body.media_type(request.content_type) == APPLY_PATCH:
            written, fresh = await self._apply(request, registry, _namespace(request, registry))
            return self._written(request, registry, written, 201 if fresh else 200)
        info, options = request.info, write_options(request.query, "PatchOptions")
        kind, content_type = registry.kind, request.content_type
        patch = parse_patch(request.body, content_type)
        doubts = (
            doubtful(request.body, content_type) if looks_twice(request, options) and patch is not request.body else ()
        )
        merges = body.media_type(content_type) == MERGE_PATCH and type(patch) is dict
        known = merges and registry.open_schema is None and self._schemas.struct(kind) is not None

        def change(old: dict[str, object]) -> dict[str, object]:
            patched = merge_given(old, patch) if known else apply_patch(kind, old, patch, content_type, self._schemas)  # type: ignore[arg-type]
            try:
                if known:
                    return reshaped(request, registry, patched, old, options, doubts)
                return shaped(request, registry, patched, options, doubts)
            except BadRequest as error:
                raise unfit(patch, patched, content_type, error) from error

        written = await registry.update(
            _namespace(request, registry),
            info.name,
            change,
            subresource=info.subresource,
            dry_run=options.dry_run,
            pinned=names_version(patch, content_type),
            manager=request.manager,
            review=await self._admission.reviewing(request.user, kind, info),
            asking=self._admission.webhooks.asking(request, registry, "UPDATE"),
        )
        return self._written(request, registry, written)

    async def _delete(self, request: ApiRequest, registry: Registry) -> Answer:
        kind, info = registry.kind, request.info
        options = delete_options(parse_options(request, self._schemas), request.query)
        await self._admission.admit(Attributes(request.user, info, kind))
        await self._admission.webhooks.deletion(request, registry, info.name)
        written = await registry.delete(_namespace(request, registry), info.name, options)
        if written.removed and not registry.strategy.returns_object:
            uid = registry.cache.document(written.entry)["metadata"].get("uid", "")
            return Reply(success(kind, info.name, uid), written.entry.revision)
        return self._written(request, registry, written)

    async def _delete_collection(self, request: ApiRequest, registry: Registry) -> Answer:
        query, info = request.query, request.info
        options = delete_options(parse_options(request, self._schemas), query)
        selection = registry.selection(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        entries, meta = await list_page(
            registry,
            info.namespace,
            selection,
            list_options({"limit": query.get("limit", "")}, registry.prefix(info.namespace)),
        )
        gone, newest = [], meta.revision
        for entry in entries:
            try:
                await self._admission.webhooks.deletion(request, registry, entry.key.rpartition("/")[2])
                written = await registry.delete(info.namespace, entry.key.rpartition("/")[2], options)
            except NotFound:
                continue
            gone.append(written.entry)
            newest = max(newest, written.entry.revision)
        form = negotiate(request.accept, query.get("includeObject", ""))
        return Reply(render_list(registry.codec, gone, meta._replace(revision=newest), form, registry.columns), newest)

    # The rest

    def _components(self, request: ApiRequest, registry: Registry) -> Reply:
        """What answers is well: the parts of the server's own process. Nothing is stored."""
        info = request.info
        if info.verb not in registry.kind.verbs:
            raise method_not_allowed()
        request.warnings.append("v1 ComponentStatus is deprecated in v1.19+")
        healthy = [{"type": "Healthy", "status": "True", "message": "ok"}]
        found = [
            Entry(
                f"/componentstatuses/{name}",
                encode(
                    {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": healthy}
                ),
                0,
                0,
            )
            for name in ("apiserver", "store")
            if info.name in ("", name)
        ]
        if not info.name:
            form = negotiate(request.accept, request.query.get("includeObject", ""))
            return Reply(render_list(registry.codec, found, ListMeta(self._store.revision), form))
        if not found:
            raise not_found(registry.kind, info.name)
        return self._object(request, registry, found[0], revision=0)

    async def _below(self, request: ApiRequest, registry: Registry) -> Answer:
        """Subresources: those that show the object itself go the way of its verbs."""
        info = request.info
        if info.subresource not in registry.kind.subresources or (info.rest and info.subresource != "proxy"):
            raise no_resource()
        whole = info.subresource == "status" or info.subresource in registry.strategy.parts
        if whole or (info.subresource == "finalize" and info.verb == "update"):
            if info.verb not in ("get", "update", "patch"):
                raise method_not_allowed()
            return await self._verbs[info.verb](request, registry)
        return await self._subresources.handle(request, registry)

    async def _review(self, request: ApiRequest, kind: Kind) -> Reply:
        if request.info.verb != "create" or request.info.name:
            raise method_not_allowed()
        negotiate(request.accept, stored=False)
        document, _ = self._schemas.validate(kind, parse_document(request, kind, write_options({})), strict=False)
        answer = await self._reviews.answer(kind, request.user, document)
        return Reply(_encode(answer), code=201)


def _namespace(request: ApiRequest, registry: Registry) -> str:
    return request.info.namespace if registry.kind.namespaced else ""


def parse_patch(patch: bytes, content_type: str) -> object:
    """The decoded patch; what isn't JSON is left to `apply_patch` to refuse."""
    try:
        return body.parse(patch, body.JSON)[0]
    except ApiError:
        return patch


def names_version(patch: object, content_type: str) -> bool:
    """Whether a patch says which resourceVersion it is for: then a lost race is the client's to know of."""
    if body.media_type(content_type) == JSON_PATCH:
        return isinstance(patch, list) and any(
            isinstance(each, dict) and each.get("path") == "/metadata/resourceVersion" for each in patch
        )
    metadata = patch.get("metadata") if isinstance(patch, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))
