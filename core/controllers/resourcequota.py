"""`status` of ResourceQuotas: what a namespace uses of each, for people to see. Admission counts for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import field

from core.api.kinds import BUILT_IN, POD, RESOURCE_QUOTA, Kind
from core.api.meta import Document
from core.api.usage import COMPUTE, format_usage, in_scope, total, usage_of
from core.api.views import ObjectView, Pod, View
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.controllers.discovery import served_kinds
from core.errors import NotFound

__all__ = ["ResourceQuotaController", "counted_kinds"]

SETTLING = 0.2
"""Seconds between a change in a namespace and the count: a rollout changes many Pods at once."""
UNKNOWN = 30.0
"""Seconds until a quota that counts a kind which isn't served yet is looked at again."""


class QuotaSpec(View):
    hard: dict[str, Any] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=list)
    scope_selector: dict[str, Any] | None = None


class QuotaStatus(View):
    hard: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)


class Quota(ObjectView):
    spec: QuotaSpec = field(default_factory=QuotaSpec)
    status: QuotaStatus = field(default_factory=QuotaStatus)


def counted_kinds(hard: Iterable[str], kinds: Iterable[Kind] = BUILT_IN) -> set[Kind]:
    """The kinds whose objects the names of `spec.hard` count; unknown names count none."""
    by_resource = {each.resource: each for each in kinds if each.namespaced and "list" in each.verbs}
    found: set[Kind] = set()
    for name in hard:
        if name.startswith("count/"):
            resource = name.removeprefix("count/")
        elif name.startswith("services."):
            resource = "services"
        elif "storage" in name and not name.endswith("ephemeral-storage"):
            resource = "persistentvolumeclaims"
        elif name.split(".")[0] in ("requests", "limits") or name in COMPUTE:
            resource = "pods"
        else:
            resource = name
        if resource in by_resource:
            found.add(by_resource[resource])
    return found


class ResourceQuotaController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._quotas: Informer[Quota] = informers.watch(RESOURCE_QUOTA, Quota)
        self._quotas.add_index("namespace", lambda each: [each.namespace])
        self._watched: set[Kind] = set()
        self.queue = WorkQueue()
        self._reconciler = Reconciler("resourcequota", self.sync, queue=self.queue, workers=2)
        self._quotas.add_handler(self.on_quota)

    async def start(self) -> None:
        await self._quotas.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_quota(self, old: Quota | None, new: Quota | None) -> None:
        if new is not None and (old is None or old.spec != new.spec):
            self.queue.add(new.key)

    async def _kinds(self, hard: Iterable[str]) -> tuple[set[Kind], bool]:
        """The kinds that are counted, custom ones too, all of them watched from here on; and whether any is unknown."""
        found = counted_kinds(hard)
        unknown = [name for name in hard if name.startswith("count/") and not counted_kinds([name])]
        if unknown:
            served = await served_kinds(self._client)
            found |= counted_kinds(unknown, served)
            unknown = [name for name in unknown if not counted_kinds([name], served)]
        for kind in found:
            self._watch(kind)
        return found, bool(unknown)

    def _watch(self, kind: Kind) -> None:
        """Hear of the kind from now on; Pods in the view that others share."""
        if kind in self._watched:
            return
        self._watched.add(kind)
        if kind.resource == POD.resource:
            self._informers.watch(POD, Pod).add_handler(self._handler())
        else:
            self._informers.watch(kind, ObjectView).add_handler(self._handler())

    def _handler(self) -> Callable[[Any, Any], None]:
        def on_object(old: Any, new: Any) -> None:
            for quota in self._quotas.by_index("namespace", (new or old).namespace):
                self.queue.add_after(quota.key, SETTLING)

        return on_object

    async def sync(self, key: str) -> float | None:
        quota = self._quotas.get(key)
        if quota is None or quota.metadata.deletion_timestamp is not None:
            return None
        hard = quota.spec.hard
        spec: Document = {"scopes": quota.spec.scopes, "scopeSelector": quota.spec.scope_selector}
        kinds, unknown = await self._kinds(hard)
        usages = []
        for kind in kinds:
            items, _ = await self._client.list(kind, quota.namespace)
            usages += [usage_of(kind, each) for each in items if in_scope(spec, kind, each)]
        used = {name: format_usage(name, amount) for name, amount in total(usages, hard).items()}
        if (quota.status.hard, quota.status.used) != (hard, used):
            try:
                status = {"status": {"hard": hard, "used": used}}
                await self._client.patch(RESOURCE_QUOTA, quota.name, quota.namespace, status, subresource="status")
            except NotFound:
                return None
        return UNKNOWN if unknown else None
