"""A node's own documents: the Node and its Lease. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.api import release
from core.api.meta import Document, set_condition
from core.clock import micro_time, timestamp
from core.node.machine import Pressure, machine
from core.node.runtime.base import RuntimeInfo

__all__ = [
    "ISOLATION",
    "ISOLATION_PREFIX",
    "LEASE_NAMESPACE",
    "LEASE_SECONDS",
    "NodeSpec",
    "lease_document",
    "node_document",
    "node_status",
]

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
ISOLATION = "faaslite.dev/isolation"
"""Annotation of the Node: what it holds for each Pod, separated by spaces."""
ISOLATION_PREFIX = "isolation.faaslite.dev/"
"""Labels of the Node, one for each of them with the value `true`, so that Pods can select nodes by it."""
KUBELET_VERSION = release.GIT_VERSION


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is told of itself. `capacity` has `cpu`, `memory`, `pods`; what is reserved is taken off `allocatable`."""

    name: str
    address: str
    pod_cidr: str = ""
    port: int = 0
    capacity: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, Any]] = ()
    provider_id: str = ""


def node_labels(spec: NodeSpec, info: RuntimeInfo | None) -> dict[str, str]:
    architecture = machine().architecture
    found = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
    }
    found |= {f"{ISOLATION_PREFIX}{each}": "true" for each in (info.isolation if info else ())}
    return found | dict(spec.labels)


def node_document(spec: NodeSpec, info: RuntimeInfo | None) -> Document:
    """The Node as it is created; its status follows with `node_status`."""
    body: Document = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": spec.name,
            "labels": node_labels(spec, info),
            "annotations": {ISOLATION: " ".join(info.isolation if info else ())},
        },
        "spec": {"taints": [dict(each) for each in spec.taints]} if spec.taints else {},
    }
    if spec.pod_cidr:
        body["spec"] |= {"podCIDR": spec.pod_cidr, "podCIDRs": [spec.pod_cidr]}
    if spec.provider_id:
        body["spec"]["providerID"] = spec.provider_id
    return body


def node_status(
    spec: NodeSpec,
    info: RuntimeInfo | None,
    allocatable: Mapping[str, str],
    images: Sequence[tuple[str, int]],
    conditions: list[Document],
    pressures: Sequence[Pressure],
    trouble: str,
    now: float,
) -> Document:
    """`v1.NodeStatus`. `trouble` says why the node isn't ready, "" where it is; `conditions` are the last ones."""
    beat = {"lastHeartbeatTime": timestamp(now)}
    found = conditions
    for each in pressures:
        found = set_condition(found, each.type, each.status, each.reason, each.message, now, **beat)
    isolation = " ".join(info.isolation) if info else ""
    found = set_condition(
        found, "PodIsolation", "True" if isolation else "False", "Isolated" if isolation else "NotIsolated",
        isolation or "the runtime names nothing that separates Pods", now, **beat,
    )  # fmt: skip
    if trouble:
        found = set_condition(found, "Ready", "False", "KubeletNotReady", trouble, now, **beat)
    else:
        found = set_condition(found, "Ready", "True", "KubeletReady", "kubelet is posting ready status", now, **beat)
    host = machine()
    return {
        "capacity": dict(spec.capacity),
        "allocatable": dict(allocatable),
        "addresses": [{"type": "InternalIP", "address": spec.address}, {"type": "Hostname", "address": spec.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.port}},
        "nodeInfo": {
            "machineID": host.machine_id,
            "systemUUID": host.system_uuid,
            "bootID": host.boot_id,
            "kernelVersion": host.kernel,
            "osImage": host.os_image,
            "containerRuntimeVersion": f"{info.name}://{info.version}" if info else "",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": KUBELET_VERSION,
            "operatingSystem": "linux",
            "architecture": host.architecture,
        },
        "images": [{"names": [name], "sizeBytes": size} for name, size in images[:50]],
        "conditions": found,
    }


def lease_document(name: str, uid: str, now: float) -> Document:
    """The Lease that says that the node lives; the Node owns it."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micro_time(now)},
    }
