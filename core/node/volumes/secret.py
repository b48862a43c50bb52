"""secret volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from core.node.env import decoded
from core.node.volumes.base import Prepared, VolumeContext, VolumeError, VolumeRequest
from core.node.volumes.files import File, select, write_files

__all__ = ["SecretVolume", "secret_files"]


def secret_files(
    context: VolumeContext, namespace: str, name: str, source: Mapping[str, Any], mode: int
) -> dict[str, File]:
    """The files of one Secret. Raises `VolumeError`."""
    optional = bool(source.get("optional"))
    found = context.objects.secret(namespace, name)
    if found is None:
        if optional:
            return {}
        raise VolumeError(f'secret "{name}" not found')
    data = {key: decoded(value, f"secret {name}, key {key},") for key, value in found.data.items()}
    return select(data, source.get("items"), mode, f"secret {name}", optional)


class SecretVolume:
    updates = True

    async def prepare(self, request: VolumeRequest) -> Prepared:
        source = request.source
        mode = int(source.get("defaultMode") or 0o644)
        name = str(source.get("secretName", ""))
        files = secret_files(request.context, request.pod.namespace, name, source, mode)
        await asyncio.to_thread(write_files, request.folder, files)
        return Prepared(request.folder, read_only=True)

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""
