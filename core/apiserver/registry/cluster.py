"""Rules of the small kinds: Nodes, ServiceAccounts, Leases, Events, EndpointSlices, Endpoints."""

from __future__ import annotations

import ipaddress

from core.api.quantity import canonical
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import immutable, invalid_value, not_supported, required

__all__ = [
    "EndpointSliceStrategy",
    "EndpointsStrategy",
    "EventStrategy",
    "LeaseStrategy",
    "NodeStrategy",
    "ServiceAccountStrategy",
]


_NODE_FIELDS = {
    "spec.unschedulable": lambda document: str(bool((document.get("spec") or {}).get("unschedulable"))).lower()
}


class NodeStrategy(Strategy):
    fields = _NODE_FIELDS

    def prepare_create(self, document: Document, now: float) -> None:
        """A node brings its status with it when it registers."""

    def complete(self, document: Document) -> None:
        document.setdefault("spec", {})
        self._amounts(document)

    def prepare_status(self, new: Document, old: Document) -> Document:
        found = super().prepare_status(new, old)
        self._amounts(found)
        return found

    def _amounts(self, document: Document) -> None:
        status = document.setdefault("status", {})
        if not status.get("allocatable") and status.get("capacity"):
            status["allocatable"] = status["capacity"]
        for part in ("capacity", "allocatable"):
            if amounts := status.get(part):
                status[part] = {key: _canonical(value) for key, value in amounts.items()}

    def validate(self, document: Document) -> list[Cause]:
        found = []
        for index, taint in enumerate(document["spec"].get("taints") or ()):
            at = f"spec.taints[{index}]"
            if not taint.get("key"):
                found.append(required(f"{at}.key"))
            if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
                known = ("NoSchedule", "PreferNoSchedule", "NoExecute")
                found.append(not_supported(f"{at}.effect", taint.get("effect") or "", known))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        found = []
        for key in ("podCIDR", "providerID"):
            was = old["spec"].get(key)
            if was and new["spec"].get(key) != was:
                found.append(immutable(f"spec.{key}", new["spec"].get(key)))
        return found


def _canonical(value: str | int | float) -> str:
    try:
        return canonical(value)
    except ValueError:
        return str(value)


class ServiceAccountStrategy(Strategy):
    returns_object = True


class LeaseStrategy(Strategy):
    made_by_update = True
    soft = True
    told_early = False
    unconditional_update = False

    def validate(self, document: Document) -> list[Cause]:
        spec = document.get("spec") or {}
        found = []
        if (seconds := spec.get("leaseDurationSeconds")) is not None and seconds <= 0:
            found.append(invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
        if (count := spec.get("leaseTransitions")) is not None and count < 0:
            found.append(invalid_value("spec.leaseTransitions", count, "must be greater than or equal to 0"))
        return found


_EVENT_FIELDS = {
    **{
        f"involvedObject.{key}": text("involvedObject", key)
        for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    "reason": text("reason"),
    "type": text("type"),
    "reportingComponent": text("reportingComponent"),
    "source": text("source", "component"),
}


class EventStrategy(Strategy):
    made_by_update = True
    soft = True
    fields = _EVENT_FIELDS

    def validate(self, document: Document) -> list[Cause]:
        about = document.get("involvedObject") or {}
        if not about:
            return [required("involvedObject")]
        namespace, own = about.get("namespace") or "default", document["metadata"].get("namespace")
        if namespace != own:
            return [
                invalid_value(
                    "involvedObject.namespace", about.get("namespace") or "", "does not match event.namespace"
                )
            ]
        return []


class EndpointSliceStrategy(Strategy):
    soft = True
    generation = True

    def complete(self, document: Document) -> None:
        for port in document.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"
            port.setdefault("name", "")

    def validate(self, document: Document) -> list[Cause]:
        found: list[Cause] = []
        kind = document.get("addressType")
        if not kind:
            found.append(required("addressType"))
        elif kind not in ("IPv4", "IPv6", "FQDN"):
            found.append(not_supported("addressType", kind, ("FQDN", "IPv4", "IPv6")))
        for index, endpoint in enumerate(document.get("endpoints") or ()):
            if not endpoint.get("addresses"):
                found.append(required(f"endpoints[{index}].addresses"))
            for place, address in enumerate(endpoint.get("addresses") or ()):
                if kind in ("IPv4", "IPv6") and not _is_address(address):
                    at = f"endpoints[{index}].addresses[{place}]"
                    found.append(invalid_value(at, address, "must be a valid IP address"))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if new.get("addressType") != old.get("addressType"):
            return [immutable("addressType", new.get("addressType"))]
        return []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class EndpointsStrategy(Strategy):
    made_by_update = True
    soft = True

    def complete(self, document: Document) -> None:
        for subset in document.get("subsets") or ():
            for port in subset.get("ports") or ():
                port["protocol"] = port.get("protocol") or "TCP"
