"""DefaultBinder: `POST pods/NAME/binding`."""

from __future__ import annotations

from core.api.kinds import POD
from core.api.views import Pod
from core.client.rest import Client


class DefaultBinder:
    name = "DefaultBinder"

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bind(self, pod: Pod, node_name: str) -> None:
        meta = pod.metadata
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            # The uid keeps the choice from a namesake that was created in between.
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        }
        await self._client.create(POD, binding, meta.namespace, name=meta.name, subresource="binding")
