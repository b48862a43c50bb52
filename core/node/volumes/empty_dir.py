"""emptyDir volumes: a folder that lives as long as the Pod. The medium `Memory` is kept on disk too, `sizeLimit` isn't held."""

from __future__ import annotations

from core.node.volumes.base import Prepared, VolumeRequest

__all__ = ["EmptyDirVolume"]


class EmptyDirVolume:
    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        request.folder.mkdir(parents=True, exist_ok=True)
        request.folder.chmod(0o777)
        return Prepared(request.folder)

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""
