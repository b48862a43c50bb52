"""What a new cluster gets before anything else runs on it: the Function kind, the platform's roles, and what anybody may know of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

from core.api.kinds import CLUSTER_ROLE, CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, ROLE, ROLE_BINDING, STORAGE_CLASS, Kind
from core.api.meta import Document
from core.api.volumes import DEFAULT_CLASS, LOCAL_DRIVER
from core.client.rest import Client
from core.errors import AlreadyExists
from faaslite.api.crd import function_definition
from faaslite.api.names import FUNCTION
from faaslite.api.tenancy import roles

__all__ = ["Bootstrap", "Closing"]


class Bootstrap:
    """Applies the CustomResourceDefinition of Function, the roles, and the ConfigMap `kube-public/cluster-info`, which everybody may read: it says
    what `faas login` asks for (`public`); returns once Functions are served."""

    def __init__(self, client: Client, public: Mapping[str, str]) -> None:
        self._client = client
        self._public = public

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
        await self._publish()
        await self._storage()
        await self._client.list(FUNCTION, limit=1)

    async def _publish(self) -> None:
        metadata = {"name": "cluster-info", "namespace": "kube-public"}
        group = "rbac.authorization.k8s.io"
        rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}
        everybody = [
            {"apiGroup": group, "kind": "Group", "name": f"system:{each}"}
            for each in ("authenticated", "unauthenticated")
        ]
        role_ref = {"apiGroup": group, "kind": "Role", "name": "cluster-info"}
        await self._put(CONFIG_MAP, {"metadata": metadata, "data": dict(self._public)}, "data")
        await self._put(ROLE, {"metadata": metadata, "rules": [rule]}, "rules")
        await self._put(ROLE_BINDING, {"metadata": metadata, "roleRef": role_ref, "subjects": everybody}, "subjects")

    async def _storage(self) -> None:
        """The class of claims that name none. Once: whoever takes the mark off, or its mode, keeps it so."""
        document = {
            "metadata": {"name": "standard", "annotations": {DEFAULT_CLASS: "true"}},
            "provisioner": LOCAL_DRIVER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
        with contextlib.suppress(AlreadyExists):
            await self._client.create(STORAGE_CLASS, document)

    async def _put(self, kind: Kind, document: Document, part: str) -> None:
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        try:
            await self._client.create(kind, document, namespace)
        except AlreadyExists:
            await self._client.patch(kind, name, namespace, {part: document[part]})

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
