"""The end of a container: its preStop hook and its stop share one grace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.clock import wall
from core.node.checks import Target, check
from core.node.lifecycle import ContainerRecord
from core.node.runtime.base import Runtime, RuntimeFailure

__all__ = ["stop_container"]

log = logging.getLogger(__name__)

LEAST_GRACE = 1.0
"""Seconds that a container has at least, whatever its hook took."""
EVENT_PATIENCE = 5.0
"""Seconds that an exit may take to be told of after a stop has returned."""
RETRY = 1.0


async def stop_container(
    runtime: Runtime,
    record: ContainerRecord,
    target: Target,
    grace: float,
    ended: asyncio.Event,
    event: Callable[[str, str, str], None],
) -> bool:
    """Whether its exit was told of; where it wasn't, the runtime must be asked. `event` records (type, reason, message)."""
    info = record.info
    if info is None or not record.running:
        return True
    name, grace, begin = record.spec.name, max(grace, LEAST_GRACE), wall()
    event("Normal", "Killing", f"Stopping container {name}")
    handler = (record.spec.lifecycle or {}).get("preStop")
    if handler:
        found = await check(handler, target, grace)
        if not found.ok:
            event("Warning", "FailedPreStopHook", found.message)
    try:
        await runtime.stop_container(info.id, max(grace - (wall() - begin), LEAST_GRACE))
        async with asyncio.timeout(EVENT_PATIENCE):
            await ended.wait()
    except RuntimeFailure as error:
        log.warning("container %s (%s) could not be stopped: %s", name, info.id, error)
        await asyncio.sleep(RETRY)
    except TimeoutError:
        return False
    return True
