"""How many seats a request takes: a list takes more the more objects there are, everything else takes one.

After Kubernetes' list work estimator: a seat per hundred objects, ten at most. How many there are is looked up once in a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.apiserver.dispatch import RequestInfo
from core.apiserver.served import Served
from core.store.base import Store, StoreError

__all__ = ["MAX_WIDTH", "Widths", "width"]

OBJECTS_PER_SEAT = 100
MAX_WIDTH = 10
_FRESH = 10.0
_REMEMBERED = 4096


def width(objects: int, query: Mapping[str, str]) -> int:
    """Of a list of a collection with that many objects."""
    if "metadata.name=" in query.get("fieldSelector", ""):
        return 1
    limit = query.get("limit", "")
    # A selector makes a server look at more than it returns, so a limit counts only where there is none.
    if limit.isdigit() and int(limit) and not (query.get("labelSelector") or query.get("fieldSelector")):
        objects = min(objects, int(limit))
    return max(1, min(-(-objects // OBJECTS_PER_SEAT), MAX_WIDTH))


class Widths:
    def __init__(self, store: Store, served: Served, clock: Callable[[], float]) -> None:
        self._store = store
        self._served = served
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    async def of(self, info: RequestInfo, query: Mapping[str, str]) -> int:
        """Of a list, or of a watch, which counts for the objects that it begins with."""
        registry = self._served.find(info.group, info.version, info.resource)
        if registry is None:
            return 1
        if (
            info.verb == "watch"
            and query.get("resourceVersion", "") not in ("", "0")
            and "sendInitialEvents" not in query
        ):
            return 1
        return width(await self._count(registry.prefix(info.namespace if registry.kind.namespaced else "")), query)

    async def _count(self, prefix: str) -> int:
        now = self._clock()
        found = self._counts.get(prefix)
        if found is None or now - found[0] > _FRESH:
            if len(self._counts) >= _REMEMBERED:
                self._counts.clear()
            try:
                page = await self._store.list(prefix, limit=1)
            except StoreError:
                return 0  # the list itself will say what is wrong
            found = self._counts[prefix] = (now, len(page.entries) + page.remaining)
        return found[1]
