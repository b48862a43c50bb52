"""Volumes of claims: what the claim is bound to, looked up in the API when the Pod starts.

A node serves volumes that are a path of its own (`hostPath`, `local`), and those that were made for a claim by
`core.controllers.persistentvolume`: a folder below `folders`, which stays until the volume is reclaimed. How much is written there isn't bounded.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.api.kinds import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from core.api.views import PersistentVolume, PersistentVolumeClaim
from core.api.volumes import LOCAL_DRIVER
from core.client.rest import Client
from core.errors import ApiError
from core.node.volumes.base import Prepared, VolumeError, VolumeRequest
from core.node.volumes.host_path import HostPathVolume

__all__ = ["ApiClaims", "ClaimVolume", "OwnVolume", "folder_of", "remove_folder"]


class ApiClaims:
    """Implements `core.node.volumes.base.Claims`: a node may get what its Pods claim, and no more."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def claim(self, namespace: str, name: str) -> PersistentVolumeClaim:
        return await self._client.get(PERSISTENT_VOLUME_CLAIM, name, namespace, as_=PersistentVolumeClaim)

    async def volume(self, name: str) -> PersistentVolume:
        return await self._client.get(PERSISTENT_VOLUME, name, as_=PersistentVolume)


def folder_of(folders: Path, handle: str) -> Path:
    """Raises `VolumeError` for a handle that isn't a name."""
    if not handle or handle.startswith(".") or "/" in handle:
        raise VolumeError(f"{handle!r} is no name of a volume of this node")
    return folders / handle


async def remove_folder(folders: Path, handle: str) -> None:
    """Of a volume that was reclaimed; may be called again. Raises `VolumeError`, OSError."""
    folder = folder_of(folders, handle)
    if folder.exists():
        await asyncio.to_thread(shutil.rmtree, folder)


async def _prepare(request: VolumeRequest, name: str, *, read_only: bool, own: bool) -> Prepared:
    namespace, claims = request.pod.namespace, request.context.claims
    try:
        claim = await claims.claim(namespace, name)
        if own and (claim.metadata.controller is None or claim.metadata.controller.uid != request.pod.metadata.uid):
            raise VolumeError(f'PVC "{namespace}/{name}" was not created for pod "{request.pod.key}" (pod is not owner)')  # fmt: skip
        if claim.metadata.deletion_timestamp is not None:
            raise VolumeError(f'persistentvolumeclaim "{name}" is being deleted')
        if claim.status.phase != "Bound" or not claim.spec.volume_name:
            raise VolumeError(f'PVC "{namespace}/{name}" is not bound')
        volume = await claims.volume(claim.spec.volume_name)
    except ApiError as error:
        raise VolumeError(error.message) from error
    if (volume.spec.claim_ref or {}).get("uid") != claim.metadata.uid:
        raise VolumeError(f'PV "{volume.name}" is bound to another claim than "{namespace}/{name}"')
    if volume.spec.volume_mode == "Block":
        raise VolumeError(f"volume {request.name} has volumeMode Block, which this node doesn't serve")
    found = await _place(request, volume)
    return Prepared(found.path, read_only=read_only or volume.spec.access_modes == ["ReadOnlyMany"])


async def _place(request: VolumeRequest, volume: PersistentVolume) -> Prepared:
    spec = volume.spec
    source: Mapping[str, Any] | None = spec.host_path or spec.local
    if source is not None:
        there = {"path": source.get("path", ""), "type": _kind(source, made=spec.host_path is not None)}
        return await HostPathVolume().prepare(
            VolumeRequest(request.pod, request.name, there, request.folder, request.context)
        )
    if (spec.csi or {}).get("driver") == LOCAL_DRIVER:
        folder = folder_of(request.context.folders, str((spec.csi or {}).get("volumeHandle", "")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        return Prepared(folder)
    raise VolumeError(f"PV {volume.name}: this node doesn't serve its type")


def _kind(source: Mapping[str, Any], *, made: bool) -> str:
    """A hostPath without a type is made where it isn't there, as engines do with what they mount."""
    kind = str(source.get("type") or "")
    return "DirectoryOrCreate" if made and not kind and not Path(str(source.get("path", ""))).exists() else kind


class ClaimVolume:
    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        source = request.source
        return await _prepare(
            request, str(source.get("claimName", "")), read_only=bool(source.get("readOnly")), own=False
        )

    async def release(self, request: VolumeRequest) -> None:
        """It outlives the Pod."""


class OwnVolume:
    """`ephemeral`: a claim that was made for the Pod."""

    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        return await _prepare(request, f"{request.pod.name}-{request.name}", read_only=False, own=True)

    async def release(self, request: VolumeRequest) -> None:
        """The claim goes with the Pod, and takes the volume along."""
