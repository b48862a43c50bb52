"""Builds of dependencies in the cluster, as `faas deploy` follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cli.output import note
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.light import LightTransport
    from core.client.rest import Client

__all__ = ["BUILD_ENDED", "BuildLogs", "BuildPlace", "annotations_for", "built", "cluster_builds", "current_build"]

BUILD_ENDED = frozenset({"BuildFailed", "OOMKilled"})
"""Reasons of the condition Built that say that a build ended without a layer."""
_LAST_LINES = 15.0
"""Seconds for what is left of a log once its build has ended."""


class BuildPlace(StrEnum):
    """`--build`."""

    cluster = "cluster"
    local = "local"


async def cluster_builds(client: Client) -> Callable[[str], bool]:
    """Of which runtimes the cluster says that it builds dependencies (`kube-public/cluster-info`): all, Python's alone, or none."""
    from core.api.kinds import CONFIG_MAP
    from core.errors import Forbidden, NotFound

    try:
        found = await client.get(CONFIG_MAP, "cluster-info", "kube-public")
    except (NotFound, Forbidden):
        return lambda _: False
    said = str((found.get("data") or {}).get("builds"))
    return lambda runtime: said == BuildPlace.cluster or (said == "python" and runtime.startswith("python"))


def built(document: Mapping[str, Any]) -> tuple[str, str]:
    """Status and reason of the condition Built, "" where there is none."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    found: Document = next((each for each in conditions if each["type"] == "Built"), {})
    return str(found.get("status") or ""), str(found.get("reason") or "")


def annotations_for(current: Mapping[str, Any] | None, *, fresh: bool) -> dict[str, str]:
    """What a deploy writes on a Function: that a build which failed is asked for again, and whether requirements are to be resolved anew."""
    from faaslite.api.names import ANNOTATION_BUILD_ASKED, ANNOTATION_RESOLVED

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = {ANNOTATION_BUILD_ASKED: now} if current is None or built(current)[0] == "False" else {}
    return found | ({ANNOTATION_RESOLVED: now} if fresh else {})


def current_build(document: Mapping[str, Any]) -> bool:
    """Whether the status is of the layer that the Function asks for now, and of this time of asking; so where it asks for none."""
    from faaslite.api.layers import wanted_layer

    wanted = wanted_layer(document.get("metadata") or {}, document.get("spec"))
    if wanted is None:
        return True
    build = (document.get("status") or {}).get("build") or {}
    return (build.get("key"), build.get("asked")) == (wanted.key, wanted.asked)


class BuildLogs:
    """Prints the log of each build Pod once, whichever of the functions waits for it. `tasks` end with their logs."""

    def __init__(self, transport: LightTransport, namespace: str) -> None:
        self._transport = transport
        self._namespace = namespace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()
        self._awaited: set[str] = set()

    @property
    def building(self) -> bool:
        """Whether one of the functions waits for a build that runs."""
        return bool(self._running)

    def see(self, document: Document) -> None:
        """News of a function."""
        name, reason = document["metadata"]["name"], built(document)[1]
        pod = str(((document.get("status") or {}).get("build") or {}).get("pod") or "")
        if reason == "Building" and pod:
            self._running.add(name)
            self._begin(pod, follow=True)
        else:
            self._running.discard(name)
            if reason == "BuildPending":
                self._awaited.add(pod)
            elif pod and (reason in BUILD_ENDED or pod in self._awaited):
                self._begin(pod, follow=False)  # it ended before it was seen to run

    def _begin(self, pod: str, *, follow: bool) -> None:
        if pod not in self._tasks:
            note(f"building the dependency layer in the cluster ({pod})")
            self._tasks[pod] = asyncio.get_running_loop().create_task(self._print(pod, follow))

    async def _print(self, pod: str, follow: bool) -> None:
        from core.api.kinds import POD
        from core.errors import ApiError

        rest = b""
        query = {"follow": "true"} if follow else {}
        try:
            async with aclosing(self._transport.stream(POD.path(self._namespace, pod, "log"), query)) as chunks:
                async for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        note(f"  {line.decode(errors='replace')}")
        except ApiError as error:
            note(f"  the build's log can't be read: {error.message}")

    async def finish(self) -> None:
        """Let the logs come to their end."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_LAST_LINES)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
