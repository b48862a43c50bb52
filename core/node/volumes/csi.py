"""Inline ephemeral csi volumes, through the node's table of plugins."""

from __future__ import annotations

from core.node.volumes.base import POD_NAMESPACE, CsiPlugin, Prepared, VolumeError, VolumeRequest

__all__ = ["CsiVolume"]


def _plugin(request: VolumeRequest) -> CsiPlugin:
    driver = str(request.source.get("driver", ""))
    found = request.context.csi.get(driver)
    if found is None:
        raise VolumeError(f"this node has no CSI driver {driver!r}")
    return found


class CsiVolume:
    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        # Last: a Pod that says so itself must not be believed.
        attributes = {**(request.source.get("volumeAttributes") or {}), POD_NAMESPACE: request.pod.namespace}
        path = await _plugin(request).publish(request.key, attributes)
        return Prepared(path, read_only=bool(request.source.get("readOnly", True)))

    async def release(self, request: VolumeRequest) -> None:
        plugin = request.context.csi.get(str(request.source.get("driver", "")))
        if plugin is not None:
            await plugin.unpublish(request.key)
