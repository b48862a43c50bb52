"""The controller of Endpoints, the older kind beside EndpointSlices: made from a Service's slices, or mirrored into slices where it is somebody else's.

Programs of ours read slices alone; Endpoints are for those who don't know them. So they come up to `DELAY` late, and a burst of Pods is one write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from core.api.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from core.api.meta import Document
from core.api.views import Endpoints, EndpointSlice, Service
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import monotonic
from core.controllers import endpoints, subsets
from core.controllers.expectations import Expectations
from core.errors import Conflict, NotFound

__all__ = ["EndpointsController"]

DELAY = 0.5
WORKERS = 2


class EndpointsController:
    """`delay` is in seconds."""

    def __init__(self, client: Client, informers: Informers, delay: float = DELAY) -> None:
        self._client = client
        self._delay = delay
        self._services: Informer[Service] = informers.watch(SERVICE, Service)
        self._endpoints: Informer[Endpoints] = informers.watch(ENDPOINTS, Endpoints)
        # The slices of Services are the ones that their own controller watches: one cache for both.
        self._slices = self._slices_of(informers, endpoints.MANAGER)
        self._mirrored = self._slices_of(informers, subsets.MIRRORING)
        self._expected = Expectations()
        self.queue = WorkQueue()
        self._reconciler = Reconciler("endpoints", self.sync, queue=self.queue, workers=WORKERS, late=True)
        self._services.add_handler(self.on_service)
        self._endpoints.add_handler(self.on_endpoints)
        self._slices.add_handler(self.on_slice)
        self._mirrored.add_handler(self.on_mirrored)

    def _slices_of(self, informers: Informers, manager: str) -> Informer[EndpointSlice]:
        found = informers.watch(ENDPOINT_SLICE, EndpointSlice, labels=f"{endpoints.LABEL_MANAGED_BY}={manager}")
        found.add_index("endpoints", lambda each: [_key(each)])
        return found

    async def start(self) -> None:
        for each in (self._services, self._endpoints, self._slices, self._mirrored):
            await each.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_service(self, old: Service | None, new: Service | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add_after(found.key, self._delay)

    def on_endpoints(self, old: Endpoints | None, new: Endpoints | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add_after(found.key, self._delay)

    def on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add_after(_key(found), self._delay)

    def on_mirrored(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        found = new or old
        if found is None:
            return
        if old is None:
            self._expected.created(_key(found))
        self.queue.add_after(_key(found), self._delay)

    async def sync(self, key: str) -> None:
        """One reconcile of `namespace/name`, the name that a Service and its Endpoints share."""
        service, found = self._services.get(key), self._endpoints.get(key)
        mirrored = self._mirrored.by_index("endpoints", key)
        if service is not None and service.spec.selector and service.metadata.deletion_timestamp is None:
            await self._write(service, self._slices.by_index("endpoints", key), found)
            await self._mirror(key, [], mirrored)
        elif found is not None and subsets.is_mirrored(found, service):
            if self._expected.satisfied(key, monotonic()):
                create, delete = subsets.mirror(found, mirrored)
                await self._mirror(key, create, delete)
        else:
            await self._mirror(key, [], mirrored)
            if service is None and found is not None and subsets.is_ours(found):
                with contextlib.suppress(NotFound, Conflict):
                    await self._client.delete(ENDPOINTS, found.name, found.namespace, uid=found.metadata.uid)

    async def _write(self, service: Service, slices: list[EndpointSlice], old: Endpoints | None) -> None:
        document = subsets.endpoints_of(service, slices, old)
        if document is None:
            return
        if old is None:
            await self._client.create(ENDPOINTS, document, service.namespace)
        else:
            await self._client.update(ENDPOINTS, document)

    async def _mirror(self, key: str, create: Sequence[Document], delete: Sequence[EndpointSlice]) -> None:
        namespace = key.partition("/")[0]
        for document in create:
            self._expected.expect(key, monotonic(), creations=1)
            try:
                await self._client.create(ENDPOINT_SLICE, document, namespace)
            except BaseException:
                self._expected.created(key)
                raise
        for each in delete:
            try:
                await self._client.delete(ENDPOINT_SLICE, each.name, namespace, uid=each.metadata.uid)
            except (NotFound, Conflict):
                continue


def _key(found: EndpointSlice) -> str:
    return f"{found.namespace}/{found.metadata.labels.get(endpoints.LABEL_SERVICE, '')}"
