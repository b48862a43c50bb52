"""Owning by selector: which objects belong to a controlling object, which it takes in and which it lets go.

After k8s.io/kubernetes/pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from core.api.kinds import Kind
from core.api.meta import Document, controller_reference
from core.api.selectors import Selector, from_label_selector
from core.api.views import ObjectView
from core.client.rest import Client
from core.errors import NotFound

__all__ = ["Adoption", "by_controller", "by_namespace", "parse_selector"]

V = TypeVar("V", bound=ObjectView)


def by_controller(child: ObjectView) -> list[str]:
    """Index term: the controller's uid, or `namespace/` for orphans."""
    controller = child.metadata.controller
    return [controller.uid] if controller is not None else [f"{child.namespace}/"]


def by_namespace(found: ObjectView) -> list[str]:
    """Index term: the namespace."""
    return [found.namespace]


def parse_selector(selector: Document | None) -> Selector | None:
    """None (nothing matches) where there is no selector, an empty one, or one that can't be read."""
    try:
        return from_label_selector(selector) or None
    except (ValueError, KeyError, TypeError):
        return None


class Adoption(Generic[V]):
    """Children of `child` that objects of `owner` control."""

    def __init__(self, client: Client, owner: Kind, child: Kind) -> None:
        self._client = client
        self._owner = owner
        self._child = child

    async def claim(self, owner: ObjectView, selector: Selector | None, children: Iterable[V]) -> list[V]:
        """The children that are `owner`'s. Orphans that match are adopted, own ones that don't any more are released."""
        going = owner.metadata.deletion_timestamp is not None
        mine: list[V] = []
        wanted: list[V] = []
        for each in children:
            controller = each.metadata.controller
            matches = selector is not None and selector.matches(each.metadata.labels)
            if controller is not None:
                if controller.uid != owner.metadata.uid:
                    continue
                if matches or going:
                    mine.append(each)
                elif each.metadata.deletion_timestamp is None:
                    await self._write(each, [one for one in _references(each) if one["uid"] != owner.metadata.uid])
            elif matches and not going and each.metadata.deletion_timestamp is None:
                wanted.append(each)
        if not wanted or not await self._alive(owner):
            return mine
        reference = controller_reference(self._owner, owner.name, owner.metadata.uid)
        return mine + [each for each in wanted if await self._write(each, [*_references(each), reference])]

    async def _alive(self, owner: ObjectView) -> bool:
        """Whether the API confirms that the owner is there and not on its way out."""
        try:
            current = await self._client.get(self._owner, owner.name, owner.namespace, as_=ObjectView)
        except NotFound:
            return False
        return current.metadata.uid == owner.metadata.uid and current.metadata.deletion_timestamp is None

    async def _write(self, child: V, owners: list[Document]) -> bool:
        meta = child.metadata
        patch = {
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners or None}
        }
        try:
            await self._client.patch(self._child, child.name, child.namespace, patch)
        except NotFound:
            return False
        return True


def _references(child: ObjectView) -> list[Document]:
    found = []
    for each in child.metadata.owner_references:
        document: Document = {"apiVersion": each.api_version, "kind": each.kind, "name": each.name, "uid": each.uid}
        if each.controller is not None:
            document["controller"] = each.controller
        if each.block_owner_deletion is not None:
            document["blockOwnerDeletion"] = each.block_owner_deletion
        found.append(document)
    return found
