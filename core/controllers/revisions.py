"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, so that one can go back to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from core.api.kinds import CONTROLLER_REVISION, Kind
from core.api.meta import Document, controller_reference
from core.api.views import ControllerRevision, ObjectView
from core.client.informer import Informer, Informers
from core.client.rest import Client
from core.controllers.adoption import by_controller
from core.controllers.rollout import template_hash
from core.errors import AlreadyExists, NotFound

__all__ = ["LABEL", "Revisions", "excess", "hash_of", "patch_of"]

LABEL = "controller-revision-hash"


def patch_of(template: Document) -> Document:
    """The patch that gives an object this template."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def excess(
    revisions: Sequence[ControllerRevision], live: Collection[str], limit: int | None
) -> list[ControllerRevision]:
    """The revisions past the history's limit, the oldest first; `live` are the names of those in use."""
    if limit is None:
        return []
    idle = sorted((each for each in revisions if each.name not in live), key=lambda each: each.revision)
    return idle[: max(len(idle) - limit, 0)]


class Revisions:
    """The revisions of objects of `owner`."""

    def __init__(self, client: Client, informers: Informers, owner: Kind) -> None:
        self._client = client
        self._owner = owner
        self.informer: Informer[ControllerRevision] = informers.watch(CONTROLLER_REVISION, ControllerRevision)
        self.informer.add_index("owner", by_controller)

    def of(self, owner: ObjectView) -> list[ControllerRevision]:
        """The oldest first."""
        return sorted(self.informer.by_index("owner", owner.metadata.uid), key=lambda each: each.revision)

    async def current(self, owner: ObjectView, template: Document) -> ControllerRevision:
        """The revision of the object as it is: the one that has its template already, as the newest, or a new one."""
        known = self.of(owner)
        data = patch_of(template)
        newest = known[-1].revision if known else 0
        same = next((each for each in reversed(known) if each.data == data), None)
        if same is not None:
            if same.revision == newest:
                return same
            patch = {"revision": newest + 1}
            return await self._client.patch(
                CONTROLLER_REVISION, same.name, same.namespace, patch, as_=ControllerRevision
            )
        for collisions in range(10):
            label = template_hash(template, collisions)
            document = self._document(owner, data, newest + 1, label)
            try:
                return await self._client.create(CONTROLLER_REVISION, document, owner.namespace, as_=ControllerRevision)
            except AlreadyExists:
                name = document["metadata"]["name"]
                taken = await self._client.get(CONTROLLER_REVISION, name, owner.namespace, as_=ControllerRevision)
                # Our own of a moment ago, which the cache hasn't shown yet.
                if taken.data == data:
                    return taken
        raise AlreadyExists(f"every name for a revision of {owner.key} is taken")

    def _document(self, owner: ObjectView, data: Document, revision: int, label: str) -> Document:
        labels = {
            **(((data["spec"]["template"].get("metadata") or {}).get("labels")) or {}),
            "controller.kubernetes.io/hash": label,
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": f"{owner.name}-{label}",
                "namespace": owner.namespace,
                "labels": labels,
                "annotations": _without_applied(owner.metadata.annotations),
                "ownerReferences": [controller_reference(self._owner, owner.name, owner.metadata.uid)],
            },
            "data": data,
            "revision": revision,
        }

    async def trim(self, owner: ObjectView, live: Collection[str], limit: int | None) -> None:
        for each in excess(self.of(owner), live, limit):
            try:
                await self._client.delete(CONTROLLER_REVISION, each.name, each.namespace)
            except NotFound:
                continue


def _without_applied(annotations: dict[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in annotations.items() if key != "kubectl.kubernetes.io/last-applied-configuration"
    }


def hash_of(revision: ControllerRevision, owner: ObjectView) -> str:
    """The value of a Pod's label `controller-revision-hash`."""
    return revision.name.removeprefix(f"{owner.name}-")
