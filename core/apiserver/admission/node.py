"""NodeRestriction: what a node may write into the objects that it may write.

It creates its own Node, Lease and CSINode; steers no Pods to itself by labels or taints; asks for tokens only of Pods that run on it.
After Kubernetes' plugin of that name (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import CSI_NODE, LEASE, NODE, POD, SERVICE_ACCOUNT, Kind
from core.apiserver.authn import MASTERS, User
from core.apiserver.authz.node import node_name
from core.errors import Forbidden
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["RESTRICTED", "NodeRestriction", "check_node_write", "forbidden_labels"]

Document = dict[str, Any]

RESTRICTED = frozenset((NODE.resource, POD.resource))
"""The kinds of which a node's updates are looked at."""
_OWN = (NODE.resource, LEASE.resource, CSI_NODE.resource)
_PRIVATE = "node-restriction.kubernetes.io"
_KUBELET_LABELS = frozenset((
    "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
))  # fmt: skip
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")


class NodeRestriction:
    verbs = ("create",)
    kinds = frozenset((*_OWN, SERVICE_ACCOUNT.resource))

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        kind, info, document = attributes.kind, attributes.info, attributes.document
        token = kind.resource == SERVICE_ACCOUNT.resource and info.subresource == "token"
        if not (token or kind.resource in _OWN) or document is None or MASTERS in attributes.user.groups:
            return
        node = node_name(attributes.user)
        if not node:
            return
        if token:
            await self._token(node, kind, info.namespace, info.name, document)
            return
        name = (document.get("metadata") or {}).get("name") or ""
        if name != node:
            raise _refusal(kind, name, f'node "{node}" is not allowed to create {kind.kind.lower()} "{name}"')
        labels = (document.get("metadata") or {}).get("labels") or {}
        if kind.resource == NODE.resource and (wrong := forbidden_labels(labels, {})):
            raise _refusal(kind, name, f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}')

    async def _token(self, node: str, kind: Kind, namespace: str, account: str, request: Document) -> None:
        reference = (request.get("spec") or {}).get("boundObjectRef") or {}
        name, uid = reference.get("name") or "", reference.get("uid") or ""
        if reference.get("kind") != POD.kind or not name:
            raise _refusal(kind, account, "node requested token not bound to a pod")
        if not uid:
            raise _refusal(kind, account, "node requested token with a pod binding without a uid")
        entry = await self._store.get(f"/{POD.resource}/{namespace}/{name}")
        pod: Document = msgspec.json.decode(entry.value) if entry is not None else {}
        if not pod or pod["metadata"]["uid"] != uid:
            raise _refusal(
                kind, account, f'node requested token bound to the pod "{name}", which is gone or another of that name'
            )
        spec = pod.get("spec") or {}
        if spec.get("nodeName") != node:
            raise _refusal(kind, account, "node requested token bound to a pod scheduled on a different node")
        if spec.get("serviceAccountName") != account:
            raise _refusal(kind, account, "node requested token of a service account that the pod doesn't run as")


def check_node_write(user: User, kind: Kind, subresource: str, new: Document, old: Document | None) -> None:
    """`new` is what an update by a node would store. Raises `Forbidden`."""
    if old is None:
        return
    node, name = node_name(user), new["metadata"]["name"]
    labels = new["metadata"].get("labels") or {}, old["metadata"].get("labels") or {}
    if kind.resource == POD.resource:
        if subresource == "status" and labels[0] != labels[1]:
            raise _refusal(kind, name, f'node "{node}" cannot update labels through pod status')
        return
    if ((new.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
        raise _refusal(kind, name, f'node "{node}" is not allowed to modify taints')
    if (new["metadata"].get("ownerReferences") or []) != (old["metadata"].get("ownerReferences") or []):
        raise _refusal(kind, name, f'node "{node}" is not allowed to modify ownerReferences')
    if wrong := forbidden_labels(*labels):
        raise _refusal(kind, name, f'node "{node}" is not allowed to modify labels: {", ".join(wrong)}')


def forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """The labels of Kubernetes' own namespaces that a node changes and that aren't its to say."""
    changed = [key for key in {*new, *old} if new.get(key) != old.get(key)]
    return sorted(key for key in changed if not _may_say(key))


def _may_say(key: str) -> bool:
    namespace, slash, _ = key.partition("/")
    if not slash:
        return True
    if _within(namespace, (_PRIVATE,)):
        return False
    if not _within(namespace, ("kubernetes.io", "k8s.io")):
        return True
    return key in _KUBELET_LABELS or _within(namespace, _KUBELET_NAMESPACES)


def _within(namespace: str, domains: tuple[str, ...]) -> bool:
    return any(namespace == each or namespace.endswith(f".{each}") for each in domains)


def _refusal(kind: Kind, name: str, why: str) -> Forbidden:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return Forbidden(
        f'{kind.resource} "{name}" is forbidden: {why}', {key: each for key, each in details.items() if each}
    )
