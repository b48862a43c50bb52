"""The client of the API: one method per verb, objects in as documents, out as documents or views."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, TypeVar, overload

import msgspec

from core.api.kinds import Kind
from core.api.meta import Document
from core.client.transport import JSON, MERGE_PATCH, RawEvent, Transport
from core.errors import BadRequest, Expired

__all__ = ["Client", "decoder"]

T = TypeVar("T")
PAGE = 500

_encode = msgspec.json.Encoder().encode


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _RawList(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_decode_list = msgspec.json.Decoder(_RawList).decode


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decoder(as_: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a view, or of documents (`dict`), made once per type."""
    found = _decoders.get(as_)
    if found is None:
        found = _decoders[as_] = msgspec.json.Decoder(as_)
    return found


class Client:
    """Speaks of objects over a transport (`HttpTransport`, or the API server's own `LocalTransport`).

    Every method raises `core.errors.ApiError` for what the server refused, and `ServiceUnavailable` where no answer came.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @overload
    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Document: ...
    @overload
    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "", as_: type[T]) -> T: ...
    async def get(
        self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "", as_: type[Any] = dict
    ) -> Any:
        body = await self.transport.request("GET", _object_path(kind, namespace, name, subresource))
        return decoder(as_).decode(body)

    @overload
    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = PAGE
    ) -> tuple[builtins.list[Document], str]: ...
    @overload
    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = PAGE, as_: type[T]
    ) -> tuple[builtins.list[T], str]: ...
    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = PAGE,
        as_: type[Any] = dict,
    ) -> tuple[builtins.list[Any], str]:
        """All that match, as one consistent state, and its resourceVersion.

        It is fetched in pages of `limit` objects (0: in one piece). Items have no `apiVersion` and `kind` where the
        server leaves them out of lists.
        """
        items, version = await self.list_raw(kind, namespace, labels=labels, fields=fields, limit=limit)
        decode = decoder(as_).decode
        return [decode(item) for item in items], version

    async def list_raw(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = PAGE
    ) -> tuple[Sequence[msgspec.Raw], str]:
        """`list` without decoding the items."""
        path, query = _path(kind, namespace), _selectors(labels, fields)
        if limit:
            query["limit"] = str(limit)
        try:
            page = _decode_list(await self.transport.request("GET", path, query))
            found = page.items or []
            while page.metadata.continue_:
                query["continue"] = page.metadata.continue_
                page = _decode_list(await self.transport.request("GET", path, query))
                found += page.items or []
        except Expired:
            if "continue" not in query:
                raise
            # The state that the pages were pinned to is gone; one piece needs no pin.
            return await self.list_raw(kind, namespace, labels=labels, fields=fields, limit=0)
        return found, page.metadata.resource_version

    @overload
    async def create(
        self, kind: Kind, document: Document, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Document: ...
    @overload
    async def create(
        self,
        kind: Kind,
        document: Document,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        as_: type[T],
    ) -> T: ...
    async def create(
        self,
        kind: Kind,
        document: Document,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        as_: type[Any] = dict,
    ) -> Any:
        """POST. `namespace` defaults to the document's; `name` and `subresource` are for `binding`, `eviction`, `token`."""
        namespace = namespace or (document.get("metadata") or {}).get("namespace") or ""
        path = _path(kind, namespace, name, subresource)
        return decoder(as_).decode(await self.transport.request("POST", path, None, _encode(document)))

    @overload
    async def update(self, kind: Kind, document: Document, *, subresource: str = "") -> Document: ...
    @overload
    async def update(self, kind: Kind, document: Document, *, subresource: str = "", as_: type[T]) -> T: ...
    async def update(self, kind: Kind, document: Document, *, subresource: str = "", as_: type[Any] = dict) -> Any:
        """PUT of the whole document; name and namespace are its own. A `resourceVersion` in it makes it conditional."""
        metadata = document["metadata"]
        path = _object_path(kind, metadata.get("namespace") or "", metadata["name"], subresource)
        return decoder(as_).decode(await self.transport.request("PUT", path, None, _encode(document)))

    @overload
    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Document | Sequence[Document],
        *,
        patch_type: str = MERGE_PATCH,
        subresource: str = "",
    ) -> Document: ...
    @overload
    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Document | Sequence[Document],
        *,
        patch_type: str = MERGE_PATCH,
        subresource: str = "",
        as_: type[T],
    ) -> T: ...
    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Document | Sequence[Document],
        *,
        patch_type: str = MERGE_PATCH,
        subresource: str = "",
        as_: type[Any] = dict,
    ) -> Any:
        """PATCH; `patch_type` is a constant of `core.client.transport` (a JSON patch is a list of operations)."""
        path = _object_path(kind, namespace, name, subresource)
        return decoder(as_).decode(await self.transport.request("PATCH", path, None, _encode(patch), patch_type))

    async def scale(self, kind: Kind, name: str, namespace: str, replicas: int) -> Document:
        """Set `spec.replicas` through the scale subresource, and nothing else."""
        return await self.patch(kind, name, namespace, {"spec": {"replicas": replicas}}, subresource="scale")

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Document:
        """DELETE. `grace` in seconds; `propagation` is `Background`, `Foreground` or `Orphan`.

        `uid` and `resource_version` are preconditions (`Conflict` where they don't hold). The answer is a `Status` or the
        object, as the kind has it.
        """
        options: Document = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation is not None:
            options["propagationPolicy"] = propagation
        conditions = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {field: value for field, value in conditions.items() if value is not None}:
            options["preconditions"] = preconditions
        body = await self.transport.request("DELETE", _object_path(kind, namespace, name), None, _encode(options))
        answer: Document = decoder(dict).decode(body)
        return answer

    def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        version: str,
        labels: str = "",
        fields: str = "",
        seconds: int = 0,
    ) -> AsyncGenerator[builtins.list[RawEvent], None]:
        """Raw events after `version`, bookmarks among them; the server ends it after `seconds` (0: when it likes)."""
        query = _selectors(labels, fields)
        query["resourceVersion"] = version
        query["allowWatchBookmarks"] = "true"
        if seconds:
            query["timeoutSeconds"] = str(seconds)
        return self.transport.watch(_path(kind, namespace), query)

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        """Any request, undecoded."""
        return await self.transport.request(method, path, query, body, content_type)

    async def close(self) -> None:
        await self.transport.close()


def _path(kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
    for segment in (namespace, name):
        # Such a segment would name another resource (k8s.io/apimachinery/pkg/api/validation/path).
        if segment in (".", "..") or "/" in segment or "%" in segment:
            raise BadRequest(f"invalid name {segment!r} for {kind.resource}")
    return kind.path(namespace, name, subresource)


def _object_path(kind: Kind, namespace: str, name: str, subresource: str = "") -> str:
    if not name:
        # Without a name the path is the collection's, and a DELETE would empty it.
        raise BadRequest(f"a name is required for {kind.resource}")
    if kind.namespaced and not namespace:
        raise BadRequest(f"a namespace is required for {kind.resource} {name!r}")
    return _path(kind, namespace, name, subresource)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    found = {}
    if labels:
        found["labelSelector"] = labels
    if fields:
        found["fieldSelector"] = fields
    return found
