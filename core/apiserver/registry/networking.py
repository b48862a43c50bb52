"""Rules of Ingresses, IngressClasses and NetworkPolicies."""

from __future__ import annotations

import ipaddress
from typing import Any

from core.apiserver.registry.names import label_1035, subdomain
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.registry.templates import go_selector
from core.apiserver.status import GoValue, immutable, invalid_value, not_supported, required

__all__ = ["IngressClassStrategy", "IngressStrategy", "NetworkPolicyStrategy"]

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_EITHER = "either `defaultBackend` or `rules` must be specified"


class IngressStrategy(Strategy):
    generation = True

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"loadBalancer": {}}

    def validate(self, document: Document) -> list[Cause]:
        spec = document.get("spec") or {}
        found = []
        if not spec.get("rules") and spec.get("defaultBackend") is None:
            found.append(invalid_value("spec", GoValue("[]networking.IngressRule(nil)"), _EITHER))
        if spec.get("defaultBackend") is not None:
            found += _backend(spec["defaultBackend"], "spec.defaultBackend")
        for index, rule in enumerate(spec.get("rules") or ()):
            found += self._rule(rule, f"spec.rules[{index}]")
        if (name := spec.get("ingressClassName")) is not None and (why := subdomain(name)):
            found.append(invalid_value("spec.ingressClassName", name, why))
        return found

    def _rule(self, rule: Document, at: str) -> list[Cause]:
        found = []
        if host := rule.get("host"):
            if _is_address(host):
                found.append(invalid_value(f"{at}.host", host, "must be a DNS name, not an IP address"))
            elif why := subdomain(host.removeprefix("*.")):
                found.append(invalid_value(f"{at}.host", host, why))
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            found.append(required(f"{at}.http.paths"))
        for index, path in enumerate((http or {}).get("paths") or ()):
            here, kind, text = f"{at}.http.paths[{index}]", path.get("pathType"), path.get("path") or ""
            if kind is None:
                found.append(required(f"{here}.pathType", "pathType must be specified"))
            elif kind not in _PATH_TYPES:
                found.append(not_supported(f"{here}.pathType", kind, _PATH_TYPES))
            elif kind != "ImplementationSpecific" or text:
                if not text.startswith("/"):
                    found.append(invalid_value(f"{here}.path", text, "must be an absolute path"))
                elif kind != "ImplementationSpecific" and "//" in text:
                    found.append(invalid_value(f"{here}.path", text, "must not contain '//'"))
            found += _backend(path.get("backend") or {}, f"{here}.backend")
        return found


def _backend(backend: Document, at: str) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid_value(at, "", "cannot set both resource and service backends")]
    if service is None:
        return [] if resource is not None else [required(at, "resource or service backend is required")]
    found = []
    name, port = service.get("name") or "", service.get("port") or {}
    if not name:
        found.append(required(f"{at}.service.name"))
    elif why := label_1035(name):
        found.append(invalid_value(f"{at}.service.name", name, why))
    number, word = port.get("number") or 0, port.get("name") or ""
    if number and word:
        found.append(invalid_value(at, "", "cannot set both port name & port number"))
    elif not number and not word:
        found.append(required(at, "port name or number is required"))
    elif number and not 0 < number < 65536:
        found.append(invalid_value(f"{at}.service.port.number", number, "must be between 1 and 65535, inclusive"))
    return found


class IngressClassStrategy(Strategy):
    generation = True

    def complete(self, document: Document) -> None:
        if parameters := (document.get("spec") or {}).get("parameters"):
            parameters["scope"] = parameters.get("scope") or "Cluster"

    def validate(self, document: Document) -> list[Cause]:
        found = []
        controller = (document.get("spec") or {}).get("controller") or ""
        if not controller:
            found.append(required("spec.controller"))
        elif "/" not in controller:
            why = 'must be a domain-prefixed path (such as "acme.io/foo")'
            found.append(invalid_value("spec.controller", controller, why))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        now, was = ((each.get("spec") or {}).get("controller") for each in (new, old))
        return [] if now == was else [immutable("spec.controller", now)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class NetworkPolicyStrategy(Strategy):
    generation = True

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        # A required field of its type, so that it is there though it says nothing.
        spec["podSelector"] = spec.get("podSelector") or {}
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(("Egress",) if spec.get("egress") else ())]
        for direction in ("ingress", "egress"):
            for rule in spec.get(direction) or ():
                for port in rule.get("ports") or ():
                    port["protocol"] = port.get("protocol") or "TCP"

    def validate(self, document: Document) -> list[Cause]:
        spec, found = document["spec"], []
        for index, kind in enumerate(spec["policyTypes"]):
            if kind not in ("Egress", "Ingress"):
                found.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or ()):
                at = f"spec.{direction}[{index}]"
                for place, port in enumerate(rule.get("ports") or ()):
                    found += _policy_port(port, f"{at}.ports[{place}]")
                for place, peer in enumerate(rule.get(side) or ()):
                    found += _peer(peer, f"{at}.{side}[{place}]")
        return found


def _policy_port(port: Document, at: str) -> list[Cause]:
    found = []
    if port["protocol"] not in ("SCTP", "TCP", "UDP"):
        found.append(not_supported(f"{at}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
    number = port.get("port")
    if isinstance(number, int) and not 0 < number < 65536:
        found.append(invalid_value(f"{at}.port", number, "must be between 1 and 65535, inclusive"))
    end = port.get("endPort")
    if end is not None and isinstance(number, int) and end < number:
        found.append(invalid_value(f"{at}.endPort", end, "must be greater than or equal to `port`"))
    return found


def _peer(peer: Document, at: str) -> list[Cause]:
    block: dict[str, Any] | None = peer.get("ipBlock")
    if not peer:
        return [required(at, "must specify a peer")]
    if block is None:
        return []
    if peer.get("podSelector") is not None or peer.get("namespaceSelector") is not None:
        return [
            invalid_value(at, go_selector(peer.get("podSelector")), "may not specify both ipBlock and another peer")
        ]
    try:
        ipaddress.ip_network(block.get("cidr") or "", strict=False)
    except ValueError:
        return [
            invalid_value(
                f"{at}.ipBlock.cidr",
                block.get("cidr") or "",
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            )
        ]
    return []
