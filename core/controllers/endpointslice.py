"""The EndpointSlice controller: where a Service's Pods are. What to write is decided in `core.controllers.endpoints`."""

from __future__ import annotations

from core.api.kinds import ENDPOINT_SLICE, POD, SERVICE
from core.api.views import EndpointSlice, Pod, Service
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import monotonic
from core.controllers import endpoints
from core.controllers.expectations import Expectations
from core.errors import NotFound

__all__ = ["EndpointSliceController"]

WORKERS = 8
POD_DELAY = 0.1
"""Seconds in which changes of Pods come together to one write of a slice. A Pod that is to go serves for longer than that."""
POD_EACH, POD_MOST = 0.004, 0.4
"""And so many more for each Pod that the Service had at the last look, which costs as much more, and at most."""


class EndpointSliceController:
    """Services without a selector are left alone: their slices are somebody else's."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._services: Informer[Service] = informers.watch(SERVICE, Service)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._slices: Informer[EndpointSlice] = informers.watch(
            ENDPOINT_SLICE, EndpointSlice, labels=f"{endpoints.LABEL_MANAGED_BY}={endpoints.MANAGER}"
        )
        # One of a Service's labels, so that its Pods are found without walking over the namespace.
        self._pods.add_index("label", _label_terms)
        self._services.add_index("label", lambda found: [_service_term(found)] if found.spec.selector else [])
        self._slices.add_index("service", lambda found: [_service_key(found)])
        self._expected = Expectations()
        self._sizes: dict[str, int] = {}
        self.queue = WorkQueue()
        self._reconciler = Reconciler("endpointslice", self.sync, queue=self.queue, workers=WORKERS, late=True)
        self._services.add_handler(self.on_service)
        self._pods.add_handler(self.on_pod)
        self._slices.add_handler(self.on_slice)

    async def start(self) -> None:
        await self._services.wait_synced()
        await self._pods.wait_synced()
        await self._slices.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_service(self, old: Service | None, new: Service | None) -> None:
        found = new or old
        if found is not None:
            self.queue.add(found.key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and _same_endpoint(old, new):
            return
        for pod in (old, new):
            if pod is None or (not pod.status.pod_ip and pod is new and old is None):
                continue
            for term in _label_terms(pod):
                for service in self._services.by_index("label", term):
                    self._later(service.key)

    def on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if new is None:
            if old is not None:
                self._expected.deleted(_service_key(old), old.metadata.uid)
                self.queue.add(_service_key(old))
            return
        key = _service_key(new)
        if old is None:
            self._expected.created(key)
        self._later(key)

    def _later(self, key: str) -> None:
        self.queue.add_after(key, POD_DELAY + min(POD_EACH * self._sizes.get(key, 0), POD_MOST))

    async def sync(self, key: str) -> None:
        """One reconcile of the Service `namespace/name`. Slices of a Service that is gone go with it, as its dependents."""
        service = self._services.get(key)
        if service is None or service.metadata.deletion_timestamp is not None or not service.spec.selector:
            self._expected.forget(key)
            self._sizes.pop(key, None)
            return
        if not self._expected.satisfied(key, monotonic()):
            return  # what was asked for adds the key when the cache shows it
        pods = self._pods.by_index("label", _service_term(service))
        self._sizes[key] = len(pods)
        plan = endpoints.plan(service, pods, self._slices.by_index("service", key))
        for document in plan.update:
            await self._client.update(ENDPOINT_SLICE, document)
        for document in plan.create:
            self._expected.expect(key, monotonic(), creations=1)
            try:
                await self._client.create(ENDPOINT_SLICE, document, service.namespace)
            except BaseException:
                self._expected.created(key)
                raise
        for old in plan.delete:
            uid = old.metadata.uid
            self._expected.expect(key, monotonic(), deletions=[uid])
            try:
                await self._client.delete(ENDPOINT_SLICE, old.name, old.namespace, uid=uid)
            except NotFound:
                self._expected.deleted(key, uid)
            except BaseException:
                self._expected.deleted(key, uid)
                raise


def _service_key(found: EndpointSlice) -> str:
    return f"{found.namespace}/{found.metadata.labels.get(endpoints.LABEL_SERVICE, '')}"


def _label_terms(pod: Pod) -> list[str]:
    namespace = pod.namespace
    return [f"{namespace}/{key}={value}" for key, value in pod.metadata.labels.items()]


def _service_term(service: Service) -> str:
    """The last of its labels in order: any will do as long as it is always the same."""
    key, value = max(service.spec.selector.items())
    return f"{service.namespace}/{key}={value}"


def _same_endpoint(old: Pod, new: Pod) -> bool:
    return (
        old.status.pod_ip == new.status.pod_ip
        and old.ready == new.ready
        and old.terminal == new.terminal
        and old.spec.node_name == new.spec.node_name
        and (old.metadata.deletion_timestamp is None) == (new.metadata.deletion_timestamp is None)
        and old.metadata.labels == new.metadata.labels
        and old.metadata.uid == new.metadata.uid
    )
