"""The objects that every cluster has from its first moment: Namespaces, the system's priority classes, the Service `kubernetes`."""

from __future__ import annotations

import ipaddress

from core.api.kinds import ENDPOINT_SLICE, ENDPOINTS, NAMESPACE, PRIORITY_CLASS, SERVICE, Kind
from core.apiserver.admission.lifecycle import DEFAULT_NAMESPACES
from core.apiserver.cache import Document
from core.apiserver.registry.policy import SYSTEM_CLASSES
from core.apiserver.served import Served
from core.errors import AlreadyExists, Invalid

__all__ = ["create_firsts"]

_LABELS = {"component": "apiserver", "provider": "kubernetes"}


async def create_firsts(served: Served, service_cidr: str, advertise: tuple[str, int] | None) -> None:
    """`advertise` is the address and port at which Pods would reach the API server; without one it has no endpoints."""
    for name in DEFAULT_NAMESPACES:
        await _ensure(served, NAMESPACE, {"metadata": {"name": name}})
    for name, (value, description) in SYSTEM_CLASSES.items():
        await _ensure(served, PRIORITY_CLASS, {"metadata": {"name": name}, "value": value, "description": description})
    first = str(ipaddress.IPv4Network(service_cidr).network_address + 1)
    port = advertise[1] if advertise is not None else 6443
    spec = {"clusterIP": first, "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}
    await _ensure(served, SERVICE, {"metadata": {"name": "kubernetes", "labels": _LABELS}, "spec": spec}, update=True)
    if advertise is not None:
        await _publish(served, advertise)


async def _publish(served: Served, advertise: tuple[str, int]) -> None:
    address, port = advertise
    shown = {"name": "https", "port": port, "protocol": "TCP"}
    mirrored = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    subsets = [{"addresses": [{"ip": address}], "ports": [shown]}]
    await _ensure(
        served, ENDPOINTS, {"metadata": {"name": "kubernetes", "labels": mirrored}, "subsets": subsets}, update=True
    )
    endpoints = [{"addresses": [address], "conditions": {"ready": True}}]
    labels = {"kubernetes.io/service-name": "kubernetes"}
    document = {
        "metadata": {"name": "kubernetes", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [shown],
    }
    await _ensure(served, ENDPOINT_SLICE, document, update=True)


async def _ensure(served: Served, kind: Kind, document: Document, *, update: bool = False) -> None:
    """Create what isn't there; with `update`, give what is there these fields."""
    registry = served.find(kind.group, kind.version, kind.plural)
    if registry is None:
        return
    namespace = "default" if kind.namespaced else ""
    name = document["metadata"]["name"]
    wanted = {key: value for key, value in document.items() if key != "metadata"}

    def change(old: Document) -> Document:
        spec = {**(old.get("spec") or {}), **(wanted.get("spec") or {})}
        return {**old, **wanted, **({"spec": spec} if "spec" in wanted else {})}

    try:
        await registry.create(namespace, {"apiVersion": kind.api_version, "kind": kind.kind, **document})
    except AlreadyExists:
        if update:
            await registry.update(namespace, name, change, pinned=False)
    except Invalid:
        # Another Service has had the address since before this one was thought of: it keeps it.
        if kind != SERVICE:
            raise
