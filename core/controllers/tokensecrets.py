"""Secrets of the type `kubernetes.io/service-account-token`: filled with a token of the ServiceAccount that they name, and gone with it.

After Kubernetes' tokens controller. The token is bound to the Secret, so that it ends with it; else it lasts.
"""

from __future__ import annotations

import base64
import contextlib

from core.api.kinds import SECRET, SERVICE_ACCOUNT
from core.api.meta import Document
from core.api.views import ObjectView, Secret
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.errors import Conflict, NotFound

__all__ = ["ACCOUNT_NAME", "ACCOUNT_UID", "TOKEN_TYPE", "TokenSecrets", "missing"]

TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
_LONG = 2**32
"""Seconds: the most that a TokenRequest may ask for."""


def missing(secret: Secret, ca: str) -> dict[str, str]:
    """The fields, but for the token itself, that the Secret lacks or has otherwise."""
    wanted = {"namespace": secret.namespace, **({"ca.crt": ca} if ca else {})}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in wanted.items()}
    return {key: text for key, text in encoded.items() if secret.data.get(key) != text}


class TokenSecrets:
    """`ca` is the PEM text of the cluster's CA."""

    def __init__(self, client: Client, informers: Informers, *, ca: str = "") -> None:
        self._client = client
        self._ca = ca
        self._secrets: Informer[Secret] = informers.watch(SECRET, Secret, fields=f"type={TOKEN_TYPE}")
        self._accounts: Informer[ObjectView] = informers.watch(SERVICE_ACCOUNT, ObjectView)
        self._secrets.add_index("account", lambda found: [_account_key(found)])
        self.queue = WorkQueue()
        self._reconciler = Reconciler("token-secrets", self.sync, queue=self.queue, workers=2)
        self._secrets.add_handler(self.on_secret)
        self._accounts.add_handler(self.on_account)

    async def start(self) -> None:
        await self._secrets.wait_synced()
        await self._accounts.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_secret(self, old: Secret | None, new: Secret | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def on_account(self, old: ObjectView | None, new: ObjectView | None) -> None:
        found = new or old
        if found is not None and (old is None or new is None or old.metadata.uid != new.metadata.uid):
            for each in self._secrets.by_index("account", found.key):
                self.queue.add(each.key)

    async def sync(self, key: str) -> None:
        """One reconcile of the Secret `namespace/name`."""
        secret = self._secrets.get(key)
        if secret is None or secret.metadata.deletion_timestamp is not None:
            return
        uid = await self._account_uid(secret)
        known = secret.metadata.annotations.get(ACCOUNT_UID, "")
        if not uid or (known and known != uid):
            with contextlib.suppress(NotFound, Conflict):
                await self._client.delete(SECRET, secret.name, secret.namespace, uid=secret.metadata.uid)
            return
        data = missing(secret, self._ca)
        if not secret.data.get("token"):
            data["token"] = base64.b64encode((await self._token(secret)).encode()).decode()
        if not data and known:
            return
        metadata = {"annotations": {ACCOUNT_UID: uid}, "uid": secret.metadata.uid}
        version = {"resourceVersion": secret.metadata.resource_version}
        patch: Document = {"metadata": {**metadata, **version}, "data": data}
        with contextlib.suppress(NotFound):
            await self._client.patch(SECRET, secret.name, secret.namespace, patch)

    async def _account_uid(self, secret: Secret) -> str:
        """ "" where the account is no more; the cache may not have a new one yet."""
        name = secret.metadata.annotations.get(ACCOUNT_NAME, "")
        cached = self._accounts.get(_account_key(secret))
        if cached is not None:
            return cached.metadata.uid
        try:
            found = await self._client.get(SERVICE_ACCOUNT, name, secret.namespace)
        except NotFound:
            return ""
        return str(found["metadata"]["uid"])

    async def _token(self, secret: Secret) -> str:
        reference = {"apiVersion": "v1", "kind": "Secret", "name": secret.name, "uid": secret.metadata.uid}
        spec: Document = {"expirationSeconds": _LONG, "boundObjectRef": reference}
        request: Document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = secret.metadata.annotations[ACCOUNT_NAME]
        answer = await self._client.create(
            SERVICE_ACCOUNT, request, secret.namespace, name=account, subresource="token"
        )
        return str(answer["status"]["token"])


def _account_key(secret: Secret) -> str:
    return f"{secret.namespace}/{secret.metadata.annotations.get(ACCOUNT_NAME, '')}"
