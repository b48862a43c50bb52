"""projected volumes: several sources in one folder."""

from __future__ import annotations

import asyncio

from core.node.volumes.base import Prepared, VolumeError, VolumeRequest
from core.node.volumes.config_map import config_map_files
from core.node.volumes.downward_api import downward_files
from core.node.volumes.files import File, write_files
from core.node.volumes.secret import secret_files

__all__ = ["ProjectedVolume"]


class ProjectedVolume:
    updates = True

    async def prepare(self, request: VolumeRequest) -> Prepared:
        mode = int(request.source.get("defaultMode") or 0o644)
        files: dict[str, File] = {}
        for source in request.source.get("sources") or ():
            files |= self._files(request, source, mode)
        await asyncio.to_thread(write_files, request.folder, files)
        return Prepared(request.folder, read_only=True)

    def _files(self, request: VolumeRequest, source: dict[str, dict[str, object]], mode: int) -> dict[str, File]:
        context, namespace = request.context, request.pod.namespace
        for kind, each in source.items():
            if kind == "secret":
                return secret_files(context, namespace, str(each.get("name", "")), each, mode)
            if kind == "configMap":
                return config_map_files(context, namespace, str(each.get("name", "")), each, mode)
            if kind == "downwardAPI":
                return downward_files(request, each, mode)
        raise VolumeError(f"projected sources of type {', '.join(source) or 'nothing'} aren't served by this node")

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""
