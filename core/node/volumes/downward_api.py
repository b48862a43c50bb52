"""downwardAPI volumes: a Pod's own fields as files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from core.node.env import pod_field, resource_field
from core.node.volumes.base import Prepared, VolumeError, VolumeRequest
from core.node.volumes.files import File, checked, write_files

__all__ = ["DownwardApiVolume", "downward_files"]


def downward_files(request: VolumeRequest, source: Mapping[str, Any], mode: int) -> dict[str, File]:
    """The files of the items. Raises `VolumeError`, `ConfigError`."""
    found = {}
    for item in source.get("items") or ():
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field:
            path = str(field.get("fieldPath", ""))
            text = pod_field(request.pod, path, request.pod.status.pod_ip, request.context.host_ip)
        elif resource:
            named = resource.get("containerName")
            owner = next((each for each in request.pod.spec.containers if each.name == named), None)
            if owner is None:
                raise VolumeError(f"there is no container {named!r} in this Pod")
            text = resource_field(
                owner, str(resource.get("resource", "")), resource.get("divisor") or "1", request.context.allocatable
            )
        else:
            raise VolumeError("an item needs fieldRef or resourceFieldRef")
        found[checked(str(item.get("path", "")))] = File(text.encode(), int(item.get("mode") or mode))
    return found


class DownwardApiVolume:
    updates = True

    async def prepare(self, request: VolumeRequest) -> Prepared:
        files = downward_files(request, request.source, int(request.source.get("defaultMode") or 0o644))
        await asyncio.to_thread(write_files, request.folder, files)
        return Prepared(request.folder, read_only=True)

    async def release(self, request: VolumeRequest) -> None:
        """Nothing but its folder."""
