"""Which webhooks want to see a request. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.api.kinds import Kind
from core.api.selectors import Selector, from_label_selector

__all__ = ["Hook", "Target", "read"]

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What is being done: `kind` is the kind of the resource, `versions` are all in which the resource is served."""

    operation: str
    kind: Kind
    subresource: str = ""
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook. `url` is empty where a service is to be asked: (namespace, name, port, path)."""

    name: str
    configuration: str
    rules: Sequence[Document]
    url: str
    service: tuple[str, str, int, str]
    bundle: str
    objects: Selector | None
    namespaces: Selector | None
    equivalent: bool
    timeout: float
    ignore: bool
    again: bool
    versions: Sequence[str]

    def version(self, target: Target) -> str:
        """In which version it wants to see the target; "" where it doesn't."""
        asked = target.kind.version
        if any(_covers(each, target, asked) for each in self.rules):
            return asked
        if self.equivalent:
            for other in target.versions:
                if any(_covers(each, target, other) for each in self.rules):
                    return other
        return ""

    def selects(self, labels: Sequence[Mapping[str, str]], namespace: Mapping[str, str] | None) -> bool:
        """Whether its selectors take objects with one of these labels, in a namespace with those; None where the object has no namespace."""
        if self.objects is not None and not any(self.objects.matches(each) for each in labels):
            return False
        return self.namespaces is None or namespace is None or self.namespaces.matches(namespace)


def _covers(rule: Document, target: Target, version: str) -> bool:
    kind = target.kind
    scope = rule.get("scope") or "*"
    return (
        _has(rule.get("operations"), target.operation)
        and _has(rule.get("apiGroups"), kind.group)
        and _has(rule.get("apiVersions"), version)
        and (scope == "*" or (scope == "Namespaced") == kind.namespaced)
        and any(_is_resource(each, kind.plural, target.subresource) for each in rule.get("resources") or ())
    )


def _has(names: Sequence[str] | None, wanted: str) -> bool:
    return any(each in ("*", wanted) for each in names or ())


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    """`pods`, `pods/status`, `pods/*`, `*/status`, `*` (no subresource), `*/*`."""
    first, slash, second = pattern.partition("/")
    if first not in ("*", plural):
        return False
    return second in ("*", subresource) if slash else not subresource


def read(configuration: Document) -> list[Hook]:
    """The webhooks of a stored configuration."""
    name = configuration["metadata"]["name"]
    return [_hook(name, each) for each in configuration.get("webhooks") or ()]


def _hook(configuration: str, hook: Document) -> Hook:
    client = hook.get("clientConfig") or {}
    service = client.get("service") or {}
    try:
        bundle = base64.b64decode(client.get("caBundle") or "").decode()
    except (binascii.Error, ValueError):
        bundle = "none"  # refused as a certificate when it is used
    return Hook(
        hook.get("name") or "",
        configuration,
        tuple(hook.get("rules") or ()),
        client.get("url") or "",
        (
            service.get("namespace") or "",
            service.get("name") or "",
            service.get("port") or 443,
            service.get("path") or "/",
        ),
        bundle,
        _selector(hook.get("objectSelector")),
        _selector(hook.get("namespaceSelector")),
        hook.get("matchPolicy") != "Exact",
        float(hook.get("timeoutSeconds") or 10),
        hook.get("failurePolicy") == "Ignore",
        hook.get("reinvocationPolicy") == "IfNeeded",
        tuple(hook.get("admissionReviewVersions") or ("v1",)),
    )


def _selector(selector: Mapping[str, Any] | None) -> Selector | None:
    """None where everything is selected."""
    return from_label_selector(selector) if selector else None
