"""LimitRanger: what a namespace's LimitRanges give to Pods that don't say, and what they refuse.

After https://kubernetes.io/docs/concepts/policy/limit-range/. Only creations are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import LIMIT_RANGE, PERSISTENT_VOLUME_CLAIM, POD
from core.api.quantity import parse
from core.api.usage import pod_resources
from core.errors import Forbidden
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["LimitRanger", "apply_defaults", "violations"]

Document = dict[str, Any]
Amounts = dict[str, Decimal]
_LIMITED = (POD.resource, PERSISTENT_VOLUME_CLAIM.resource)


class LimitRanger:
    verbs = ("create",)
    kinds = frozenset(_LIMITED)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        info, kind, document = attributes.info, attributes.kind, attributes.document
        if document is None or info.subresource or kind.resource not in _LIMITED:
            return
        for entry in (await self._store.list(f"/{LIMIT_RANGE.resource}/{info.namespace}/")).entries:
            limits = (msgspec.json.decode(entry.value).get("spec") or {}).get("limits") or []
            if kind.resource == POD.resource:
                apply_defaults(document, limits)
            found = list(violations(document, limits, pod=kind.resource == POD.resource))
            if found:
                metadata = document.get("metadata") or {}
                name = metadata.get("name") or metadata.get("generateName") or ""
                raise Forbidden(
                    f'{kind.resource} "{name}" is forbidden: {found[0] if len(found) == 1 else "[" + ", ".join(found) + "]"}',
                    {"name": name, "kind": kind.plural},
                )


def apply_defaults(pod: Document, limits: list[Document]) -> None:
    """Give containers the defaults of the items of type Container, in place; what they say themselves stays."""
    for item in limits:
        if item.get("type") != "Container":
            continue
        for container in _containers(pod):
            resources = container.setdefault("resources", {})
            own = dict(resources.get("limits") or {})
            for name, amount in (item.get("default") or {}).items():
                resources.setdefault("limits", {}).setdefault(name, amount)
            for name, amount in (item.get("defaultRequest") or {}).items():
                # A limit that the container says itself is its request too.
                resources.setdefault("requests", {}).setdefault(name, own.get(name, amount))


def violations(document: Document, limits: list[Document], *, pod: bool) -> Iterator[str]:
    """What the items refuse, in Kubernetes' words."""
    for item in limits:
        type_ = item.get("type")
        if type_ == "Container" and pod:
            for container in _containers(document):
                resources = container.get("resources") or {}
                capped = {name: parse(amount) for name, amount in (resources.get("limits") or {}).items()}
                asked = {
                    **capped,
                    **{name: parse(amount) for name, amount in (resources.get("requests") or {}).items()},
                }
                yield from _compare(item, asked, capped, "Container")
        elif type_ == "Pod" and pod:
            requests, capped = pod_resources(document.get("spec") or {})
            yield from _compare(item, requests, capped, "Pod")
        elif type_ == "PersistentVolumeClaim" and not pod:
            claimed: Document = ((document.get("spec") or {}).get("resources") or {}).get("requests") or {}
            asked = {name: parse(amount) for name, amount in claimed.items()}
            yield from _compare(item, asked, asked, "PersistentVolumeClaim")


def _compare(item: Document, requests: Amounts, limits: Amounts, what: str) -> Iterator[str]:
    for name, least in (item.get("min") or {}).items():
        asked = requests.get(name)
        if asked is None:
            yield f"minimum {name} usage per {what} is {least}.  No request is specified"
        elif asked < parse(least):
            yield f"minimum {name} usage per {what} is {least}, but request is {asked.normalize():f}"
    for name, most in (item.get("max") or {}).items():
        capped = limits.get(name)
        if capped is None:
            yield f"maximum {name} usage per {what} is {most}.  No limit is specified"
        elif capped > parse(most):
            yield f"maximum {name} usage per {what} is {most}, but limit is {capped.normalize():f}"
    ratios: Document = item.get("maxLimitRequestRatio") or {}
    for name, ratio in ratios.items():
        least_asked, most_allowed = requests.get(name), limits.get(name)
        if not least_asked or not most_allowed:
            yield f"{name} max limit to request ratio per {what} is {ratio}, but no request is specified or request is 0"
        elif most_allowed / least_asked > parse(ratio):
            found = (most_allowed / least_asked).quantize(Decimal("0.000001"))
            yield f"{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {found:f}"


def _containers(pod: Document) -> Iterator[Document]:
    spec = pod.get("spec") or {}
    yield from spec.get("containers") or ()
    yield from spec.get("initContainers") or ()
