"""configMap volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from core.node.env import decoded
from core.node.volumes.base import Prepared, VolumeContext, VolumeError, VolumeRequest
from core.node.volumes.files import File, select, write_files

__all__ = ["ConfigMapVolume", "config_map_files"]


def config_map_files(
    context: VolumeContext, namespace: str, name: str, source: Mapping[str, Any], mode: int
) -> dict[str, File]:
    """The files of one ConfigMap. Raises `VolumeError`."""
    optional = bool(source.get("optional"))
    found = context.objects.config_map(namespace, name)
    if found is None:
        if optional:
            return {}
        raise VolumeError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in found.data.items()}
    data |= {key: decoded(value, f"configmap {name}, key {key},") for key, value in found.binary_data.items()}
    return select(data, source.get("items"), mode, f"configmap {name}", optional)


class ConfigMapVolume:
    updates = True

    async def prepare(self, request: VolumeRequest) -> Prepared:
        source = request.source
        mode = int(source.get("defaultMode") or 0o644)
        files = config_map_files(request.context, request.pod.namespace, str(source.get("name", "")), source, mode)
        await asyncio.to_thread(write_files, request.folder, files)
        return Prepared(request.folder, read_only=True)

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""
