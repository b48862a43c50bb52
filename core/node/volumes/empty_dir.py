"""emptyDir volumes: a folder that lives as long as the Pod.

Of the medium `Memory`, one that a single container mounts is made by the runtime, in memory, with the `sizeLimit` as its bound (512 MiB
where none is said): it is empty again after a restart of that container. What several containers share is a folder on
the node's disk whatever its medium, and `sizeLimit` isn't held there.
"""

from __future__ import annotations

from core.api import quantity, views
from core.node.volumes.base import Prepared, VolumeError, VolumeRequest

__all__ = ["EmptyDirVolume"]

SCRATCH = 512 << 20


class EmptyDirVolume:
    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        if request.source.get("medium") == "Memory" and _alone(request.pod, request.name):
            return Prepared(request.folder, scratch=_size(request))
        request.folder.mkdir(parents=True, exist_ok=True)
        request.folder.chmod(0o777)
        return Prepared(request.folder)

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""


def _alone(pod: views.Pod, name: str) -> bool:
    """Whether one container mounts the whole of the volume, once."""
    mounts = [
        mount
        for each in (*pod.spec.init_containers, *pod.spec.containers)
        for mount in each.volume_mounts
        if mount.name == name
    ]
    return len(mounts) == 1 and not mounts[0].sub_path


def _size(request: VolumeRequest) -> int:
    said = request.source.get("sizeLimit")
    if not said:
        return SCRATCH
    try:
        return max(quantity.whole(said), 1)
    except ValueError as error:
        raise VolumeError(f"volume {request.name}: {error}") from error
