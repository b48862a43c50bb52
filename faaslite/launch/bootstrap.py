"""What a new cluster gets before anything else runs on it: the Function kind, and the platform's roles."""

from __future__ import annotations

import asyncio
from typing import Protocol

from core.api.kinds import CLUSTER_ROLE, CUSTOM_RESOURCE_DEFINITION
from core.client.rest import Client
from core.errors import AlreadyExists
from faaslite.api.crd import function_definition
from faaslite.api.names import FUNCTION
from faaslite.api.tenancy import roles

__all__ = ["Bootstrap", "Closing"]


class Bootstrap:
    """Applies the CustomResourceDefinition of Function and the roles; returns once Functions are served."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self) -> None:
        document = function_definition()
        name = document["metadata"]["name"]
        try:
            await self._client.create(CUSTOM_RESOURCE_DEFINITION, document)
        except AlreadyExists:
            await self._client.patch(CUSTOM_RESOURCE_DEFINITION, name, "", {"spec": document["spec"]})
        for role in roles():
            try:
                await self._client.create(CLUSTER_ROLE, role)
            except AlreadyExists:
                await self._client.patch(CLUSTER_ROLE, role["metadata"]["name"], "", {"rules": role["rules"]})
        await self._client.list(FUNCTION, limit=1)

    async def stop(self) -> None:
        """Nothing runs."""


class _Closable(Protocol):
    async def close(self) -> None: ...


class Closing:
    """Closes a resource that components share, after they have stopped."""

    def __init__(self, resource: _Closable) -> None:
        self._resource = resource

    async def start(self) -> None:
        """It is open already."""
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self._resource.close()
