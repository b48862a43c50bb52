"""ResourceQuota: a creation that would exceed a quota of its namespace is refused, and so is an update that uses more.

What is used is counted from the store itself, at the moment of the creation: between the count and the write nothing else runs
(an embedded store applies a write without waiting), so that concurrent creations can't slip past together. `status.used` is for
people, and its controller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import PERSISTENT_VOLUME_CLAIM, POD, RESOURCE_QUOTA, SERVICE, Kind
from core.api.quantity import parse
from core.api.usage import format_usage, in_scope, missing_compute, total, usage_of
from core.apiserver.registry.generic import Review
from core.errors import Forbidden
from core.store.base import Entry, Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["Quota"]

Document = dict[str, Any]
Used = dict[str, Decimal]
_REMEMBERED = 20_000
_NONE = Decimal(0)
_GROWING = (SERVICE.resource, PERSISTENT_VOLUME_CLAIM.resource)
"""What may use more by an update: a Service that gets node ports, a claim that grows."""


class Quota:
    """The last of the chain: see the module."""

    verbs = ("create",)
    kinds: frozenset[str] | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: dict[tuple[str, int], Document] = {}

    async def admit(self, attributes: Attributes) -> None:
        info, kind, document = attributes.info, attributes.kind, attributes.document
        if document is None or info.subresource or not kind.namespaced:
            return
        quotas = (await self._store.list(f"/{RESOURCE_QUOTA.resource}/{info.namespace}/")).entries
        if not quotas:
            return
        wanted = usage_of(kind, document)
        for entry in quotas:
            quota = self._document(entry)
            spec = quota.get("spec") or {}
            hard = spec.get("hard") or {}
            if hard.keys() & wanted.keys() and in_scope(spec, kind, document):
                await self._check(quota, hard, kind, document, wanted, info.namespace)
            elif kind.resource == POD.resource and in_scope(spec, kind, document):
                _require_compute(quota["metadata"]["name"], hard, kind, document)

    async def review(self, kind: Kind, namespace: str) -> Review | None:
        """What is asked about an update, which may use more of a quota only where that is left; None where there is nothing to ask."""
        if kind.resource not in _GROWING:
            return None
        quotas = [
            self._document(each)
            for each in (await self._store.list(f"/{RESOURCE_QUOTA.resource}/{namespace}/")).entries
        ]
        if not quotas:
            return None
        stored = [self._document(each) for each in (await self._store.list(f"/{kind.resource}/{namespace}/")).entries]

        def check(new: Document, old: Document | None) -> None:
            was = usage_of(kind, old) if old is not None else {}
            more = {key: amount - was.get(key, _NONE) for key, amount in usage_of(kind, new).items()}
            for quota in quotas:
                hard = quota["spec"].get("hard") or {}
                asked = {key: amount for key, amount in more.items() if key in hard and amount > 0}
                if asked and in_scope(quota["spec"], kind, new):
                    _hold(quota, hard, kind, new, asked, stored)

        return check

    async def _check(
        self, quota: Document, hard: Document, kind: Kind, document: Document, wanted: Used, namespace: str
    ) -> None:
        name = quota["metadata"]["name"]
        if kind.resource == POD.resource:
            _require_compute(name, hard, kind, document)
        asked = {key: amount for key, amount in wanted.items() if key in hard and amount}
        stored = (await self._store.list(f"/{kind.resource}/{namespace}/")).entries
        _hold(quota, hard, kind, document, asked, (self._document(each) for each in stored))

    def _document(self, entry: Entry) -> Document:
        """Parsed once per revision: a namespace's objects are counted at each creation."""
        key = (entry.key, entry.revision)
        found = self._parsed.get(key)
        if found is None:
            if len(self._parsed) >= _REMEMBERED:
                self._parsed.clear()
            found = self._parsed[key] = msgspec.json.decode(entry.value)
        return found


def _hold(
    quota: Document, hard: Document, kind: Kind, document: Document, asked: Used, stored: Iterable[Document]
) -> None:
    """Raises `Forbidden` where what `stored` objects use leaves too little for what is `asked`."""
    spec, name = quota["spec"], quota["metadata"]["name"]
    used = total((usage_of(kind, each) for each in stored if in_scope(spec, kind, each)), asked)
    over = sorted(key for key, amount in asked.items() if used[key] + amount > parse(hard[key]))
    if over:
        raise _refusal(
            kind,
            document,
            f"exceeded quota: {name}, requested: {_shown(asked, over)}, used: {_shown(used, over)}, "
            f"limited: {','.join(f'{key}={hard[key]}' for key in over)}",
        )


def _require_compute(quota: str, hard: Document, kind: Kind, document: Document) -> None:
    missing = missing_compute(document.get("spec") or {}, hard)
    if missing:
        parts = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in sorted(missing.items()))
        raise _refusal(kind, document, f"failed quota: {quota}: must specify {parts}")


def _shown(amounts: Used, names: list[str]) -> str:
    return ",".join(f"{name}={format_usage(name, amounts[name])}" for name in names)


def _refusal(kind: Kind, document: Document, why: str) -> Forbidden:
    metadata = document.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or ""
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return Forbidden(
        f'{kind.resource} "{name}" is forbidden: {why}', {key: value for key, value in details.items() if value}
    )
