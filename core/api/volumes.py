"""What the makers of persistent volumes, the scheduler and the nodes agree on: annotations, and the driver of the nodes' own volumes."""

from __future__ import annotations

__all__ = [
    "BIND_COMPLETED", "BOUND_BY_CONTROLLER", "CLAIM_PROTECTION", "DEFAULT_CLASS", "HOSTNAME", "LOCAL_DRIVER", "NO_PROVISIONER",
    "PROVISIONED_BY", "PROVISIONER", "SELECTED_NODE", "VOLUME_PROTECTION", "claim_name",
]  # fmt: skip

LOCAL_DRIVER = "local.volumes.faaslite.dev"
"""Provisioner and CSI driver of volumes that are folders of a node; `volumeHandle` is the folder's name."""
HOSTNAME = "kubernetes.io/hostname"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
CLAIM_PROTECTION, VOLUME_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"


def claim_name(pod: str, volume: str, claimed: dict[str, object] | None, ephemeral: dict[str, object] | None) -> str:
    """The claim behind a volume of a Pod: the one that it names, or the Pod's own (`ephemeral`); "" where neither is."""
    if claimed is not None:
        return str(claimed.get("claimName", ""))
    return f"{pod}-{volume}" if ephemeral is not None else ""
