"""The table of volume types: field of `v1.Volume` -> type. A new type is a file and a row."""

from __future__ import annotations

from collections.abc import Mapping

from core.node.volumes.base import VolumeType
from core.node.volumes.claim import ClaimVolume, OwnVolume
from core.node.volumes.config_map import ConfigMapVolume
from core.node.volumes.csi import CsiVolume
from core.node.volumes.downward_api import DownwardApiVolume
from core.node.volumes.empty_dir import EmptyDirVolume
from core.node.volumes.host_path import HostPathVolume
from core.node.volumes.projected import ProjectedVolume
from core.node.volumes.secret import SecretVolume

__all__ = ["VOLUME_TYPES"]

VOLUME_TYPES: Mapping[str, VolumeType] = {
    "empty_dir": EmptyDirVolume(),
    "secret": SecretVolume(),
    "config_map": ConfigMapVolume(),
    "projected": ProjectedVolume(),
    "downward_api": DownwardApiVolume(),
    "host_path": HostPathVolume(),
    "csi": CsiVolume(),
    "persistent_volume_claim": ClaimVolume(),
    "ephemeral": OwnVolume(),
}
"""By the attribute of `views.Volume`."""
