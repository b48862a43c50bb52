"""What is asked of a Docker engine and concerns no Pod of ours in particular: itself, its images, a container's usage."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from core.node.runtime import docker_spec as said
from core.node.runtime.base import Image, ImageNotFound, RuntimeInfo, Stats
from core.node.runtime.docker_engine import Absent, Engine

__all__ = ["EngineQueries"]


class EngineQueries:
    """The part of `Runtime` that needs the engine alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def info(self) -> RuntimeInfo:
        version = await self._engine.do("version")
        options = (await self._engine.do("info")).get("SecurityOptions") or ()
        isolation = ["no_new_privs", *(["seccomp"] if any("seccomp" in each for each in options) else [])]
        return RuntimeInfo(
            "docker", str(version["Version"]), (*isolation, "mount", "pid", "ipc", "uts", "net", "cgroup"), assigns_addresses=True
        )  # fmt: skip

    async def stats(self, container_id: str) -> Stats:
        found = await self._engine.do("stats", container_id, stream=False, one_shot=True)
        memory = found.get("memory_stats") or {}
        idle = (memory.get("stats") or {}).get(
            "total_inactive_file", (memory.get("stats") or {}).get("inactive_file", 0)
        )
        return Stats(
            int(found["cpu_stats"]["cpu_usage"]["total_usage"]), max(int(memory.get("usage", 0)) - int(idle), 0)
        )

    async def pull_image(self, image: str) -> Image:
        return await self._engine.pull_image(image)

    async def find_image(self, image: str) -> Image | None:
        return await self._engine.find_image(image)

    async def images(self) -> Sequence[Image]:
        return await self._engine.images()

    async def remove_image(self, image: str) -> None:
        with contextlib.suppress(Absent, ImageNotFound):
            await self._engine.do("remove_image", said.normal_image(image))
