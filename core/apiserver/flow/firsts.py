"""Stores the FlowSchemas and PriorityLevelConfigurations that every cluster has."""

from __future__ import annotations

from core.api.kinds import FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION
from core.apiserver.cache import Document
from core.apiserver.flow import bootstrap
from core.apiserver.registry.generic import Registry
from core.apiserver.served import Served
from core.errors import AlreadyExists

__all__ = ["ensure_objects"]


async def ensure_objects(served: Served) -> None:
    """Create what is missing, and give those whose annotation says that nobody took them over the specs of this release."""
    for kind, documents in ((PRIORITY_LEVEL_CONFIGURATION, bootstrap.levels()), (FLOW_SCHEMA, bootstrap.schemas())):
        registry = served.find(kind.group, kind.version, kind.plural)
        if registry is not None:
            for document in documents:
                await _ensure(registry, {"apiVersion": kind.api_version, "kind": kind.kind, **document})


async def _ensure(registry: Registry, document: Document) -> None:
    name = document["metadata"]["name"]
    try:
        await registry.create("", document)
        return
    except AlreadyExists:
        stored = registry.codec.document(await registry.get("", name))
    ours = (stored["metadata"].get("annotations") or {}).get(bootstrap.AUTO_UPDATE) == "true"
    if ours and stored.get("spec") != document["spec"]:
        await registry.update("", name, lambda old: {**old, "spec": document["spec"]}, pinned=False)
