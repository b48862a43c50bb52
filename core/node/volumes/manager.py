"""The volumes of all Pods of a node, under `root/UID/volumes/NAME`."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from core.api import views
from core.node.env import ConfigError
from core.node.volumes.base import POD_NAMESPACE, Prepared, VolumeContext, VolumeError, VolumeRequest, VolumeType
from core.node.volumes.table import VOLUME_TYPES

__all__ = ["Volumes", "host_path"]

log = logging.getLogger(__name__)


def host_path(prepared: Prepared, sub_path: str) -> str:
    """The host path of a mount's subPath, made where it is missing. Raises `VolumeError` where it leads out of the volume."""
    if not sub_path:
        return str(prepared.path)
    root = os.path.realpath(prepared.path)
    found = os.path.realpath(os.path.join(root, sub_path))
    if sub_path.startswith("/") or (found != root and not found.startswith(root + os.sep)):
        raise VolumeError(f"subPath {sub_path!r} leads out of the volume")
    if not os.path.exists(found):
        if prepared.read_only:
            raise VolumeError(f"subPath {sub_path!r} isn't in the volume")
        os.makedirs(found, exist_ok=True)
    return found


class Volumes:
    def __init__(self, root: Path, context: VolumeContext) -> None:
        self._root = root
        self._context = context

    def _requests(self, pod: views.Pod) -> list[tuple[VolumeType, VolumeRequest]]:
        found = []
        for volume in pod.spec.volumes:
            for field, kind in VOLUME_TYPES.items():
                source = getattr(volume, field)
                if source is not None:
                    folder = self._root / pod.metadata.uid / "volumes" / volume.name
                    found.append((kind, VolumeRequest(pod, volume.name, source, folder, self._context)))
                    break
            else:
                raise VolumeError(f"volume {volume.name}: this node doesn't serve its type")
        return found

    async def prepare(self, pod: views.Pod) -> Mapping[str, Prepared]:
        """Every volume of the Pod, by name; may be called again. Raises `VolumeError`, `ConfigError`."""
        found = {}
        for kind, request in self._requests(pod):
            try:
                found[request.name] = await kind.prepare(request)
            except ConfigError as error:
                raise VolumeError(f"volume {request.name}: {error}") from error
            except OSError as error:
                raise VolumeError(f"volume {request.name}: {error}") from error
        return found

    def adopt(self, pod: views.Pod) -> None:
        """A Pod that already runs: what its volumes share must stay."""
        for volume in pod.spec.volumes:
            plugin = self._context.csi.get(str(volume.csi.get("driver", ""))) if volume.csi else None
            if plugin is not None and volume.csi is not None:
                attributes = {**(volume.csi.get("volumeAttributes") or {}), POD_NAMESPACE: pod.namespace}
                plugin.adopt(f"{pod.metadata.uid}/{volume.name}", attributes)

    async def refresh(self, pod: views.Pod) -> None:
        """Bring changed Secrets, ConfigMaps and fields into the volumes of a running Pod; what fails stays as it is."""
        for kind, request in self._requests(pod):
            if kind.updates:
                try:
                    await kind.prepare(request)
                except (
                    VolumeError,
                    ConfigError,
                ) as error:  # its source is gone, which users may do; the Pod keeps what it has
                    log.info("volume %s of Pod %s stays as it is: %s", request.name, pod.key, error)
                except OSError as error:
                    log.warning("volume %s of Pod %s was not updated: %s", request.name, pod.key, error)

    async def release(self, pod: views.Pod) -> None:
        """The Pod is gone; may be called again."""
        try:
            for kind, request in self._requests(pod):
                await kind.release(request)
        except VolumeError as error:
            log.debug("Pod %s never had all its volumes: %s", pod.key, error)
        await asyncio.to_thread(shutil.rmtree, self._root / pod.metadata.uid, True)

    async def remove_others(self, uids: Callable[[], Collection[str]]) -> list[str]:
        """Remove the folders of Pods that aren't among `uids()`, asked after the look at what there is; returns whose they were."""

        def look() -> list[Path]:
            return list(self._root.iterdir()) if self._root.is_dir() else []

        there = await asyncio.to_thread(look)
        known = uids()
        gone = [each for each in there if each.name not in known]
        for each in gone:
            await asyncio.to_thread(shutil.rmtree, each, True)
        return [each.name for each in gone]

    @staticmethod
    def sources(pod: views.Pod) -> set[tuple[str, str]]:
        """(kind, name) of every Secret and ConfigMap that the Pod's volumes and environment refer to."""
        found: set[tuple[str, str]] = set()
        for volume in pod.spec.volumes:
            if volume.secret:
                found.add(("secret", str(volume.secret.get("secretName", ""))))
            if volume.config_map:
                found.add(("configMap", str(volume.config_map.get("name", ""))))
            for source in (volume.projected or {}).get("sources") or ():
                found |= {
                    (kind, str(source[kind].get("name", ""))) for kind in ("secret", "configMap") if kind in source
                }
        for container in (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers):
            for each in container.env_from:
                found |= {
                    (kind, str(each[f"{kind}Ref"].get("name", "")))
                    for kind in ("secret", "configMap")
                    if each.get(f"{kind}Ref")
                }
            for variable in container.env:
                for kind in ("secret", "configMap"):
                    reference = (variable.value_from or {}).get(f"{kind}KeyRef")
                    if reference:
                        found.add((kind, str(reference.get("name", ""))))
        return found
