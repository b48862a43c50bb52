"""NodeRestriction: a node creates its own Node and its own Lease, no other's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.api.kinds import LEASE, NODE
from core.apiserver.authn import MASTERS
from core.apiserver.authz.node import node_name
from core.errors import Forbidden

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["NodeRestriction"]


class NodeRestriction:
    verbs = ("create",)

    async def admit(self, attributes: Attributes) -> None:
        if (
            attributes.kind.resource not in (NODE.resource, LEASE.resource)
            or attributes.document is None
            or MASTERS in attributes.user.groups
        ):
            return
        own = node_name(attributes.user)
        name = (attributes.document.get("metadata") or {}).get("name") or ""
        if own and name != own:
            kind = attributes.kind
            raise Forbidden(
                f'{kind.resource} "{name}" is forbidden: node "{own}" is not allowed to create {kind.kind.lower()} "{name}"',
                {"name": name, "group": kind.group, "kind": kind.plural},
            )
