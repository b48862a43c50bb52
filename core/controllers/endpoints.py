"""EndpointSlices, the pure part: what slices a Service should have, and the fewest writes that get there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.api.kinds import SERVICE
from core.api.meta import Document, controller_reference
from core.api.views import EndpointSlice, Pod, Service, ServicePort

__all__ = ["LABEL_MANAGED_BY", "LABEL_SERVICE", "MANAGER", "MAX_ENDPOINTS", "SlicePlan", "endpoint", "plan", "ports_of"]

LABEL_SERVICE = "kubernetes.io/service-name"
LABEL_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
LABEL_HEADLESS = "service.kubernetes.io/headless"
MANAGER = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS = 100


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """`update` are whole documents with the resourceVersion that they were made from."""

    create: list[Document] = field(default_factory=list)
    update: list[Document] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.create or self.update or self.delete)


def endpoint(service: Service, pod: Pod) -> Document:
    """The entry of one Pod. A terminating Pod is not ready, but serves while its readiness lasts."""
    terminating = pod.metadata.deletion_timestamp is not None
    serving = pod.ready or service.spec.publish_not_ready_addresses
    found: Document = {
        "addresses": [pod.status.pod_ip],
        "conditions": {
            "ready": service.spec.publish_not_ready_addresses or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.metadata.uid},
    }
    if pod.spec.node_name:
        found["nodeName"] = pod.spec.node_name
    if pod.spec.hostname and pod.spec.subdomain == service.name:
        found["hostname"] = pod.spec.hostname
    return found


def _number(port: ServicePort, pod: Pod) -> int | None:
    """The container port that a Service's port leads to on this Pod; None where it has no port of that name."""
    target = port.target_port
    if target in (None, 0, ""):
        return port.port
    if isinstance(target, int):
        return target
    for container in pod.spec.containers:
        for each in container.ports:
            if each.name == target and each.protocol == port.protocol:
                return each.container_port
    return None


def ports_of(service: Service, pod: Pod) -> list[Document]:
    """The ports of the Service as numbers on this Pod, in the Service's order."""
    found = []
    for port in service.spec.ports:
        number = _number(port, pod)
        if number is not None:
            document: Document = {"name": port.name, "port": number, "protocol": port.protocol}
            if port.app_protocol:
                document["appProtocol"] = port.app_protocol
            found.append(document)
    return found


def _belongs(service: Service, pod: Pod) -> bool:
    if not pod.status.pod_ip or pod.terminal:
        return False
    labels = pod.metadata.labels
    return all(labels.get(key) == value for key, value in service.spec.selector.items())


def plan(service: Service, pods: Iterable[Pod], existing: Sequence[EndpointSlice]) -> SlicePlan:
    """Slices of one Service that has a selector; `pods` are those of its namespace, `existing` the slices that we manage.

    Endpoints stay in the slice they are in; new ones fill what room there is. Slices differ in address type and in ports.
    """
    wanted: dict[tuple[str, _Ports], dict[str, Document]] = {}
    ports: dict[tuple[str, _Ports], list[Document]] = {}
    for pod in pods:
        if _belongs(service, pod):
            of_pod = ports_of(service, pod)
            group = ("IPv6" if ":" in pod.status.pod_ip else "IPv4", _key(of_pod))
            wanted.setdefault(group, {})[pod.metadata.uid] = endpoint(service, pod)
            ports[group] = of_pod
    result = SlicePlan()
    kept: dict[tuple[str, _Ports], list[tuple[EndpointSlice, list[Document]]]] = {}
    for old in existing:
        group = (old.address_type, _key(old.ports))
        left = wanted.get(group)
        stay = [] if left is None else [left.pop(uid) for uid in _uids(old) if uid in left]
        if left is None:
            result.delete.append(old)
        else:
            kept.setdefault(group, []).append((old, stay))
    labels = _labels(service)
    for group, left in wanted.items():
        rest = list(left.values())
        for old, stay in kept.get(group, ()):
            room = MAX_ENDPOINTS - len(stay)
            stay += rest[:room]
            del rest[:room]
            if not stay:
                result.delete.append(old)
            elif stay != old.endpoints or old.metadata.labels != labels:
                result.update.append(_document(service, group[0], ports[group], stay, labels, old))
        for at in range(0, len(rest), MAX_ENDPOINTS):
            part = rest[at : at + MAX_ENDPOINTS]
            result.create.append(_document(service, group[0], ports[group], part, labels))
    return result


def _uids(found: EndpointSlice) -> list[str]:
    return [(each.get("targetRef") or {}).get("uid", "") for each in found.endpoints]


_Ports = tuple[tuple[Any, ...], ...]


def _key(ports: Sequence[dict[str, Any]]) -> _Ports:
    plain = [
        (each.get("name") or "", each.get("port"), each.get("protocol"), each.get("appProtocol")) for each in ports
    ]
    return tuple(plain) if len(plain) < 2 else tuple(sorted(plain, key=str))


def _labels(service: Service) -> dict[str, str]:
    labels = {**service.metadata.labels, LABEL_SERVICE: service.name, LABEL_MANAGED_BY: MANAGER}
    if service.spec.cluster_ip == "None":
        labels[LABEL_HEADLESS] = ""
    return labels


def _document(
    service: Service,
    address_type: str,
    ports: list[Document],
    endpoints: list[Document],
    labels: dict[str, str],
    old: EndpointSlice | None = None,
) -> Document:
    metadata: Document = {
        "namespace": service.namespace,
        "labels": labels,
        "ownerReferences": [controller_reference(SERVICE, service.name, service.metadata.uid)],
    }
    if old is None:
        metadata["generateName"] = f"{service.name}-"
    else:
        metadata |= {
            "name": old.name,
            "uid": old.metadata.uid,
            "resourceVersion": old.metadata.resource_version,
        }
        if old.metadata.generate_name:
            metadata["generateName"] = old.metadata.generate_name
        if old.metadata.annotations:
            metadata["annotations"] = old.metadata.annotations
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": address_type,
        "ports": ports,
        "endpoints": endpoints,
    }
