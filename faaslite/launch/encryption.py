"""Secrets are encrypted at rest: the key ring of this data dir, and its rotation while the platform runs."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from core.keyring import KeyRing
from core.store.base import Store
from core.store.encrypted import EncryptedStore

__all__ = ["SECRET_PREFIXES", "Encryption", "add_key", "rotated", "rotation_over"]

log = logging.getLogger(__name__)

SECRET_PREFIXES = ("/secrets/",)


class Encryption:
    """A component: on its start, and at SIGHUP, what isn't encrypted with the primary key of `keys` is written again.

    Keys that nothing is encrypted with any more leave the file then: a rotation is over when one key is left.
    """

    def __init__(self, store: Store, keys: Path) -> None:
        self._keys = keys
        self.store = EncryptedStore(store, KeyRing.load(keys), SECRET_PREFIXES)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.rotate()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_hangup(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._again(), name="rotation of keys")

    async def _again(self) -> None:
        try:
            await self.rotate()
        except Exception:
            log.exception("the keys were not rotated")

    async def rotate(self) -> None:
        """One rotation. Raises KeyRingError where the file or a value can't be used: then nothing has changed."""
        ring = KeyRing.load(self._keys)
        self.store.use(ring)
        count = await self.store.encrypt_all()
        if count or len(ring.ids) > 1:
            log.info("encrypted %d Secrets with the key %s", count, ring.primary)
        if len(ring.ids) > 1:
            ring = ring.without_old()
            self.store.use(ring)
            ring.save(self._keys)


def add_key(keys: Path) -> str:
    """Put a new primary key into the file; its id. The rotation itself is `Encryption.rotate`. Raises KeyRingError."""
    ring = KeyRing.load(keys).rotated()
    ring.save(keys)
    return ring.primary


def rotation_over(keys: Path, primary: str) -> bool:
    """Whether that key is the only one left in the file, or has been taken out of it again."""
    found = KeyRing.load(keys).ids
    return found == [primary] or primary not in found


def rotated(keys: Path, primary: str) -> bool:
    """Whether that key is the one that encrypts."""
    return KeyRing.load(keys).primary == primary
