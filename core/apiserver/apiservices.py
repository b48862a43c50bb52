"""An APIService for each group and version that is served, as Kubernetes' aggregator keeps them: `kubectl get apiservices`.

All are `Local`: this server answers itself. Those of custom kinds come and go with their definitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from core.api.kinds import API_SERVICE, BUILT_IN, Kind
from core.apiserver.registry.deletion import DeleteOptions
from core.apiserver.served import Served
from core.errors import AlreadyExists, FaasliteError, NotFound
from core.tasks import ended

__all__ = ["AUTO_MANAGED", "ApiServices", "wanted"]

Document = dict[str, Any]
log = logging.getLogger(__name__)

AUTO_MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_RETRY_SECONDS = 1.0
_CUSTOM_PRIORITY = (1000, 100)
_DEFAULT_PRIORITY = (15000, 9)
_PRIORITIES = {
    "": (18000, 1), "apps": (17800, 15), "events.k8s.io": (17750, 15), "authentication.k8s.io": (17700, 15),
    "authorization.k8s.io": (17600, 15), "autoscaling": (17500, 15), "batch": (17400, 15), "certificates.k8s.io": (17300, 15),
    "networking.k8s.io": (17200, 15), "policy": (17100, 15), "rbac.authorization.k8s.io": (17000, 15), "storage.k8s.io": (16800, 15),
    "apiextensions.k8s.io": (16700, 15), "admissionregistration.k8s.io": (16700, 15), "scheduling.k8s.io": (16600, 15),
    "coordination.k8s.io": (16500, 15), "node.k8s.io": (16300, 15), "discovery.k8s.io": (16200, 15),
    "flowcontrol.apiserver.k8s.io": (16100, 21), "metrics.k8s.io": (100, 100),
}  # fmt: skip
"""Group -> (of the group, of its version), as Kubernetes has them."""
_VERSIONS = {("autoscaling", "v2"): 30}
_BUILT_IN_GROUPS = frozenset((each.group, each.version) for each in BUILT_IN)


def wanted(kinds: Iterable[Kind]) -> dict[str, Document]:
    """Name -> APIService of what is served. Pure."""
    found: dict[str, Document] = {}
    for group, version in dict.fromkeys((each.group, each.version) for each in kinds):
        own = (group, version) in _BUILT_IN_GROUPS
        first, second = _PRIORITIES.get(group, _DEFAULT_PRIORITY if own else _CUSTOM_PRIORITY)
        spec = {
            "version": version,
            "groupPriorityMinimum": first,
            "versionPriority": _VERSIONS.get((group, version), second),
        }
        name = f"{version}.{group}"
        found[name] = {
            "apiVersion": API_SERVICE.api_version,
            "kind": API_SERVICE.kind,
            "metadata": {"name": name, "labels": {AUTO_MANAGED: "onstart" if own else "true"}},
            "spec": {"group": group, **spec} if group else spec,
        }
    return found


class ApiServices:
    """Keeps them. `served` calls `poke` whenever what is served changes."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        self._changed.set()

    async def start(self) -> None:
        if self._served.find(API_SERVICE.group, API_SERVICE.version, API_SERVICE.plural) is None:
            return
        await self.sync()
        self._task = asyncio.create_task(self._run(), name="API services")

    async def stop(self) -> None:
        await ended(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            try:
                await self.sync()
            except FaasliteError:
                log.exception("APIServices could not be kept, trying again")
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def sync(self) -> None:
        """Create what lacks, delete those of ours whose kinds are gone; nobody's own are touched."""
        self._changed.clear()
        registry = self._served.of(API_SERVICE)
        aims = wanted(self._served.kinds())
        page = await registry.store.list(registry.prefix())
        stored = {each["metadata"]["name"]: each for each in map(registry.cache.document, page.entries)}
        for name in aims.keys() - stored.keys():
            try:
                await registry.create("", aims[name])
            except AlreadyExists:
                continue
        for name in stored.keys() - aims.keys():
            if AUTO_MANAGED in (stored[name]["metadata"].get("labels") or {}):
                try:
                    await registry.delete("", name, DeleteOptions())
                except NotFound:
                    continue
