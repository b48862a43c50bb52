"""A node leaves the cluster: nothing new comes to it, its Pods end as they would by a deletion, and others take their place.

What the kubelet does at a graceful shutdown of its machine (https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/),
but that Pods are deleted instead of failed: their controllers make new ones at once.
"""

from __future__ import annotations

import asyncio
import logging

from core.api.kinds import POD
from core.client.rest import Client
from core.clock import wall
from core.errors import ApiError, Conflict, NotFound
from core.node.agent import Agent

__all__ = ["PATIENCE", "Leaving"]

log = logging.getLogger(__name__)

PATIENCE = 45.0
"""Seconds after which Pods that haven't ended are left to the end of their processes."""
_SAYING = 5.0


class Leaving:
    """A component to be started after the agent, so that it is stopped before it."""

    def __init__(self, client: Client, agent: Agent, patience: float = PATIENCE) -> None:
        self._client = client
        self._agent = agent
        self._patience = patience

    async def start(self) -> None:
        """There is nothing to do yet."""

    async def stop(self) -> None:
        """Returns when no Pod is left that somebody would miss, or patience is."""
        try:
            async with asyncio.timeout(_SAYING):
                await self._agent.heartbeat.shut_down(wall())
        except (ApiError, TimeoutError) as error:
            log.warning("node %s leaves, and the API doesn't hear it: %s", self._agent.name, error or "no answer")
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._agent.wait_gone(await self._delete())
        except TimeoutError:
            log.warning("node %s leaves with Pods that haven't ended in %.0f s", self._agent.name, self._patience)

    async def _delete(self) -> set[str]:
        """The uids of the Pods that end now. Those of DaemonSets would come back at once."""
        ending = set()
        for pod in self._agent.pods():
            if any(each.kind == "DaemonSet" for each in pod.metadata.owner_references):
                continue
            ending.add(pod.metadata.uid)
            try:
                await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
            except (NotFound, Conflict):
                continue
            except ApiError as error:
                log.warning("node %s leaves, and can't delete its Pod %s: %s", self._agent.name, pod.key, error)
                ending.discard(pod.metadata.uid)
        return ending
