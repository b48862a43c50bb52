"""What a node may write: its own Node, its Lease, and the Pods that are bound to it.

After Kubernetes' node authorizer and NodeRestriction (https://kubernetes.io/docs/reference/access-authn-authz/node/).
"""

from __future__ import annotations

import msgspec

from core.apiserver.authn import User
from core.apiserver.authz.rules import NODES
from core.apiserver.dispatch import RequestInfo
from core.store.base import Store

__all__ = ["NODE_LEASES", "may_write", "node_name"]

NODE_LEASES = "kube-node-lease"
_PREFIX = "system:node:"
_WRITES = ("create", "update", "patch")


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    spec: _Spec


_decoder = msgspec.json.Decoder(_Pod)


def node_name(user: User) -> str:
    """The node that the user is; "" for others."""
    return user.name.removeprefix(_PREFIX) if user.name.startswith(_PREFIX) and NODES in user.groups else ""


async def may_write(store: Store, user: User, info: RequestInfo) -> bool:
    """A creation names its object in the body: admission checks that one."""
    name = node_name(user)
    if not name:
        return False
    creation = info.verb == "create" and not info.subresource
    match info.group, info.full_resource:
        case ("", "nodes" | "nodes/status"):
            return info.verb in _WRITES and (creation or info.name == name)
        case ("coordination.k8s.io", "leases"):
            own = info.namespace == NODE_LEASES and (creation or info.name == name)
            return own and info.verb in (*_WRITES, "delete")
        case ("", "pods" | "pods/status"):
            allowed = info.verb == "delete" if not info.subresource else info.verb in ("get", "update", "patch")
            return allowed and await _bound(store, info, name)
    return False


async def _bound(store: Store, info: RequestInfo, node: str) -> bool:
    """A Pod that is gone counts as bound, so that its node hears "not found" and not "forbidden"."""
    entry = await store.get(f"/pods/{info.namespace}/{info.name}")
    return entry is None or _decoder.decode(entry.value).spec.node_name == node
