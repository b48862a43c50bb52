"""Takes away bootstrap tokens that have expired."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable

from core.api.kinds import SECRET
from core.api.views import Secret
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import parse_time, wall
from core.errors import Conflict, NotFound

__all__ = ["TokenCleaner", "expires_at"]

log = logging.getLogger(__name__)

NAMESPACE = "kube-system"
TYPE = "bootstrap.kubernetes.io/token"


def expires_at(secret: Secret) -> float | None:
    """Seconds since the epoch; None for one that never does, or says it in no way that can be read (it is refused anyway)."""
    try:
        return parse_time(base64.b64decode(secret.data.get("expiration", "")).decode())
    except (ValueError, binascii.Error):
        return None


class TokenCleaner:
    def __init__(self, client: Client, informers: Informers, *, clock: Callable[[], float] = wall) -> None:
        self._client = client
        self._clock = clock
        self._secrets: Informer[Secret] = informers.watch(SECRET, Secret, namespace=NAMESPACE, fields=f"type={TYPE}")
        self.queue = WorkQueue()
        self._reconciler = Reconciler("token-cleaner", self.sync, queue=self.queue, workers=1)
        self._secrets.add_handler(lambda old, new: self.queue.add(new.key) if new is not None else None)

    async def start(self) -> None:
        await self._secrets.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    async def sync(self, key: str) -> float | None:
        """One token; the seconds until it expires."""
        secret = self._secrets.get(key)
        end = expires_at(secret) if secret is not None else None
        if secret is None or end is None:
            return None
        if (left := end - self._clock()) > 0:
            return left
        try:
            await self._client.delete(SECRET, secret.name, NAMESPACE, uid=secret.metadata.uid)
        except (NotFound, Conflict):
            return None
        log.info("removed the expired bootstrap token %s", secret.name)
        return None
