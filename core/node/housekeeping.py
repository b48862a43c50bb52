"""What is left of Pods that are gone: sandboxes, volume folders, log folders. Runs once the Pods are known, never before."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from core.node.runtime.base import Runtime, RuntimeFailure, SandboxInfo
from core.node.volumes.manager import Volumes

__all__ = ["LOG_RETENTION", "orphans", "outdated_logs", "remove_logs", "sweep"]

log = logging.getLogger(__name__)

LOG_RETENTION = 3600.0
"""Seconds that the logs of a Pod outlive it."""


def orphans(sandboxes: Sequence[SandboxInfo], uids: Collection[str]) -> list[SandboxInfo]:
    """Sandboxes whose Pod is gone from the API."""
    return [each for each in sandboxes if each.uid not in uids]


def outdated_logs(root: Path, uids: Collection[str], now: float, retention: float) -> list[Path]:
    """Log folders (`NAMESPACE_NAME_UID`) of Pods that are gone, last written to before the retention."""
    if not root.is_dir():
        return []
    return [
        each
        for each in root.iterdir()
        if each.name.count("_") == 2 and each.name.rsplit("_", 1)[1] not in uids and _touched(each) < now - retention
    ]


def _touched(folder: Path) -> float:
    return max((each.stat().st_mtime for each in (folder, *folder.rglob("*")) if each.exists()), default=0.0)


async def remove_logs(root: Path, uids: Collection[str], now: float, retention: float) -> int:
    """How many log folders were removed."""

    def remove() -> int:
        found = outdated_logs(root, uids, now, retention)
        for each in found:
            shutil.rmtree(each, ignore_errors=True)
        return len(found)

    return await asyncio.to_thread(remove)


async def sweep(runtime: Runtime, volumes: Volumes, uids: Callable[[], Collection[str]]) -> list[str]:
    """Remove sandboxes and volume folders of Pods that aren't among `uids()`; returns whose sandboxes they were.

    It is asked after the look at what there is: a Pod is known before anything of it is there, so what was made meanwhile is nobody's orphan.
    """
    removed = []
    there = await runtime.list()
    for each in orphans(there, uids()):
        try:
            await runtime.remove_sandbox(each.id)
            removed.append(each.uid)
            log.info("removed the sandbox of %s/%s, whose Pod is gone", each.namespace, each.name)
        except RuntimeFailure as error:
            log.warning("the orphaned sandbox %s could not be removed: %s", each.id, error)
    await volumes.remove_others(uids)
    return removed
