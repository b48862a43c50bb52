"""Takes away all that a cluster has on a Docker engine: containers, networks, routes, and what is mounted in the driver's folders.

For the end of a cluster, when no driver is at work any more; what it doesn't find it doesn't miss.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.node.runtime import docker_spec as said
from core.node.runtime.docker_engine import Absent, Conflicting, Engine
from core.node.runtime.docker_network import close_routes, remove_network
from core.node.runtime.docker_slot import remove_folder

__all__ = ["remove_all"]


async def remove_all(base_url: str, cluster: str, folders: Sequence[Path], *, grace: int) -> int:
    """How many containers there were. `folders`, of drivers and volumes, go too. Raises `RuntimeUnavailable`, `RuntimeFailure`."""
    engine = Engine(base_url)
    mark = {"label": [f"{said.LABEL_CLUSTER}={cluster}"]}
    try:
        await engine.connect()
        containers = await engine.do("containers", all=True, filters=mark)
        await asyncio.gather(*(_remove(engine, each, grace) for each in containers))
        for network in await engine.do("networks", filters=mark):
            await remove_network(engine, network["Id"])
    finally:
        await engine.close()
    await close_routes(f"faaslite-{cluster}")
    for each in folders:
        await asyncio.to_thread(remove_folder, each)
    return len(containers)


async def _remove(engine: Engine, container: dict[str, Any], grace: int) -> None:
    """One that only waits has nothing to end in order."""
    waits = said.LABEL_SLOT in container["Labels"] and container["Names"][0].lstrip("/") == said.slot_name(
        container["Labels"][said.LABEL_SLOT]
    )
    with contextlib.suppress(Absent, Conflicting):
        if container["State"] == "running" and not waits:
            await engine.do("stop", container["Id"], timeout=grace)
    await engine.remove(container["Id"])
