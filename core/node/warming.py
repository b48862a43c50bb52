"""Gets a node ready for Pods that may come: what templates mount is fetched, what starts their Pods is started.

Templates are those of ReplicaSets with certain labels. Nothing depends on this: a Pod whose template nobody looked at only starts
later. Templates are taken one at a time, so that Pods that are there come first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from core.api import views
from core.api.kinds import REPLICA_SET
from core.client.informer import Informers
from core.client.reconciler import Reconciler
from core.client.workqueue import WorkQueue
from core.node.runtime.base import ContainerSpec, Mount, RuntimeFailure, SandboxSpec
from core.node.runtime.guard import Guard
from core.node.volumes.base import POD_NAMESPACE, CsiPlugin, VolumeError

__all__ = ["Warming"]

log = logging.getLogger(__name__)


class Warming:
    """A component. `labels` selects the ReplicaSets; the informers are started by their owner."""

    def __init__(self, informers: Informers, labels: str, csi: Mapping[str, CsiPlugin], runtime: Guard) -> None:
        self._csi = csi
        self._runtime = runtime
        self._sets = informers.watch(REPLICA_SET, views.ReplicaSet, labels=labels)
        self._fresh: set[str] = set()
        self._queue = WorkQueue()
        self._reconciler = Reconciler("warming", self.warm, queue=self._queue, workers=1)
        self._sets.add_handler(self._changed)

    async def start(self) -> None:
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop(grace=0.0)

    def _changed(self, old: views.ReplicaSet | None, new: views.ReplicaSet | None) -> None:
        if new is None:
            if old is not None:
                self._fresh.discard(old.key)
        elif old is None or old.spec.template != new.spec.template:
            if self._sets.synced:
                # One that was just made is about to be used; of those that were there before, most are not.
                self._fresh.add(new.key)
            self._queue.add(new.key)

    async def warm(self, key: str) -> None:
        """One template: of the ReplicaSet `namespace/name`."""
        found = self._sets.get(key)
        if found is None:
            return
        fresh = key in self._fresh
        self._fresh.discard(key)
        try:
            spec = msgspec.convert(found.spec.template.get("spec") or {}, views.PodSpec)
            paths = await self._fetch(spec, found.namespace)
            if fresh and len(spec.containers) == 1 and not spec.init_containers:
                sandbox = SandboxSpec(uid="", name="", namespace=found.namespace, log_dir="")
                await self._runtime.warm_up(sandbox, _container(spec.containers[0], paths))
        except (VolumeError, RuntimeFailure, msgspec.ValidationError) as error:
            log.info("the node can't get ready for Pods of %s: %s", key, error)

    async def _fetch(self, spec: views.PodSpec, namespace: str) -> dict[str, str]:
        """The volumes that are the same for every Pod, by name: their folders."""
        found: dict[str, str] = {}
        for volume in spec.volumes:
            source: dict[str, Any] = volume.csi or {}
            plugin = self._csi.get(str(source.get("driver", "")))
            if plugin is not None:
                attributes = {**(source.get("volumeAttributes") or {}), POD_NAMESPACE: namespace}
                found[volume.name] = str(await plugin.prefetch(attributes))
        return found


def _container(container: views.Container, paths: Mapping[str, str]) -> ContainerSpec:
    """As far as it is the same for every Pod."""
    return ContainerSpec(
        name=container.name,
        image=container.image,
        env={each.name: each.value for each in container.env if each.value_from is None},
        mounts=tuple(
            Mount(paths[each.name], each.mount_path, True) for each in container.volume_mounts if each.name in paths
        ),
    )
