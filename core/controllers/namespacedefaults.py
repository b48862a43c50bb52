"""What every namespace has from the start: the ServiceAccount `default`, and the cluster's CA in ConfigMap `kube-root-ca.crt`."""

from __future__ import annotations

from core.api.kinds import CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT, Kind
from core.api.meta import Document
from core.api.views import ConfigMap, Namespace, ObjectView
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.errors import AlreadyExists, Forbidden, NotFound

__all__ = ["NamespaceDefaults", "root_ca"]

ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
_NOTE = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using "
    "internal endpoints such as the internal service IP or kubernetes.default.svc."
}


def root_ca(namespace: str, certificate: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": _NOTE},
        "data": {"ca.crt": certificate},
    }


class NamespaceDefaults:
    """`ca` is the PEM text; without one there is no ConfigMap to publish."""

    def __init__(self, client: Client, informers: Informers, *, ca: str = "") -> None:
        self._client = client
        self._ca = ca
        self._namespaces: Informer[Namespace] = informers.watch(NAMESPACE, Namespace)
        self._accounts: Informer[ObjectView] = informers.watch(
            SERVICE_ACCOUNT, ObjectView, fields=f"metadata.name={ACCOUNT}"
        )
        self._maps: Informer[ConfigMap] = informers.watch(CONFIG_MAP, ConfigMap, fields=f"metadata.name={ROOT_CA}")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("namespace-defaults", self.sync, queue=self.queue, workers=2)
        self._namespaces.add_handler(self.on_namespace)
        self._accounts.add_handler(self.on_child)
        self._maps.add_handler(self.on_child)

    async def start(self) -> None:
        await self._namespaces.wait_synced()
        await self._accounts.wait_synced()
        await self._maps.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        if old is None and new is not None:
            self.queue.add(new.name)

    def on_child(self, old: ObjectView | None, new: ObjectView | None) -> None:
        """Somebody removed or changed one of ours."""
        if old is not None:
            self.queue.add(old.namespace)

    async def sync(self, name: str) -> None:
        """Make what is missing in the namespace `name`, mend a wrong certificate."""
        found = self._namespaces.get(name)
        if found is None or found.metadata.deletion_timestamp is not None:
            return
        try:
            if self._accounts.get(f"{name}/{ACCOUNT}") is None:
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
                await self._create(SERVICE_ACCOUNT, account, name)
            if self._ca:
                await self._publish(name)
        except (Forbidden, NotFound):
            # A namespace that began to terminate takes nothing new; one that stays is worth another try.
            live = await self._live(name)
            if live is not None and live.metadata.deletion_timestamp is None:
                raise

    async def _live(self, name: str) -> Namespace | None:
        try:
            return await self._client.get(NAMESPACE, name, as_=Namespace)
        except NotFound:
            return None

    async def _publish(self, name: str) -> None:
        current = self._maps.get(f"{name}/{ROOT_CA}")
        if current is None:
            await self._create(CONFIG_MAP, root_ca(name, self._ca), name)
        elif current.data != {"ca.crt": self._ca}:
            await self._client.update(CONFIG_MAP, root_ca(name, self._ca))

    async def _create(self, kind: Kind, document: Document, namespace: str) -> None:
        try:
            await self._client.create(kind, document, namespace)
        except AlreadyExists:
            return
