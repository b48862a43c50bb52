"""What a volume type is: a function from a request to a host path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.api import views
from core.errors import FaasliteError
from core.node.env import Objects

__all__ = [
    "POD_NAMESPACE",
    "Claims",
    "CsiPlugin",
    "Prepared",
    "VolumeContext",
    "VolumeError",
    "VolumeRequest",
    "VolumeType",
]


POD_NAMESPACE = "csi.storage.k8s.io/pod.namespace"
"""The attribute by which a CSI driver is told whose Pod a volume is for (https://kubernetes-csi.github.io/docs/pod-info.html)."""


class VolumeError(FaasliteError):
    """A volume can't be had. `reason` becomes the waiting reason of the Pod's containers."""

    def __init__(self, message: str, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason


class CsiPlugin(Protocol):
    """Serves inline ephemeral CSI volumes of one driver. `key` names one volume of one Pod."""

    async def publish(self, key: str, attributes: Mapping[str, str]) -> Path:
        """The folder to mount; returns once it is complete. Raises `VolumeError`."""

    def adopt(self, key: str, attributes: Mapping[str, str]) -> Path | None:
        """Like `publish` for a Pod that already runs, from what is on the node; None where it isn't there."""

    async def prefetch(self, attributes: Mapping[str, str]) -> Path:
        """Have on the node what Pods may ask for later. Raises `VolumeError`."""

    async def unpublish(self, key: str) -> None:
        """The Pod is gone; calling it again, or for an unknown key, does nothing."""


class Claims(Protocol):
    """Claims and volumes as the API has them. Both raise `core.errors.ApiError`."""

    async def claim(self, namespace: str, name: str) -> views.PersistentVolumeClaim: ...

    async def volume(self, name: str) -> views.PersistentVolume: ...


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """What volumes need of the node. `folders` is where those of its own lie that outlive Pods."""

    objects: Objects
    host_ip: str
    allocatable: Mapping[str, str]
    csi: Mapping[str, CsiPlugin]
    claims: Claims
    folders: Path


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """One volume of one Pod. `folder` is its own place on the host, which the type makes if it needs it."""

    pod: views.Pod
    name: str
    source: Mapping[str, Any]
    folder: Path
    context: VolumeContext

    @property
    def key(self) -> str:
        return f"{self.pod.metadata.uid}/{self.name}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Where the volume is on the host; `read_only` holds for every mount of it. With `scratch` (bytes) the runtime makes it instead."""

    path: Path
    read_only: bool = False
    scratch: int = 0


class VolumeType(Protocol):
    updates: bool
    """Whether `prepare`, called again, brings changed content in."""

    async def prepare(self, request: VolumeRequest) -> Prepared:
        """Raises `VolumeError`, `core.node.env.ConfigError`."""

    async def release(self, request: VolumeRequest) -> None:
        """The Pod is gone; the folder is removed by the manager."""
