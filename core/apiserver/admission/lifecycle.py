"""NamespaceLifecycle: nothing is created in a Namespace that is missing or going, and some Namespaces never go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from core.api.kinds import EVENT, NAMESPACE
from core.apiserver.status import not_found
from core.errors import Forbidden, cause
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["DEFAULT_NAMESPACES", "NamespaceLifecycle"]

DEFAULT_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "faaslite-system")
_IMMORTAL = ("default", "kube-system", "kube-public")


class _Metadata(msgspec.Struct, rename="camel"):
    deletion_timestamp: str | None = None


class _Namespace(msgspec.Struct):
    metadata: _Metadata


_decoder = msgspec.json.Decoder(_Namespace)


class NamespaceLifecycle:
    verbs = ("create", "delete")
    kinds: frozenset[str] | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._going: dict[tuple[str, int], bool] = {}

    async def admit(self, attributes: Attributes) -> None:
        info, kind = attributes.info, attributes.kind
        if info.verb == "delete":
            if kind.resource == NAMESPACE.resource and info.name in _IMMORTAL:
                raise Forbidden(
                    f'namespaces "{info.name}" is forbidden: this namespace may not be deleted',
                    {"name": info.name, "kind": kind.plural},
                )
            return
        if not kind.namespaced or not info.namespace:
            return
        entry = await self._store.get(f"/namespaces/{info.namespace}")
        if entry is None:
            raise not_found(NAMESPACE, info.namespace)
        at = (info.namespace, entry.revision)
        going = self._going.get(at)
        if going is None:
            if len(self._going) >= 1024:
                self._going.clear()
            going = self._going[at] = _decoder.decode(entry.value).metadata.deletion_timestamp is not None
        # What is left to say about the objects that go may still be said.
        if going and not info.subresource and kind.resource != EVENT.resource:
            name = ((attributes.document or {}).get("metadata") or {}).get("name") or ""
            why = "because it is being terminated"
            raise Forbidden(
                f'{kind.resource} "{name}" is forbidden: unable to create new content in namespace {info.namespace} {why}',
                {
                    "name": name,
                    "group": kind.group,
                    "kind": kind.plural,
                    "causes": [
                        cause(
                            "NamespaceTerminating",
                            f"namespace {info.namespace} is being terminated",
                            "metadata.namespace",
                        )
                    ],
                },
            )
