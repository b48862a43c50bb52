"""Endpoints and EndpointSlices out of each other, the pure part: the older kind from our slices, slices from Endpoints that somebody else wrote.

After Kubernetes' endpoints controller and its mirroring controller (KEP-0752).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from core.api.kinds import ENDPOINTS
from core.api.meta import Document, controller_reference
from core.api.views import Endpoints, EndpointSlice, Service
from core.controllers.endpoints import LABEL_HEADLESS, LABEL_MANAGED_BY, LABEL_SERVICE

__all__ = ["CAPACITY", "MIRRORING", "endpoints_of", "is_mirrored", "is_ours", "mirror", "subsets"]

MIRRORING = "endpointslicemirroring-controller.k8s.io"
CAPACITY = 1000
"""Addresses that an Endpoints object has at most."""
_MANAGED_BY, _CONTROLLER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
_OVER = "endpoints.kubernetes.io/over-capacity"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


# Endpoints from slices


def subsets(slices: Iterable[EndpointSlice]) -> tuple[list[Document], bool]:
    """The subsets of a Service's slices, and whether addresses had to be left out. Terminating endpoints are in none."""
    grouped: dict[str, tuple[list[Document], list[Document], list[Document]]] = {}
    for each in slices:
        ports = [_plain_port(port) for port in each.ports]
        _, ready, waiting = grouped.setdefault(json.dumps(ports, sort_keys=True), (ports, [], []))
        for endpoint in each.endpoints:
            conditions = endpoint.get("conditions") or {}
            if conditions.get("terminating") and not conditions.get("ready"):
                continue
            (ready if conditions.get("ready", True) else waiting).extend(_addresses(endpoint))
    found: list[Document] = []
    room, truncated = CAPACITY, False
    for _, (ports, ready, waiting) in sorted(grouped.items()):
        subset: Document = {}
        for name, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
            addresses.sort(key=lambda each: (str(each["ip"]), str((each.get("targetRef") or {}).get("uid"))))
            truncated = truncated or len(addresses) > room
            if addresses[:room]:
                subset[name] = addresses[:room]
            room -= len(addresses[:room])
        if subset:
            found.append({**subset, "ports": ports} if ports else subset)
    return found, truncated


def _plain_port(port: dict[str, Any]) -> Document:
    """Without a name that is empty, as Endpoints have it."""
    return {key: value for key, value in port.items() if value not in (None, "")}


def _addresses(endpoint: dict[str, Any]) -> list[Document]:
    more = {key: endpoint[key] for key in ("hostname", "nodeName", "targetRef") if endpoint.get(key)}
    return [{"ip": address, **more} for address in endpoint.get("addresses") or ()]


def endpoints_of(service: Service, slices: Iterable[EndpointSlice], old: Endpoints | None) -> Document | None:
    """The Endpoints that a Service with a selector should have; None where it is so already."""
    found, truncated = subsets(slices)
    labels = {**service.metadata.labels, _MANAGED_BY: _CONTROLLER}
    if service.spec.cluster_ip == "None":
        labels[LABEL_HEADLESS] = ""
    annotations = {} if old is None else {key: text for key, text in old.metadata.annotations.items() if key != _OVER}
    if truncated:
        annotations[_OVER] = "truncated"
    if old is not None and (old.subsets, old.metadata.labels, old.metadata.annotations) == (found, labels, annotations):
        return None
    metadata: Document = {"name": service.name, "namespace": service.namespace, "labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    if old is not None:
        metadata |= {"uid": old.metadata.uid, "resourceVersion": old.metadata.resource_version}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": found}


def is_ours(endpoints: Endpoints) -> bool:
    """Whether they were made from a Service, and so go with it."""
    return endpoints.metadata.labels.get(_MANAGED_BY) == _CONTROLLER


# Slices from Endpoints


def is_mirrored(endpoints: Endpoints, service: Service | None) -> bool:
    """Endpoints of a Service without a selector, unless they say that they are none of ours or hold a leader."""
    if service is None or service.spec.selector or service.metadata.deletion_timestamp is not None:
        return False
    metadata = endpoints.metadata
    skipped = metadata.labels.get(_SKIP) == "true" or _LEADER in metadata.annotations
    return not skipped and metadata.deletion_timestamp is None


def mirror(endpoints: Endpoints, existing: Sequence[EndpointSlice]) -> tuple[list[Document], list[EndpointSlice]]:
    """(slices to create, slices to delete). A subset makes one slice for each family of addresses; slices that are right stay."""
    wanted = [each for subset in endpoints.subsets for each in _mirrored(endpoints, subset)]
    create, keep = [], set()
    for each in wanted:
        same = next((old for old in existing if old.metadata.uid not in keep and _same(old, each)), None)
        if same is None:
            create.append(each)
        else:
            keep.add(same.metadata.uid)
    return create, [old for old in existing if old.metadata.uid not in keep]


def _mirrored(endpoints: Endpoints, subset: dict[str, Any]) -> list[Document]:
    families: dict[str, list[Document]] = {}
    for name, ready in (("addresses", True), ("notReadyAddresses", False)):
        for address in subset.get(name) or ():
            more = {key: address[key] for key in ("hostname", "nodeName", "targetRef") if address.get(key)}
            family = "IPv6" if ":" in address["ip"] else "IPv4"
            families.setdefault(family, []).append(
                {"addresses": [address["ip"]], "conditions": {"ready": ready}, **more}
            )
    metadata = endpoints.metadata
    annotations = {key: text for key, text in metadata.annotations.items() if key not in (_TRIGGER, _APPLIED)}
    ports = [{"name": "", **port} for port in subset.get("ports") or ()]
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{endpoints.name}-",
                "namespace": endpoints.namespace,
                "labels": {**metadata.labels, LABEL_SERVICE: endpoints.name, LABEL_MANAGED_BY: MIRRORING},
                "ownerReferences": [controller_reference(ENDPOINTS, endpoints.name, metadata.uid)],
                **({"annotations": annotations} if annotations else {}),
            },
            "addressType": family,
            "ports": ports,
            "endpoints": found[:CAPACITY],
        }
        for family, found in families.items()
    ]


def _same(old: EndpointSlice, new: Document) -> bool:
    metadata = new["metadata"]
    ports = [{"name": "", **each} for each in old.ports]
    was = (old.address_type, old.endpoints, ports, old.metadata.labels, old.metadata.annotations)
    is_now = (new["addressType"], new["endpoints"], new["ports"], metadata["labels"], metadata.get("annotations", {}))
    return was == is_now
