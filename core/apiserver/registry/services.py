"""Rules of Services: cluster IPs that are kept unique, defaults, what may change."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from core.api.kinds import Kind
from core.apiserver.fieldsets import item_element
from core.apiserver.registry.addresses import AddressPool, AddressTaken, PoolFull, PortPool
from core.apiserver.registry.names import check_labels, label, label_1035
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import duplicate, invalid, invalid_value, not_supported, required

__all__ = ["ServiceStrategy"]

log = logging.getLogger(__name__)

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PORTS = "must be between 1 and 65535, inclusive"


def _addressed(spec: Document) -> bool:
    return spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None"


_SERVICE_FIELDS = {"spec.clusterIP": text("spec", "clusterIP"), "spec.type": text("spec", "type")}


def _pair(spec: Document, was: Document) -> None:
    """A client that knows `clusterIP` alone changes or clears `clusterIPs` with it."""
    before, after = was.get("clusterIP") or "", spec.get("clusterIP") or ""
    if before != after and spec.get("clusterIPs") == was.get("clusterIPs"):
        spec["clusterIPs"] = [after] if after else []


class ServiceStrategy(Strategy):
    made_by_update = True
    returns_object = True
    tracks_stored = True
    allotted = tuple(
        ("spec", key) for key in ("clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies", "ipFamilyPolicy")
    )
    fields = _SERVICE_FIELDS

    def __init__(self, kind: Kind, pool: AddressPool, ports: PortPool) -> None:
        super().__init__(kind)
        self._pool = pool
        self._ports_taken = ports

    def check_name(self, name: str) -> str:
        return label_1035(name)

    def unsaid(self, document: Document) -> list[tuple[str, ...]]:
        found = super().unsaid(document)
        for port in (document.get("spec") or {}).get("ports") or ():
            if not port.get("nodePort"):
                keys = {"port": port.get("port"), "protocol": port.get("protocol") or "TCP"}
                found.append(("f:spec", "f:ports", item_element(keys), "f:nodePort"))
        return found

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"loadBalancer": {}}
        spec = document.setdefault("spec", {})
        spec["type"] = spec.get("type") or "ClusterIP"
        if not spec.get("clusterIP") and spec.get("clusterIPs"):
            spec["clusterIP"] = spec["clusterIPs"][0]
        if _addressed(spec):
            self._allocate(document["metadata"]["uid"], document)
        self._allocate_ports(document["metadata"]["uid"], document)

    def _allocate_ports(self, uid: str, document: Document, was: Sequence[Document] = ()) -> None:
        """Node ports for the types that have them: those that were said, those that the Service had, or free ones."""
        spec = document["spec"]
        ports = spec.get("ports") or []
        if spec["type"] not in ("NodePort", "LoadBalancer") or spec.get("allocateLoadBalancerNodePorts") is False:
            if spec["type"] in ("ClusterIP", "ExternalName"):
                for port in ports:
                    # A type without node ports takes over what the client echoes of the old one.
                    if any(port.get("nodePort") == each.get("nodePort") for each in was):
                        port.pop("nodePort", None)
            return
        before = {(each.get("port"), each.get("protocol") or "TCP"): each.get("nodePort") or 0 for each in was}
        for index, port in enumerate(ports):
            wanted = port.get("nodePort") or before.get((port.get("port"), port.get("protocol") or "TCP")) or 0
            try:
                port["nodePort"] = self._ports_taken.take(uid, wanted)
            except (AddressTaken, PoolFull) as error:
                name = document["metadata"].get("name") or ""
                raise invalid(
                    self.kind, name, [invalid_value(f"spec.ports[{index}].nodePort", wanted, str(error))]
                ) from None

    def _allocate(self, uid: str, document: Document) -> None:
        """Raises `Invalid` where the address isn't to be had."""
        spec = document["spec"]
        wanted = spec.get("clusterIP") or ""
        try:
            spec["clusterIP"] = self._pool.take(uid, wanted)
        except (AddressTaken, PoolFull) as error:
            name = document["metadata"].get("name") or ""
            why = f"failed to allocate IP {wanted}: {error}" if wanted else f"failed to allocate a serviceIP: {error}"
            raise invalid(
                self.kind, name, [invalid_value("spec.clusterIPs", [wanted] if wanted else [], why)]
            ) from None

    def prepare_update(self, new: Document, old: Document) -> None:
        super().prepare_update(new, old)
        spec, was = new.setdefault("spec", {}), old["spec"]
        spec["type"] = spec.get("type") or "ClusterIP"
        if spec["type"] != "ExternalName":
            _pair(spec, was)
            if not spec.get("clusterIP") and was.get("clusterIP"):
                spec["clusterIP"] = was["clusterIP"]
            if not spec.get("clusterIPs") and spec.get("clusterIP") == was.get("clusterIP") and was.get("clusterIPs"):
                spec["clusterIPs"] = was["clusterIPs"]
        if _addressed(spec) and not spec.get("clusterIP"):
            self._allocate(old["metadata"]["uid"], new)
        self._allocate_ports(old["metadata"]["uid"], new, was.get("ports") or ())

    def complete(self, document: Document) -> None:
        spec = document["spec"]
        spec.setdefault("sessionAffinity", "None")
        if spec["sessionAffinity"] == "ClientIP":
            spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}})
        for port in spec.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"
            if port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port.get("port")
        if spec["type"] == "ExternalName":
            return
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] in ("NodePort", "LoadBalancer"):
            spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
        else:
            spec.pop("externalTrafficPolicy", None)
        if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        spec["ipFamilies"] = spec.get("ipFamilies") or ["IPv4"]
        spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or "SingleStack"
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]

    def validate(self, document: Document) -> list[Cause]:
        spec, found = document["spec"], []
        if spec["type"] not in _TYPES:
            found.append(not_supported("spec.type", spec["type"], _TYPES))
        if spec["type"] == "ExternalName":
            if not spec.get("externalName"):
                found.append(required("spec.externalName"))
        elif not spec.get("ports") and spec.get("clusterIP") != "None":
            found.append(required("spec.ports"))
        if spec["sessionAffinity"] not in ("ClientIP", "None"):
            found.append(not_supported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
        if spec.get("clusterIPs") and spec["clusterIPs"][0] != spec.get("clusterIP"):
            found.append(invalid_value("spec.clusterIPs[0]", spec["clusterIPs"], "first value must match `clusterIP`"))
        return found + check_labels(spec.get("selector"), "spec.selector") + self._ports(spec.get("ports") or [])

    def _ports(self, ports: list[Document]) -> list[Cause]:
        found: list[Cause] = []
        names: set[str] = set()
        numbers: set[tuple[int, str]] = set()
        for index, port in enumerate(ports):
            at, name, number = f"spec.ports[{index}]", port.get("name") or "", port.get("port") or 0
            if not name and len(ports) > 1:
                found.append(required(f"{at}.name"))
            elif name and (why := label(name)):
                found.append(invalid_value(f"{at}.name", name, why))
            elif name in names:
                found.append(duplicate(f"{at}.name", name))
            names.add(name)
            if not 0 < number < 65536:
                found.append(invalid_value(f"{at}.port", number, _PORTS))
            if port["protocol"] not in ("SCTP", "TCP", "UDP"):
                found.append(not_supported(f"{at}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
            target = port.get("targetPort")
            if isinstance(target, int) and not 0 < target < 65536:
                found.append(invalid_value(f"{at}.targetPort", target, _PORTS))
            if (number, port["protocol"]) in numbers:
                found.append(duplicate(at, {"port": number, "protocol": port["protocol"]}))
            numbers.add((number, port["protocol"]))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if "ExternalName" in (new["spec"]["type"], old["spec"].get("type")):
            return []
        was, now = old["spec"].get("clusterIPs") or [], new["spec"].get("clusterIPs") or []
        if was and not now:
            return [invalid_value("spec.clusterIPs[0]", now, "primary clusterIP can not be unset")]
        return [
            invalid_value(f"spec.clusterIPs[{index}]", now, "may not change once set")
            for index, (before, after) in enumerate(zip(was, now, strict=False))
            if before != after
        ]

    def stored(self, document: Document) -> None:
        """The address of a stored Service is its own: this is how the table is rebuilt when the server starts."""
        spec, uid = document["spec"], document["metadata"]["uid"]
        if _addressed(spec) and spec.get("clusterIP"):
            try:
                self._pool.take(uid, spec["clusterIP"])
            except AddressTaken as error:
                # The range was changed since: the Service keeps what it has, nobody else is given it.
                log.warning("the cluster IP %s of a Service: %s", spec["clusterIP"], error)
        self._ports_taken.keep(uid, self._restore_ports(uid, spec))

    def _restore_ports(self, uid: str, spec: Document) -> set[int]:
        found = {each["nodePort"] for each in spec.get("ports") or () if each.get("nodePort")}
        for port in found:
            try:
                self._ports_taken.take(uid, port)
            except AddressTaken as error:
                log.warning("the node port %d of a Service: %s", port, error)
        return found

    def removed(self, document: Document) -> None:
        address = (document.get("spec") or {}).get("clusterIP")
        if address and address != "None":
            self._pool.release(document["metadata"]["uid"], address)
        self._ports_taken.keep(document["metadata"]["uid"], set())
