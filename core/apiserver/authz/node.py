"""What a node may do: read what its Pods take, write its own Node, its Lease, and the Pods that are bound to it.

After Kubernetes' node authorizer (https://kubernetes.io/docs/reference/access-authn-authz/node/). What it may write into those
objects is for `core.apiserver.admission.node`.
"""

from __future__ import annotations

import msgspec

from core.api.kinds import PERSISTENT_VOLUME, POD, VOLUME_ATTACHMENT
from core.apiserver.authn import User
from core.apiserver.authz.graph import Graph, pod_references, read_pod, read_volume
from core.apiserver.authz.mirror import Mirror
from core.apiserver.dispatch import RequestInfo, selected
from core.store.base import Store

__all__ = ["NODES", "NODE_LEASES", "NodeAuthorizer", "node_name"]

NODES = "system:nodes"
NODE_LEASES = "kube-node-lease"
_PREFIX = "system:node:"
_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch")
_COORDINATION, _STORAGE, _CERTIFICATES = "coordination.k8s.io", "storage.k8s.io", "certificates.k8s.io"

# (group, resource) -> verbs that every node has, whatever runs on it.
_EVERY_NODE = {
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("apps", "replicasets"): _READ,
    (_STORAGE, "csidrivers"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
    ("", "events"): _WRITE,
    ("events.k8s.io", "events"): _WRITE,
    ("authentication.k8s.io", "tokenreviews"): ("create",),
    ("authorization.k8s.io", "subjectaccessreviews"): ("create",),
    ("authorization.k8s.io", "localsubjectaccessreviews"): ("create",),
    (_CERTIFICATES, "certificatesigningrequests"): ("create", *_READ),
    (_CERTIFICATES, "certificatesigningrequests/selfnodeclient"): ("create",),
    (_CERTIFICATES, "certificatesigningrequests/selfnodeserver"): ("create",),
}
# (group, resource) -> verbs that it has on objects that its Pods take.
_TAKEN = {
    ("", "secrets"): _READ,
    ("", "configmaps"): _READ,
    ("", "persistentvolumeclaims"): ("get",),
    ("", "persistentvolumes"): ("get",),
    ("", "serviceaccounts"): ("get",),
    ("", "serviceaccounts/token"): ("create",),
    (_STORAGE, "volumeattachments"): ("get",),
}
_UNRELATED = "no relationship found between node '{}' and this object"


class _Attachment(msgspec.Struct):
    class Spec(msgspec.Struct, rename="camel"):
        node_name: str = ""

    spec: Spec


_attachment = msgspec.json.Decoder(_Attachment)


def node_name(user: User) -> str:
    """The node that the user is; "" for others."""
    return user.name.removeprefix(_PREFIX) if user.name.startswith(_PREFIX) and NODES in user.groups else ""


class NodeAuthorizer:
    """Its index follows the store, and is as new as the store whenever it is asked."""

    def __init__(self, store: Store) -> None:
        graph = self._graph = Graph()
        self._store = store

        def put_pod(key: str, value: bytes) -> None:
            pod = read_pod(value)  # it has passed the schema, so it has this form
            graph.put_pod(key, pod.spec.node_name, pod_references(pod) if pod.spec.node_name else frozenset())

        def put_volume(key: str, value: bytes) -> None:
            graph.put_volume(_last(key), read_volume(value))

        def put_attachment(key: str, value: bytes) -> None:
            graph.put_attachment(_last(key), _attachment.decode(value).spec.node_name)

        self._mirrors = (
            Mirror(store, f"/{POD.resource}/", put_pod, graph.drop_pod),
            Mirror(
                store, f"/{PERSISTENT_VOLUME.resource}/", put_volume, lambda key: graph.drop_volume(_last(key))
            ),
            Mirror(
                store, f"/{VOLUME_ATTACHMENT.resource}/", put_attachment, lambda key: graph.drop_attachment(_last(key))
            ),
        )  # fmt: skip

    async def start(self) -> None:
        for each in self._mirrors:
            await each.start()

    async def stop(self) -> None:
        for each in self._mirrors:
            await each.stop()

    async def allowed(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        """Whether, and why not where there is more to say than that. A creation names its object in the body: admission checks that."""
        at = (info.group, info.full_resource)
        if (verbs := _EVERY_NODE.get(at)) is not None:
            return info.verb in verbs, ""
        if (verbs := _TAKEN.get(at)) is not None:
            if info.verb not in verbs:
                return False, f"can only {', '.join(verbs)} resources of this type"
            if not info.name:
                return False, "No Object name found"
            return self._reaches(node, info), _UNRELATED.format(node)
        creation = info.verb == "create" and not info.subresource
        match at:
            case ("", "nodes"):
                own = creation or info.name == node
                return own and info.verb in (*_READ, *_WRITE), f"node '{node}' cannot read or write other nodes"
            case ("", "nodes/status"):
                return info.verb in ("update", "patch") and info.name == node, f"node '{node}' cannot write other nodes"
            case (_c, "leases") if _c == _COORDINATION:
                return self._own(
                    node, info, info.namespace == NODE_LEASES
                ), f"can only access the Lease of node '{node}'"
            case (_c, "csinodes") if _c == _STORAGE:
                return self._own(node, info, True), f"can only access the CSINode of node '{node}'"
            case ("", "pods" | "pods/status" | "pods/eviction"):
                return await self._pod(node, info)
        return False, ""

    @staticmethod
    def _own(node: str, info: RequestInfo, here: bool) -> bool:
        """An object that has the node's name."""
        creation = info.verb == "create" and not info.subresource
        return (
            here
            and (creation or info.name == node)
            and info.verb in (*_WRITE, "get", "delete")
            and not info.subresource
        )

    async def _pod(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb in ("list", "watch") and not info.subresource:
            return selected(info.fields, "spec.nodeName") == node, (
                f"can only list/watch pods with spec.nodeName field selector of node '{node}'"
            )
        verbs = {
            "pods": ("get", "delete"),
            "pods/status": ("get", "update", "patch"),
            "pods/eviction": ("create",),
        }[info.full_resource]
        if info.verb not in verbs or not info.name:
            return False, ""
        return await self._bound(node, info), _UNRELATED.format(node)

    def _reaches(self, node: str, info: RequestInfo) -> bool:
        for each in self._mirrors:
            each.catch_up()
        return self._graph.reaches(node, info.resource, info.namespace, info.name)

    async def _bound(self, node: str, info: RequestInfo) -> bool:
        """A Pod that is gone counts as bound, so that its node hears "not found" and not "forbidden"."""
        entry = await self._store.get(f"/{POD.resource}/{info.namespace}/{info.name}")
        return entry is None or read_pod(entry.value).spec.node_name == node


def _last(key: str) -> str:
    return key.rpartition("/")[2]
